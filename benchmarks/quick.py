"""kvd beside etcd in a minute or two, for work on either path: a table on standard output.

    python -m benchmarks.quick                                    # 16 points, two minutes
    python -m benchmarks.quick --operations=put --in-flight=64 -- --front=grpcio
    python -m benchmarks.quick --etcd-api --operations put get txn    # by etcd's API on both

Whatever follows ``--`` is handed to kvd. ``make bench`` has the figures that count.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from benchmarks.measuring.speed import IN_FLIGHT, KEYS, Operation, compare, fill, speed_table
from benchmarks.servers import EmbeddedKvd, Server, side_by_side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [options] [-- KVD_FLAGS]")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each server and round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--operations", nargs="+", choices=get_args(Operation), default=("put", "get")
    )
    parser.add_argument("--in-flight", nargs="+", type=int, choices=IN_FLIGHT, default=IN_FLIGHT)
    parser.add_argument("--keys", type=int, default=KEYS, help="drawn from; few are hot")
    parser.add_argument("--etcd-api", action="store_true", help="call kvd by etcd's API")
    parser.add_argument("--tls", action="store_true", help="on both, and between members")
    parser.add_argument("--embedded", action="store_true", help="kvd alone, five replicas")
    parser.add_argument("kvd", nargs="*", metavar="-- KVD_FLAGS")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name:
        directory = Path(name)
        if asked.embedded:
            with EmbeddedKvd(directory, secure=asked.tls, arguments=asked.kvd) as kvd:
                kvd.wait_serving()
                run({"kvd": kvd}, asked)
        else:
            with side_by_side(directory, secure=asked.tls, arguments=asked.kvd) as servers:
                run(servers, asked)


def run(servers: Mapping[str, Server], asked: argparse.Namespace) -> None:
    began = time.monotonic()
    for server in servers.values():
        fill(server)
    points = [
        compare(
            servers,
            operation,
            in_flight,
            secure=asked.tls,
            seconds=asked.seconds,
            rounds=asked.rounds,
            keys=asked.keys,
            etcd_api=asked.etcd_api or operation == "txn",
        ).as_dict()
        for operation in asked.operations
        for in_flight in asked.in_flight
    ]
    print("\n".join(speed_table(points)))
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"\n{time.monotonic() - began:.0f} s; load average (1, 5, 15 minutes) {load}")


if __name__ == "__main__":
    main()
