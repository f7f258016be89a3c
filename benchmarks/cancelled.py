"""Memory of kvd while calls are cancelled by the thousand, for an hour.

    python -m benchmarks.cancelled [--minutes 60] [--rate 500] [--json FILE] [-- KVD_FLAGS]

A client cancels its gets right after they were sent, a good one beside it gets its answers. What
a call leaves behind would show as memory that grows with their number: grpcio keeps about 90 bytes
of each. Exit status 1 when it grew by more than 16 bytes a cancelled call between the tenth part of
the time, when caches have filled, and the end, and by more than 4 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import Load, start
from benchmarks.measuring.speed import fill
from benchmarks.servers import EmbeddedKvd

GOOD_RATE = 200.0
BYTES_A_CALL_MAX = 16.0
GROWTH_BYTES_MAX = 4 << 20
SAMPLES = 200


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(usage="%(prog)s [options] [-- KVD_FLAGS]")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=500.0, help="cancelled calls a second")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("kvd", nargs="*", metavar="-- KVD_FLAGS")
    asked = parser.parse_args()
    seconds = asked.minutes * 60
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-cancelled-") as directory,
        EmbeddedKvd(Path(directory), arguments=asked.kvd) as kvd,
    ):
        kvd.wait_serving()
        fill(kvd)
        cancelled = start(
            kvd.target(),
            Load(
                "get",
                in_flight=16,
                connections=4,
                seconds=seconds,
                rate=asked.rate,
                cancel_after_ms=0.01,
            ),
        )
        good = start(kvd.target(), Load("get", in_flight=64, seconds=seconds, rate=GOOD_RATE))
        memory = []
        for _ in range(SAMPLES):
            time.sleep(seconds / SAMPLES)
            memory.append(resident_bytes(kvd.pid))
        found, served = cancelled.finish(), good.finish()
    calls = found["errors"].get("CANCELLED", 0)
    settled, at_end = memory[SAMPLES // 10], memory[-1]
    bytes_a_call = (at_end - settled) / max(1, 0.9 * calls)
    flat = at_end - settled <= GROWTH_BYTES_MAX or bytes_a_call <= BYTES_A_CALL_MAX
    told = {
        "minutes": asked.minutes,
        "cancelled": calls,
        "answered_nevertheless": found.get("get", {}).get("calls", 0),
        "reopened": found["reopened"],
        "settled_mib": settled / 2**20,
        "at_end_mib": at_end / 2**20,
        "largest_mib": max(memory) / 2**20,
        "bytes_a_call": bytes_a_call,
        "good_client": served,
        "flat": calls > 0 and flat,
    }
    if asked.json is not None:
        asked.json.write_text(json.dumps({**told, "memory": memory}))
    print(json.dumps(told, indent=2))
    sys.exit(0 if told["flat"] else 1)


if __name__ == "__main__":
    main()
