"""Lease keep-alives a second, kvd beside etcd, three members each: a table on standard output.

    python -m benchmarks.keepalives

Each is a stream of its own with one request, as etcd's own benchmark has it. ``--follower`` sends
them to a member that doesn't lead.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

from benchmarks.load import Load, Target, measure
from benchmarks.servers import Server, side_by_side
from tests.integration.etcd_calls import EtcdCalls

LEASES = 1000
TTL_S = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each server and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", nargs="+", type=int, default=(1, 64, 512))
    parser.add_argument("--follower", action="store_true")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name,
        side_by_side(Path(name)) as servers,
    ):
        targets = {name: target_of(server, asked.follower) for name, server in servers.items()}
        for target in targets.values():
            grant(target)
        print("| in flight | kvd/s | etcd/s | times | kvd p99 ms | etcd p99 ms |")
        print("|---|---|---|---|---|---|")
        for in_flight in asked.in_flight:
            compare(targets, in_flight, asked.seconds, asked.rounds)


def target_of(server: Server, follower: bool) -> Target:
    """The leader's address, or that of another member."""
    target = server.target()
    if not follower:
        return target
    others = [address for address in server.clients.values() if address != target.address]
    return dataclasses.replace(target, address=others[0])


def grant(target: Target) -> None:
    with EtcdCalls(target.address) as calls:
        for id in range(1, LEASES + 1):
            calls.LeaseGrant(ID=id, TTL=TTL_S)


def compare(targets: dict[str, Target], in_flight: int, seconds: float, rounds: int) -> None:
    """One line: medians of the rounds, in which the servers take turns."""
    load = Load(
        "keepalive",
        in_flight=in_flight,
        connections=min(in_flight, 16),
        seconds=seconds,
        warm_up=0.5,
        keys=LEASES,
    )
    rates: dict[str, list[float]] = {name: [] for name in targets}
    tails: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(rounds):
        for name, target in targets.items():
            measured = measure(target, load)
            if measured["errors"] or measured["unanswered"]:
                raise RuntimeError(f"{name}: {measured}")
            rates[name].append(measured["keepalive"]["calls_per_s"])
            tails[name].append(measured["keepalive"]["p99_ms"])
    kvd, etcd = (statistics.median(rates[name]) for name in ("kvd", "etcd"))
    kvd_p99, etcd_p99 = (statistics.median(tails[name]) for name in ("kvd", "etcd"))
    print(
        f"| {in_flight} | {kvd:,.0f} | {etcd:,.0f} | {kvd / etcd:.2f} | {kvd_p99:.1f} "
        f"| {etcd_p99:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
