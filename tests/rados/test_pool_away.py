"""A flood of puts while no OSD answers: what a gateway holds, and what it says of the rest."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.metadata_keys import OVERLOAD_KEY
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.service import Limits
from tests.integration.process import FRONTS, Kvd
from tests.rados.conftest import write_config
from tools.rados_cluster import RadosCluster

VALUE = bytes(200_000)
CALLERS = 800
"""Of 160 MB that they want written at any one time."""
CHANNELS = 8
DEADLINE_S = 3.0
SLACK_S = 3.0
"""A busy machine, and a client that has as much to do as the gateway."""
PAUSE_S = 1.0
"""After each call, as clients do that are refused."""
FLOOD_S = 10.0
"""Three times as long: what is held is given up, and offered again."""
MOST_GROWTH_MIB = {"native": 450, "grpcio": 900}
"""64 MiB of writes are held, by the gateway and by librados; the rest are the fronts' own windows
and buffers of 800 calls (docs/beyond.md). Gigabytes are offered."""


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


async def flood(address: str) -> tuple[Counter[str], float]:
    """What became of calls, and how long the longest took."""
    codes: Counter[str] = Counter()
    longest_s = 0.0
    until = time.monotonic() + FLOOD_S

    async def put_on(stub: Any, number: int) -> None:
        nonlocal longest_s
        while time.monotonic() < until:
            key = b"%d" % number
            name = f"{number}.{sum(codes.values())}"
            request = kv_pb2.PutRequest(key=key, value=VALUE, request_id=name)
            began = time.monotonic()
            try:
                await stub.Put(request, timeout=DEADLINE_S)
                codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                trailers: Any = error.trailing_metadata() or ()
                overload = any(name == OVERLOAD_KEY for name, _ in trailers)
                codes["overload" if overload else error.code().name] += 1
            longest_s = max(longest_s, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)

    async with contextlib.AsyncExitStack() as stack:
        stubs: list[Any] = []
        for number in range(CHANNELS):
            options = [("grpc.use_local_subchannel_pool", 1), ("n", number)]
            channel = grpc.aio.insecure_channel(address, options=options)
            stubs.append(kv_pb2_grpc.KVStub(await stack.enter_async_context(channel)))
        await asyncio.gather(*(put_on(stubs[n % CHANNELS], n) for n in range(CALLERS)))
    return codes, longest_s


@pytest.mark.parametrize("front", FRONTS)
def test_a_flood_while_the_pool_is_away_is_refused_and_takes_a_bounded_amount_of_memory(
    whole: RadosCluster, tmp_path: Path, front: str
) -> None:
    config = write_config(whole, tmp_path, f"flood-{front}")
    with Kvd(tmp_path / "flood", rados=config, front=front) as kvd:
        kvd.wait_serving()
        with kvd.client(timeout=30.0) as client:
            client.put(b"before", VALUE)
            before = peak_mib(kvd.pid)
            for number in range(whole.osds):
                whole.signal(f"osd.{number}", signal.SIGSTOP)
            codes, longest_s = asyncio.run(flood(kvd.address))
            grown = peak_mib(kvd.pid) - before
            whole.mend()
            print(codes, f"{longest_s:.2f} s, {grown} MiB")
            assert set(codes) == {"overload", "DEADLINE_EXCEEDED"}, codes
            assert codes["overload"] > CALLERS, codes
            # What was given up counts on, so the next are not taken.
            assert codes["DEADLINE_EXCEEDED"] * len(VALUE) < 2 * Limits().gathered_bytes_max
            assert longest_s < DEADLINE_S + SLACK_S
            assert grown < MOST_GROWTH_MIB[front]
            assert client.put(b"after", VALUE) is False
            assert client.get(b"before") == VALUE
        assert kvd.terminate() == 0, kvd.stderr
