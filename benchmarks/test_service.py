"""Put and get through a real kvd, sync on: latency and throughput by calls in flight.

The load comes from another process. The table of ``extra_info`` is what matters; the benchmark's
own time is that of the whole run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.process import Kvd, environment

ROOT = Path(__file__).resolve().parents[1]
WARM_UP_S = 1.0
MEASURED_S = float(os.environ.get("KVSTORE_BENCH_SECONDS", "5"))


@pytest.fixture(scope="module")
def kvd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvd]:
    with Kvd(tmp_path_factory.mktemp("service") / "data", "--log_level=warning") as server:
        yield server.wait_serving()


def load(kvd: Kvd, operation: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Run the load generator and return what it measured."""
    generator = [sys.executable, "-m", "benchmarks.service_load"]
    printed = subprocess.check_output(
        [*generator, "kvd", kvd.address, operation, str(in_flight), str(seconds)],
        env=environment(),
        cwd=ROOT,
    )
    measured: dict[str, float] = json.loads(printed)
    return measured


@pytest.mark.parametrize("in_flight", [1, 16, 64])
@pytest.mark.parametrize("operation", ["put", "get"])
def test_service(benchmark: Any, kvd: Kvd, operation: str, in_flight: int) -> None:
    load(kvd, operation, in_flight, WARM_UP_S)
    measured = benchmark.pedantic(
        load, args=(kvd, operation, in_flight, MEASURED_S), rounds=1, iterations=1
    )
    benchmark.extra_info.update(
        operation=operation,
        in_flight=in_flight,
        sync=True,
        **{name: round(value, 3) for name, value in measured.items()},
    )
