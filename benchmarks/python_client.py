"""One Python process with a client of its server: so many calls in flight, or one ``put_many``.

    python -m benchmarks.python_client CLIENT ADDRESS OPERATION IN_FLIGHT SECONDS
    python -m benchmarks.python_client put_many ADDRESS ROWS

CLIENT is ``kvstore`` (AsyncClient, for kvd), ``aetcd`` (over grpcio) or ``etcd-client-py`` (over a
client in Rust). Prints one JSON object: calls_per_s and latency percentiles in milliseconds. In
plain text: aetcd has no TLS.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from kvstore.client import AsyncClient
from tests.integration.process import environment

__all__ = ["ETCD_CLIENTS", "put_many_rate", "run_client"]

ROOT = Path(__file__).resolve().parents[1]
ETCD_CLIENTS = ("aetcd", "etcd-client-py")
KEYS = 10_000
VALUE = random.Random(1).randbytes(100)
WARM_UP_S = 0.5
TIMEOUT_S = 300.0

Calls = dict[str, Callable[[bytes], Awaitable[object]]]


def run_client(
    client: str, address: str, operation: str, in_flight: int, seconds: float
) -> dict[str, float]:
    """Run this module in a process of its own; what it measured."""
    return _run(client, address, operation, str(in_flight), str(seconds))


def put_many_rate(address: str, rows: int) -> float:
    """Rows a second of one ``AsyncClient.put_many``, in a process of its own."""
    return _run("put_many", address, str(rows))["rows_per_s"]


def _run(*arguments: str) -> dict[str, float]:
    printed = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.python_client", *arguments],
        env=environment(),
        cwd=ROOT,
        timeout=TIMEOUT_S,
    )
    measured: dict[str, float] = json.loads(printed)
    return measured


@asynccontextmanager
async def calls_of(client: str, address: str) -> AsyncIterator[Calls]:
    """The client's own words for a put and a get."""
    if client == "kvstore":
        async with AsyncClient(address) as kvstore:
            yield {"put": lambda key: kvstore.put(key, VALUE), "get": kvstore.get}
    elif client == "aetcd":
        import aetcd  # type: ignore[import-untyped]

        host, _, port = address.rpartition(":")
        async with aetcd.Client(host, int(port)) as etcd:
            yield {"put": lambda key: etcd.put(key, VALUE), "get": etcd.get}
    else:
        import etcd_client  # type: ignore[import-untyped]

        async with etcd_client.Client([f"http://{address}"]).connect() as etcd:
            yield {"put": lambda key: etcd.put(key, VALUE), "get": etcd.get}


async def generate(
    client: str, address: str, operation: str, in_flight: int, seconds: float
) -> dict[str, float]:
    """Keep ``in_flight`` calls going for ``seconds``; keys are drawn at random."""
    latencies: list[float] = []
    async with calls_of(client, address) as calls:
        call = calls[operation]
        started = time.perf_counter() + WARM_UP_S
        end = started + seconds

        async def worker(number: int) -> None:
            draw = random.Random(number)
            now = time.perf_counter()
            while now < end:
                await call(b"key-%012d" % draw.randrange(KEYS))
                before, now = now, time.perf_counter()
                if before >= started:
                    latencies.append(now - before)

        await asyncio.gather(*[worker(number) for number in range(in_flight)])
        elapsed = time.perf_counter() - started
    latencies.sort()
    return {
        "calls_per_s": len(latencies) / elapsed,
        "p50_ms": 1e3 * latencies[len(latencies) // 2],
        "p99_ms": 1e3 * latencies[len(latencies) * 99 // 100],
        "max_ms": 1e3 * latencies[-1],
    }


async def put_many(address: str, rows: int) -> dict[str, float]:
    """Put so many rows with one call, after a small one that connects."""
    draw = random.Random(1)
    items = [(b"many-%012d" % number, draw.randbytes(len(VALUE))) for number in range(rows)]
    async with AsyncClient(address) as client:
        await client.put_many(items[:100])
        started = time.perf_counter()
        put = await client.put_many(items, timeout=TIMEOUT_S)
        elapsed = time.perf_counter() - started
        if put != rows or await client.get(items[-1][0]) != items[-1][1]:
            raise RuntimeError(f"put_many put {put} of {rows}")
    return {"rows_per_s": rows / elapsed}


def main() -> None:
    client, address, *rest = sys.argv[1:]
    if client == "put_many":
        work = put_many(address, int(rest[0]))
    else:
        operation, in_flight, seconds = rest
        work = generate(client, address, operation, int(in_flight), float(seconds))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(work)))


if __name__ == "__main__":
    main()
