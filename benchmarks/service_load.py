"""A load generator in a process of its own: closed loop, N calls in flight, latency of each.

    python -m benchmarks.service_load SERVER ADDRESS OPERATION IN_FLIGHT SECONDS

SERVER is kvd or etcd. Both get the same keys and values over one channel of grpc.aio; etcd's few
messages are encoded by hand. Prints one JSON object: calls, seconds, calls_per_s and latency
percentiles in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable

import grpc.aio
import uvloop

from benchmarks.etcd import put_request, range_request
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc

Call = Callable[[bytes, str], Awaitable[object]]

KEYS = 10_000
VALUE = random.Random(1).randbytes(100)


def calls_of(server: str, channel: grpc.aio.Channel) -> dict[str, Call]:
    """What an operation is in that server's words: key and request id to an awaitable."""
    if server == "etcd":
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        get = channel.unary_unary("/etcdserverpb.KV/Range")
        return {
            "put": lambda key, _: put(put_request(key, VALUE)),
            "get": lambda key, _: get(range_request(key)),
        }
    stub = kv_pb2_grpc.KVStub(channel)
    return {
        "put": lambda key, request_id: stub.Put(
            kv_pb2.PutRequest(key=key, value=VALUE, request_id=request_id)
        ),
        "get": lambda key, _: stub.Get(kv_pb2.GetRequest(key=key)),
    }


async def generate(
    server: str, address: str, operation: str, in_flight: int, seconds: float
) -> dict[str, float]:
    """Keep ``in_flight`` calls going for ``seconds``; keys are drawn at random."""
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = calls_of(server, channel)[operation]
        started = time.perf_counter()
        end = started + seconds

        async def worker(number: int) -> None:
            draw = random.Random(number)
            sequence = 0
            now = time.perf_counter()
            while now < end:
                sequence += 1
                key = b"bench/%012d" % draw.randrange(KEYS)
                await call(key, f"{started}-{number}-{sequence}")
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
    server, address, operation, in_flight, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(generate(server, address, operation, int(in_flight), float(seconds)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
