"""Ranges, counts and memory of a million keys, kvd beside etcd, three members each: tables on
standard output.

    python -m benchmarks.ranges                     # four minutes, most of it etcd's fill

Both are called by etcd's API. Keys are 16 bytes, values 100; a range is of 1,000 keys, a count goes
over 100,000. Memory is the leader's after the fill: what is its own (RssAnon), and pages of
files that it maps (RssFile), which the kernel may take back.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

from benchmarks.load import Load, Target, measure
from benchmarks.servers import side_by_side

SPANS = {"range": 1_000, "count": 100_000}
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each server and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", nargs="+", type=int, default=(1, 16, 64))
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name,
        side_by_side(Path(name)) as servers,
    ):
        targets = {}
        print("| server | keys/s filled | own memory, MiB | mapped files, MiB |\n|---|---|---|---|")
        for name, server in servers.items():
            target = dataclasses.replace(server.target(), server="etcd")
            fill = Load("fill", in_flight=512, connections=8, seconds=600, keys=asked.keys)
            filled = measure(target, fill)["put"]["calls_per_s"]
            own, mapped = memory_of(target.processes["leader"])
            print(f"| {name} | {filled:,.0f} | {own:.0f} | {mapped:.0f} |", flush=True)
            targets[name] = target
        print("\n| | in flight | kvd/s | etcd/s | times | kvd p99 ms | etcd p99 ms |")
        print("|---|---|---|---|---|---|---|")
        for operation in SPANS:
            for in_flight in asked.in_flight:
                compare(targets, operation, in_flight, asked)


def memory_of(pid: int) -> tuple[float, float]:
    """Resident MiB of a process: its own, and of files that it maps."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    own, mapped = (int(fields[name].split()[0]) * 1024 / MIB for name in ("RssAnon", "RssFile"))
    return own, mapped


def compare(
    targets: dict[str, Target], operation: str, in_flight: int, asked: argparse.Namespace
) -> None:
    """One line: medians of the rounds, in which the servers take turns."""
    load = Load(
        operation,
        in_flight=in_flight,
        connections=min(in_flight, 8),
        seconds=asked.seconds,
        warm_up=0.5,
        keys=asked.keys,
        span=SPANS[operation],
    )
    rates: dict[str, list[float]] = {name: [] for name in targets}
    tails: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(asked.rounds):
        for name, target in targets.items():
            measured = measure(target, load)
            if measured["errors"] or measured["missing"] or measured["unanswered"]:
                raise RuntimeError(f"{name}: {measured}")
            rates[name].append(measured[operation]["calls_per_s"])
            tails[name].append(measured[operation]["p99_ms"])
    kvd, etcd = (statistics.median(rates[name]) for name in ("kvd", "etcd"))
    kvd_p99, etcd_p99 = (statistics.median(tails[name]) for name in ("kvd", "etcd"))
    print(
        f"| {operation} of {load.span:,} | {in_flight} | {kvd:,.0f} | {etcd:,.0f} "
        f"| {kvd / etcd:.2f} | {kvd_p99:.1f} | {etcd_p99:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
