"""The service over RADOS beside bare librados, on a cluster of its own.

    python -m benchmarks.beyond [--osds 1 2 3] [--seconds 3] [--rounds 3] [--depth 64]

Bare is the least that such a store could do: one object a key, ``write_full`` and a read of its
bytes, by the same binding. The two take turns within each round. Latency is what the caller of the
service sees, in one process, without gRPC. All daemons share this machine with the benchmark.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvstore.beyond.rados.layout import bucket_name, bucket_of, entry_key
from kvstore.beyond.rados.objects import ANY
from kvstore.service import Method, Put
from tests.rados.conftest import address_in
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import rados_cluster

KEYS = 2_000
VALUE = b"v" * 100


@dataclass
class Row:
    """One kind of operation, by one of the two."""

    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """A call of the service's batch."""

    method: int
    key: bytes
    began: float
    deadline: float
    request_id: bytes = b""
    value: bytes = b""
    age_s: float | None = None


def measure(
    issue: Callable[[], None], opened: Gateway, took: list[float], depth: int, seconds: float
) -> Row:
    """Keep ``depth`` operations under way for ``seconds``; ``took`` gets how long each was."""
    took.clear()
    began, processor = time.perf_counter(), time.process_time()
    until = began + seconds
    begun = 0
    while begun < depth:
        issue()
        begun += 1
    while len(took) < begun:
        opened.turn(0.1)
        while time.perf_counter() < until and begun - len(took) < depth:
            issue()
            begun += 1
    passed = time.perf_counter() - began
    used = time.process_time() - processor
    took.sort()
    count = len(took)
    return Row(
        [count / passed],
        [1000 * took[count // 2]],
        [1000 * took[count * 99 // 100]],
        [1e6 * used / count],
    )


def issuers(opened: Gateway, took: list[float]) -> dict[str, Callable[[], None]]:
    """What begins one operation, by its name."""
    rng = random.Random(1)
    service, pool = opened.service, opened.pool
    number = iter(range(1 << 62))
    run = os.urandom(4).hex().encode()

    def key() -> bytes:
        return b"key-%d" % rng.randrange(KEYS)

    def answered(calls: list[Any], results: list[Any]) -> None:
        now = time.perf_counter()
        for call, result in zip(calls, results, strict=True):
            assert result is None or isinstance(result, (bool, bytes)), result
            took.append(now - call.began)

    def service_put() -> None:
        name = b"%s-%d" % (run, next(number))
        began = time.perf_counter()
        call = Call(Method.PUT, key(), began, time.monotonic() + 30, name, VALUE)
        service.take([call], answered)

    def service_get() -> None:
        began = time.perf_counter()
        service.take([Call(Method.GET, key(), began, time.monotonic() + 30)], answered)

    def bare(operation: Any, began: float) -> None:
        assert operation.code in (0, -2), operation.code
        took.append(time.perf_counter() - began)

    def bare_put() -> None:
        began = time.perf_counter()
        pool.write(b"bare." + key(), ANY, None, None, VALUE, lambda done: bare(done, began))

    def bare_get() -> None:
        began = time.perf_counter()
        pool.read_data(b"bare." + key(), 4096, lambda done: bare(done, began))

    salt = opened.opened.marker.salt

    def bare_pair() -> None:
        began, chosen = time.perf_counter(), key()
        bucket, pair = bucket_name(bucket_of(chosen, salt)), entry_key(chosen)
        pool.read_pairs(bucket, [pair], lambda done: bare(done, began))

    return {
        "put, bare": bare_put,
        "put": service_put,
        "get, bare": bare_get,
        "get, bare, of a pair": bare_pair,
        "get": service_get,
    }


def fill(opened: Gateway) -> None:
    """Have all keys there, for both."""
    done: list[Any] = []
    for number in range(KEYS):
        name = b"key-%d" % number
        put = Put(name, VALUE, b"fill-%d" % number)
        opened.service.submit([put], time.monotonic() + 60, done.append)
        opened.pool.write(b"bare." + name, ANY, None, None, VALUE, done.append)
        opened.until(lambda: len(done) >= 2 * number - 126)  # noqa: B023
    opened.until(lambda: len(done) == 2 * KEYS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osds", type=int, nargs="+", default=[3])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=64)
    asked = parser.parse_args(arguments)
    print("| OSDs | what | a second | p50, ms | p99, ms | this process' µs an operation |")
    print("|---|---|---|---|---|---|")
    for osds in asked.osds:
        with rados_cluster(osds=osds) as cluster, gateway(address_in(cluster, "bench")) as opened:
            took: list[float] = []
            rows: dict[str, Row] = {}
            kinds = issuers(opened, took)
            fill(opened)
            for _ in range(asked.rounds):
                for what, issue in kinds.items():
                    row = measure(issue, opened, took, asked.depth, asked.seconds)
                    all_rows = rows.setdefault(what, Row())
                    all_rows.rates += row.rates
                    all_rows.p50_ms += row.p50_ms
                    all_rows.p99_ms += row.p99_ms
                    all_rows.cpu_us += row.cpu_us
            for what, row in rows.items():
                middle = [statistics.median(each) for each in vars(row).values()]
                print(
                    f"| {osds} | {what} | {middle[0]:,.0f} | "
                    + " | ".join(f"{value:.1f}" for value in middle[1:3])
                    + f" | {middle[3]:.0f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
