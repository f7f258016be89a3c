"""The acceptance gate: a real kvd that is quick, and loses its leader but nothing acknowledged.

    python -m benchmarks.gate [--calls N] [-- KVD_FLAGS]

Durable puts and linearizable gets, one at a time; then, as soon as one more put is acknowledged,
the leader is killed and everything acknowledged is read back. In three ways:

``embedded, process killed``
    kill -9 takes the leader and all other replicas at once; kvd is started again on their data.
``embedded, leading replica lost``
    the disk of the leading replica fails, for good; the other four go on in the same process.
``cluster of five, TLS``
    kill -9 takes the leader's process; the others go on.

kill -9 leaves what the kernel has: that it is on the disk as well, ``tests/crash`` shows. Prints
one JSON document; exit status 1 when a limit was missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.servers import EmbeddedKvd, KvdCluster
from kvstore.client import Client
from tests.integration.disk_trouble import DiskTrouble

__all__ = ["RUNS", "Run", "Way", "document", "reasons_to_fail"]

CALLS = 300
PUT_P99_MS_MAX = 20.0
GET_P99_MS_MAX = 10.0
CALL_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What one way found. ``lost``: acknowledged keys that are gone, or have another value."""

    name: str
    put_p99_ms: float
    get_p99_ms: float
    acknowledged: int
    lost: Sequence[str]
    back_after_s: float
    """From the kill until a write succeeded again, a start included."""


def reasons_to_fail(run: Run) -> list[str]:
    """Nothing: the run passed."""
    reasons = []
    if not run.acknowledged:
        reasons.append("nothing was acknowledged")
    if not run.put_p99_ms <= PUT_P99_MS_MAX:
        reasons.append(f"p99 of puts is {run.put_p99_ms:.2f} ms, more than {PUT_P99_MS_MAX:g}")
    if not run.get_p99_ms <= GET_P99_MS_MAX:
        reasons.append(f"p99 of gets is {run.get_p99_ms:.2f} ms, more than {GET_P99_MS_MAX:g}")
    if run.lost:
        reasons.append(f"{len(run.lost)} acknowledged writes are lost, {run.lost[0]} first")
    return reasons


def document(runs: Sequence[Run]) -> dict[str, Any]:
    """What is printed: the worst of all runs, whether they passed, and each of them."""
    failed = {run.name: reasons for run in runs if (reasons := reasons_to_fail(run))}
    return {
        "passed": bool(runs) and not failed,
        "failed": failed,
        "put_p99_ms": max((run.put_p99_ms for run in runs), default=None),
        "get_p99_ms": max((run.get_p99_ms for run in runs), default=None),
        "no_acknowledged_write_loss": not any(run.lost for run in runs),
        "limits": {"put_p99_ms": PUT_P99_MS_MAX, "get_p99_ms": GET_P99_MS_MAX},
        "runs": [dataclasses.asdict(run) for run in runs],
    }


class Caller:
    """Puts and gets one at a time, and what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self.put_ms: list[float] = []
        self.get_ms: list[float] = []

    def put(self, client: Client, key: bytes, value: bytes) -> None:
        began = time.perf_counter()
        client.put(key, value)
        self.put_ms.append(1e3 * (time.perf_counter() - began))
        self.acknowledged[key] = value

    def call(self, client: Client, calls: int) -> None:
        """So many puts, and as many gets."""
        for number in range(calls):
            self.put(client, b"gate/%d" % number, b"value %d of the gate" % number)
        for key, value in list(self.acknowledged.items()):
            began = time.perf_counter()
            found = client.get(key)
            self.get_ms.append(1e3 * (time.perf_counter() - began))
            if found != value:
                raise RuntimeError(f"{key!r} isn't what was put, before anything was killed")

    def run(self, name: str, client: Client, killed: float) -> Run:
        """Write once more, and read all that was acknowledged."""
        client.put(b"gate/after", b"the kill", timeout=CALL_TIMEOUT_S)
        back = time.perf_counter()
        lost = [
            key.decode()
            for key, value in self.acknowledged.items()
            if client.get(key, timeout=CALL_TIMEOUT_S) != value
        ]
        return Run(
            name,
            round(p99(self.put_ms), 3),
            round(p99(self.get_ms), 3),
            len(self.acknowledged),
            lost,
            round(back - killed, 3),
        )


def p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def process_killed(directory: Path, calls: int, flags: Sequence[str]) -> Run:
    caller = Caller()
    with EmbeddedKvd(directory, arguments=flags) as kvd, kvd.client() as client:
        kvd.wait_serving()
        caller.call(client, calls)
        caller.put(client, b"gate/last", b"before the kill")
        killed = time.perf_counter()
        kvd.kill()
    with EmbeddedKvd(directory, arguments=flags) as kvd, kvd.client() as client:
        kvd.wait_serving()
        return caller.run("embedded, process killed", client, killed)


def leading_replica_lost(directory: Path, calls: int, flags: Sequence[str]) -> Run:
    caller = Caller()
    trouble = DiskTrouble(directory)
    environment = trouble.environment(0)
    with (
        EmbeddedKvd(directory, arguments=flags, env=environment) as kvd,
        kvd.client() as client,
    ):
        kvd.wait_serving()
        caller.call(client, calls)
        leader = client.status().leader_id
        caller.put(client, b"gate/last", b"before the kill")
        killed = time.perf_counter()
        trouble.say(0, f"fail /node{leader}/")
        run = caller.run("embedded, leading replica lost", client, killed)
        if client.status().leader_id == leader or "a member has stopped" not in kvd.stderr:
            raise RuntimeError("the leading replica outlived its disk")
        return run


def cluster_leader_killed(directory: Path, calls: int, flags: Sequence[str]) -> Run:
    caller = Caller()
    with KvdCluster(directory, 5, secure=True, arguments=flags) as cluster:
        cluster.start()
        with cluster.client() as client:
            caller.call(client, calls)
            leader = cluster.leader()
            caller.put(client, b"gate/last", b"before the kill")
            killed = time.perf_counter()
            cluster.kill(leader)
            return caller.run("cluster of five, TLS", client, killed)


Way = Callable[[Path, int, Sequence[str]], Run]

RUNS: Sequence[Way] = (
    process_killed,
    leading_replica_lost,
    cluster_leader_killed,
)


def main() -> None:
    parser = argparse.ArgumentParser(usage="%(prog)s [--calls N] [-- KVD_FLAGS]")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("kvd", nargs="*", metavar="-- KVD_FLAGS")
    asked = parser.parse_args()
    found = []
    for run in RUNS:
        with tempfile.TemporaryDirectory(prefix="kvstore-gate-") as directory:
            found.append(run(Path(directory), asked.calls, asked.kvd))
    told = document(found)
    print(json.dumps(told, indent=2))
    sys.exit(0 if told["passed"] else 1)


if __name__ == "__main__":
    main()
