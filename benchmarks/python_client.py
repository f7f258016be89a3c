"""One Python process with a client of its server, so many calls in flight; for :func:`run_client`.

    python -m benchmarks.python_client CLIENT ADDRESS OPERATION IN_FLIGHT SECONDS

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

__all__ = ["ETCD_CLIENTS", "run_client"]

ROOT = Path(__file__).resolve().parents[1]
ETCD_CLIENTS = ("aetcd", "etcd-client-py")
KEYS = 10_000
VALUE = random.Random(1).randbytes(100)
WARM_UP_S = 0.5

Calls = dict[str, Callable[[bytes], Awaitable[object]]]


def run_client(
    client: str, address: str, operation: str, in_flight: int, seconds: float
) -> dict[str, float]:
    """Run this module in a process of its own; what it measured."""
    arguments = [client, address, operation, str(in_flight), str(seconds)]
    printed = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.python_client", *arguments],
        env=environment(),
        cwd=ROOT,
        timeout=seconds + 60,
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


def main() -> None:
    client, address, operation, in_flight, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(generate(client, address, operation, int(in_flight), float(seconds)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
