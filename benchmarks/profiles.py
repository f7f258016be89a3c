"""Where a member's processor time goes under load: py-spy's samples, in µs a call.

    python -m benchmarks.profiles put 64 [--who follower] [--embedded] [--tls] [-- KVD_FLAGS]
    python -m benchmarks.profiles txn 64 --etcd-api

Three kvd, or with ``--embedded`` five replicas in one process. Samples of the event loop's thread
are weighed with the processor time that each call cost, and printed by part (where the innermost
function of ours is) and by function (by itself). What C does belongs to the Python function that
called it; what the loop calls itself, its own sockets and grpcio's poller, to ``the loop``.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import Load, measure, start
from benchmarks.measuring.speed import KEYS, VALUE_BYTES, fill
from benchmarks.servers import EmbeddedKvd, KvdCluster, Server

SECONDS = 8.0
WARM_UP_S = 1.0
SAMPLES_PER_S = 400
FUNCTIONS = 25
FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^:()]+)(:\d+)?\)")


@contextmanager
def serving(asked: argparse.Namespace) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="kvstore-profile-") as name:
        directory, flags = Path(name), asked.kvd
        if asked.embedded:
            with EmbeddedKvd(directory, secure=asked.tls, arguments=flags) as kvd:
                kvd.wait_serving()
                yield kvd
        else:
            with KvdCluster(directory, secure=asked.tls, arguments=flags) as cluster:
                cluster.start()
                yield cluster


def stacks_of(pid: int, seconds: float, *, native: bool) -> Counter[tuple[str, ...]]:
    """Samples of a process's main thread, the outermost frame first."""
    with tempfile.NamedTemporaryFile(suffix=".raw") as file:
        subprocess.run(
            [
                *(Path(sys.executable).with_name("py-spy"), "record", "--pid", str(pid)),
                *("--format", "raw", "--function", "--threads"),
                *("--duration", str(round(seconds)), "--rate", str(SAMPLES_PER_S)),
                *("--output", file.name, *(["--native"] if native else [])),
            ],
            check=True,
            capture_output=True,
        )
        lines = Path(file.name).read_text().splitlines()
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if "MainThread" in thread and frames:
            found[tuple(frames)] += int(count)
    return found


def part_of(stack: tuple[str, ...]) -> str:
    """The package of ours that the sample was in, or worked for."""
    for frame in reversed(stack):
        if "asyncio/runners.py" in frame:
            return "the loop"
        match = FRAME.fullmatch(frame)
        file = match["file"] if match else ""
        if "kvstore/" in file:
            path = file.rpartition("kvstore/")[2]
            return path.rpartition("/")[0] or path
        if "grpc/" in file:
            return "grpcio"
    return "the rest"


def print_shares(title: str, shares: Counter[str], us_a_sample: float, most: int) -> None:
    total = sum(shares.values())
    print(f"\n| {title} | µs a call | % |\n|---|---:|---:|")
    for name, count in shares.most_common(most):
        print(f"| {name} | {count * us_a_sample:.2f} | {100 * count / total:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(usage="%(prog)s OPERATION IN_FLIGHT [options] [-- KVD_FLAGS]")
    parser.add_argument("operation", choices=("put", "get", "mixed", "txn"))
    parser.add_argument("in_flight", type=int)
    parser.add_argument("--who", choices=("leader", "follower"), default="leader")
    parser.add_argument("--etcd-api", action="store_true", help="call by etcd's API")
    parser.add_argument("--embedded", action="store_true", help="five replicas in one process")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--native", action="store_true", help="functions of C as well; slow")
    parser.add_argument("kvd", nargs="*", metavar="-- KVD_FLAGS")
    asked = parser.parse_args()
    load = Load(
        asked.operation,
        in_flight=asked.in_flight,
        connections=1 if asked.in_flight < 8 else 8,
        seconds=SECONDS,
        warm_up=WARM_UP_S,
        keys=KEYS,
        value_bytes=VALUE_BYTES,
    )
    with serving(asked) as server:
        fill(server)
        target = server.target()
        if asked.etcd_api:
            target = dataclasses.replace(target, server="etcd")
        who = "leader" if asked.who == "leader" else "follower 1"
        plain = measure(target, load)  # py-spy itself would count
        loaded = start(target, load)
        stacks = stacks_of(target.processes[who], SECONDS, native=asked.native)
        loaded.finish()
    calls = sum(plain[one]["calls"] for one in ("put", "get", "txn") if one in plain)
    cost_us = 1e6 * plain["cpu_s"][who] / calls
    us_a_sample = cost_us / max(1, stacks.total())
    print(
        f"{who}: {cost_us:.1f} µs of processor time a call, {calls / SECONDS:,.0f} calls a second"
    )
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for stack, count in stacks.items():
        parts[part_of(stack)] += count
        functions[stack[-1]] += count
    print_shares("part", parts, us_a_sample, len(parts))
    print_shares("function, by itself", functions, us_a_sample, FUNCTIONS)


if __name__ == "__main__":
    main()
