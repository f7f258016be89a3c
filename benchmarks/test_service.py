"""Put and get through a real kvd of five replicas, sync on, and a lone put beside a bare sync.

The load comes from another process. ``extra_info`` is what matters; the benchmark's own time is
that of the whole run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pytest

from benchmarks.load import Load, measure
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.settings import KVD_FLAGS, ROUNDS, SECONDS
from benchmarks.measuring.speed import IN_FLIGHT, compare, figures_of, fill
from benchmarks.servers import EmbeddedKvd

SYNCS = 2000
LONE_PUT_SYNCS_MAX = 3.0
LONE_GET_MS_MAX = 0.1


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def kvd(secure: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKvd]:
    directory = tmp_path_factory.mktemp("embedded")
    with EmbeddedKvd(directory, secure=secure, arguments=KVD_FLAGS) as server:
        server.wait_serving()
        fill(server)
        yield server


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
@pytest.mark.parametrize("operation", ["put", "get"])
def test_service(
    benchmark: Any,
    kvd: EmbeddedKvd,
    secure: bool,
    operation: Literal["put", "get"],
    in_flight: int,
) -> None:
    point = benchmark.pedantic(
        compare,
        args=({"kvd": kvd}, operation, in_flight),
        kwargs={"secure": secure, "seconds": SECONDS, "rounds": ROUNDS},
        rounds=1,
    )
    benchmark.extra_info.update(embedded_point=point.as_dict())


def test_lone_calls(benchmark: Any, kvd: EmbeddedKvd, secure: bool, tmp_path: Path) -> None:
    """One call at a time, in turn with bare syncs of records of the same size on the same disk."""

    def lone_calls() -> tuple[list[float], list[float], list[float]]:
        syncs, puts, gets = [], [], []
        for _ in range(ROUNDS):
            syncs.append(median(bare_syncs_ms(tmp_path)))
            puts.append(p50_ms("put"))
            gets.append(p50_ms("get"))
        return syncs, puts, gets

    def p50_ms(operation: Literal["put", "get"]) -> float:
        load = Load(operation, seconds=SECONDS / 2, warm_up=0.5)
        return figures_of(measure(kvd.target(), load), operation)["p50_ms"]

    syncs, puts, gets = benchmark.pedantic(lone_calls, rounds=1)
    sync, put, get = median(syncs), median(puts), median(gets)
    tls = ", TLS" if secure else ""
    lone_put = Goal(
        f"embedded{tls}: p50 of a lone put in bare syncs",
        *(put / sync, "≤", LONE_PUT_SYNCS_MAX),
        beside=f"put {put:.3f} ms, bare sync {sync:.3f} ms",
    )
    lone_get = Goal(f"embedded{tls}: p50 of a lone get", get, "≤", LONE_GET_MS_MAX, " ms")
    benchmark.extra_info.update(goals=[lone_put.as_dict(), lone_get.as_dict()])


def bare_syncs_ms(directory: Path) -> list[float]:
    """How long each pwrite + fdatasync of a record takes, in a file that has its blocks."""
    record = bytes(200)
    file = os.open(directory / "bare", os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(file, bytes(SYNCS * len(record)), 0)
        os.fsync(file)
        taken = []
        for number in range(SYNCS):
            began = time.perf_counter()
            os.pwrite(file, record, number * len(record))
            os.fdatasync(file)
            taken.append(1e3 * (time.perf_counter() - began))
    finally:
        os.close(file)
    return taken
