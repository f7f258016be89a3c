"""What keys cost in a pool, and what a bucket's size does to an operation.

    python -m benchmarks.beyond_buckets [--keys 100 1000 10000 100000] [--spread 20000]

First so many keys with 100-byte values in buckets of their own, as in a store of few keys, then
all keys in one bucket, as in a store of billions; after each, what an OSD's database has grown by
once it is compacted. Then puts and gets, one at a time, of keys in that bucket. The gateway is in
this process, without gRPC. All daemons share this machine with the benchmark.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from unittest import mock

from kvstore.beyond.rados import layout
from kvstore.beyond.rados.layout import HEAD_KEY, Head, bucket_name, encode_head, encode_inline
from kvstore.beyond.rados.objects import ANY
from kvstore.service import Get, Operation, Put
from tests.rados.conftest import address_in
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import RadosCluster, rados_cluster

VALUE = b"v" * 100
WRITES_IN_FLIGHT = 256
PAIRS_A_WRITE = 1000
CALLS = 300


def key_of(number: int) -> bytes:
    """16 bytes."""
    return b"key-%012d" % number


def pair_of(number: int) -> tuple[bytes, bytes]:
    return layout.entry_key(key_of(number)), encode_inline(key_of(number), VALUE)


def database_bytes(cluster: RadosCluster) -> int:
    """What the tables of the first OSD's database take, compacted; its log isn't counted."""
    cluster.ceph("tell", "osd.0", "compact")
    files = cluster.ask("tell", "osd.0", "bluefs", "files", "list")
    return sum(int(file["db"]) for file in files if file["name"].endswith(".sst"))


def spread(opened: Gateway, keys: int) -> None:
    """A bucket for each key."""
    done: list[object] = []
    for number in range(keys):
        pairs = dict([pair_of(number), (HEAD_KEY, encode_head(number, Head(keys=1)))])
        opened.pool.write(bucket_name(number), ANY, pairs, None, None, done.append)
        opened.until(lambda: number - len(done) < WRITES_IN_FLIGHT)  # noqa: B023
    opened.until(lambda: len(done) == keys)


def gather(opened: Gateway, first: int, keys: int) -> None:
    """All keys from ``first`` to ``keys`` in bucket 0."""
    done: list[object] = []
    for begin in range(first, keys, PAIRS_A_WRITE):
        pairs = dict(map(pair_of, range(begin, min(keys, begin + PAIRS_A_WRITE))))
        pairs[HEAD_KEY] = encode_head(0, Head(keys=keys))
        opened.pool.write(bucket_name(0), ANY, pairs, None, None, done.append)
        opened.until(lambda: done)
        done.clear()


def took_ms(opened: Gateway, keys: int, rng: random.Random) -> tuple[list[float], list[float]]:
    """Of puts and of gets, in turns."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(CALLS):
        key = key_of(rng.randrange(keys))
        operations: list[Operation] = [Put(key, VALUE, rng.randbytes(16)), Get(key)]
        for place, operation in enumerate(operations):
            began = time.perf_counter()
            result = opened.call(operation)
            took[place].append(1000 * (time.perf_counter() - began))
            assert result in (True, VALUE)
    return took


def told(took: list[float]) -> str:
    took = sorted(took)
    return f"{statistics.median(took):.2f} | {took[len(took) * 99 // 100]:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--spread", type=int, default=20_000)
    asked = parser.parse_args(arguments)
    rng = random.Random(1)
    with rados_cluster() as cluster:
        with gateway(address_in(cluster, "spread")) as opened:
            before = database_bytes(cluster)
            spread(opened, asked.spread)
            grown = database_bytes(cluster) - before
            print(f"a key in a bucket of its own: {grown / asked.spread:.0f} bytes a copy")
        print("| keys in the bucket | put p50, ms | p99 | get p50, ms | p99 | bytes a key |")
        print("|---|---|---|---|---|---|", flush=True)
        # One bucket for all keys.
        with (
            mock.patch.object(layout, "BUCKET_BITS", 0),
            gateway(address_in(cluster, "gathered")) as opened,
        ):
            before = database_bytes(cluster)
            first = 0
            for keys in asked.keys:
                gather(opened, first, keys)
                first = keys
                grown = database_bytes(cluster) - before
                puts, gets = took_ms(opened, keys, rng)
                print(
                    f"| {keys:,} | {told(puts)} | {told(gets)} | {grown / keys:.0f} |", flush=True
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
