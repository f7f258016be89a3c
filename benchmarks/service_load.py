"""A load generator in a process of its own: closed loop, N calls in flight, latency of each.

    python -m benchmarks.service_load ADDRESS OPERATION IN_FLIGHT SECONDS

Prints one JSON object: calls, seconds, calls_per_s and latency percentiles in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import grpc.aio
import uvloop

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc

KEYS = 10_000
VALUE = random.Random(1).randbytes(100)


async def generate(
    address: str, operation: str, in_flight: int, seconds: float
) -> dict[str, float]:
    """Keep ``in_flight`` calls going for ``seconds``; keys are drawn at random."""
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = kv_pb2_grpc.KVStub(channel)
        started = time.perf_counter()
        end = started + seconds

        async def worker(number: int) -> None:
            draw = random.Random(number)
            sequence = 0
            now = time.perf_counter()
            while now < end:
                key = b"bench/%012d" % draw.randrange(KEYS)
                if operation == "put":
                    sequence += 1
                    request_id = f"{started}-{number}-{sequence}"
                    await stub.Put(kv_pb2.PutRequest(key=key, value=VALUE, request_id=request_id))
                else:
                    await stub.Get(kv_pb2.GetRequest(key=key))
                before, now = now, time.perf_counter()
                latencies.append(now - before)

        await asyncio.gather(*[worker(number) for number in range(in_flight)])
        elapsed = time.perf_counter() - started
    latencies.sort()
    return {
        "calls": len(latencies),
        "seconds": elapsed,
        "calls_per_s": len(latencies) / elapsed,
        "p50_ms": 1e3 * latencies[len(latencies) // 2],
        "p99_ms": 1e3 * latencies[len(latencies) * 99 // 100],
        "max_ms": 1e3 * latencies[-1],
    }


def main() -> None:
    address, operation, in_flight, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(generate(address, operation, int(in_flight), float(seconds)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
