"""The service over RADOS beside bare librados, on a cluster of its own.

    python -m benchmarks.beyond [--osds 1 2 3] [--gateways 1 2 4] [--seconds 3] [--rounds 3]
                                [--depth 64]

Bare is the least that such a store could do: one object a key, ``write_full`` and a read of its
bytes, by the same binding. The two take turns within each round; gateways are processes that share
the depth. Latency is what the caller of the service sees, in the same process, without gRPC: p50 is
the middle one of the gateways', p99 the worst. All daemons share this machine with the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

from kvstore.beyond.rados.layout import bucket_name, bucket_of, entry_key
from kvstore.beyond.rados.objects import ANY
from kvstore.beyond.rados.opening import PoolAddress
from kvstore.service import Method, Put
from tests.rados.conftest import address_in
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import rados_cluster

KEYS = 2_000
VALUE = b"v" * 100
KINDS = ("put, bare", "put", "get, bare", "get, bare, of a pair", "get")
NAMES = ("rates", "p50_ms", "p99_ms", "cpu_us")


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


def run_gateway(
    address: PoolAddress, number: int, orders: Connection[Any, tuple[str, int, float] | None]
) -> None:
    """A process of one gateway: measures what it is told, until that is None."""
    with gateway(address) as opened:
        took: list[float] = []
        kinds = issuers(opened, took)
        if number == 0:
            fill(opened)
        orders.send(None)
        while (order := orders.recv()) is not None:
            what, depth, seconds = order
            orders.send(measure(kinds[what], opened, took, depth, seconds))


class Gateways:
    """So many processes, that take part in each measurement; a context manager."""

    def __init__(self, address: PoolAddress, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection[Any, Any]] = []
        self._processes = []
        for number in range(count):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=run_gateway, args=(address, number, theirs))
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
            # The first one makes the marker, and fills the pool.
            ours.recv()

    def measure(self, what: str, depth: int, seconds: float) -> Row:
        """All of them at once; ``depth`` is shared among them."""
        for pipe in self._pipes:
            pipe.send((what, depth // len(self._pipes), seconds))
        rows = [pipe.recv() for pipe in self._pipes]
        return Row(
            [sum(row.rates[0] for row in rows)],
            [statistics.median(row.p50_ms[0] for row in rows)],
            [max(row.p99_ms[0] for row in rows)],
            [statistics.mean(row.cpu_us[0] for row in rows)],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with contextlib.suppress(BrokenPipeError):  # it ended by itself, and said why
                pipe.send(None)
            process.join()


def compare(gateways: Gateways, rounds: int, depth: int, seconds: float) -> dict[str, list[Any]]:
    """The medians of each kind over all rounds, in which the kinds take turns."""
    rows: dict[str, list[Row]] = {what: [] for what in KINDS}
    for _ in range(rounds):
        for what in KINDS:
            rows[what].append(gateways.measure(what, depth, seconds))
    return {
        what: [statistics.median(getattr(row, name)[0] for row in found) for name in NAMES]
        for what, found in rows.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osds", type=int, nargs="+", default=[3])
    parser.add_argument("--gateways", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=64)
    asked = parser.parse_args(arguments)
    print("| OSDs | gateways | what | a second | p50, ms | p99, ms | µs of a gateway's processor |")
    print("|---|---|---|---|---|---|---|")
    for osds in asked.osds:
        with rados_cluster(osds=osds) as cluster:
            for count in asked.gateways:
                with Gateways(address_in(cluster, f"bench-{count}"), count) as gateways:
                    found = compare(gateways, asked.rounds, asked.depth, asked.seconds)
                for what, (rate, p50, p99, cpu) in found.items():
                    beside = found.get(f"{what}, bare", found[what])
                    print(
                        f"| {osds} | {count} | {what} | {rate:,.0f} ({rate / beside[0]:.0%}) "
                        f"| {p50:.1f} | {p99:.1f} ({p99 / beside[2]:.2f} times) | {cpu:.0f} |",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
