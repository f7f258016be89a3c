"""What it costs a kvd to be watched: its processor time a call, with metrics and the log of slow
calls on and off.

    python -m benchmarks.observing [CALLS]

Each round asks kvds that differ in this alone, one after the other; medians of the rounds are told.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import psutil

from kvstore.client import Client
from tests.integration.process import Kvd

ROUNDS = 5
WAYS = {
    "nothing": ("--slow_call_ms=0",),
    "slow calls": ("--slow_call_ms=100",),
    "slow calls, metrics": ("--slow_call_ms=100", "--metrics_addr=127.0.0.1:0"),
}


def cpu_us(client: Client, process: psutil.Process, calls: int, put: bool) -> float:
    """Of one call, of those that ``calls`` at a time make."""
    keys = [b"key-%06d" % (number % 10_000) for number in range(calls)]
    before = sum(process.cpu_times()[:2])
    if put:
        client.put_many(
            (key, b"value of sixty-four bytes or so, as they are in many a store....")
            for key in keys
        )
    else:
        for _ in client.get_many(keys):
            pass
    return (sum(process.cpu_times()[:2]) - before) / calls * 1e6


def main() -> None:
    calls = int(sys.argv[1]) if sys.argv[1:] else 50_000
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        for way, flags in WAYS.items():
            with tempfile.TemporaryDirectory() as name, Kvd(Path(name) / "data", *flags) as kvd:
                kvd.wait_serving()
                process = psutil.Process(kvd.pid)
                with kvd.client() as client:
                    cpu_us(client, process, calls // 10, put=True)
                    for kind in ("put", "get"):
                        cost = cpu_us(client, process, calls, put=kind == "put")
                        found.setdefault((way, kind), []).append(cost)
        print(f"round {number + 1} of {ROUNDS}, load {psutil.getloadavg()[0]:.1f}", flush=True)
    for (way, kind), costs in found.items():
        spread = f"{min(costs):.1f} to {max(costs):.1f}"
        print(f"{way:22} {kind}  {statistics.median(costs):6.1f} us of kvd a call ({spread})")


if __name__ == "__main__":
    main()
