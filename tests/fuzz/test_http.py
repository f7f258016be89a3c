"""HTTP/1.1 under clients that say anything, and hang up at any moment.

Whatever they do, others are served, over gRPC as well, no defect is logged, and nothing stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import grpc.aio
import pytest
import structlog

from tests.unit.wire.test_http import Raw, Server, Site, reply, request, scene

CONNECTIONS = 200
DEFECTS = ("a request failed", "a connection failed")
PATHS = ["/", "/echo?a=%zz&b", "/wait", "/silent", "/call", "/held", "/flood", "/stream", "/%ff"]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "CONNECT", "PRI", "P"]
LINES = [
    "Expect: 100-continue",
    "Connection: close",
    "Connection: upgrade, keep-alive",
    "Upgrade: h2c",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Length: 5",
    "Content-Length: 99999999999",
    "Host: y",
    "A: " + "b" * 5000,
    "Range: bytes=0-1",
]
ANYTHING = [
    b"",
    b"\r\n",
    b"\0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
]


class Anything(Site):
    """As its like, but nothing lasts, and paths that it doesn't know are echoed."""

    def __init__(self) -> None:
        super().__init__()
        self.open.set()

    async def __call__(self, exchange: Any) -> None:
        known = exchange.path.strip("/")
        answer = getattr(self, known) if f"/{known}" in PATHS[2:-1] else self.echo
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await answer(exchange)


def conversation(chance: random.Random) -> bytes:
    """Requests for the most part, and mistakes."""
    said = b""
    for _ in range(chance.randrange(1, 12)):
        if chance.random() < 0.15:
            said += chance.choice([*ANYTHING, chance.randbytes(30)])
            continue
        more = chance.sample(LINES, chance.choice([0, 0, 0, 1, 2]))
        body = chance.randbytes(chance.choice([0, 1, 100, 70_000]))
        method = chance.choice(METHODS[:3] * 4 + METHODS)
        said += request(chance.choice(PATHS), body, method, *more)
    if chance.random() < 0.4:
        damaged = bytearray(said)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(min(len(said), 300))] = chance.randrange(256)
        return bytes(damaged)
    return said


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_clients_say_harms_others_or_stays(seed: int) -> None:
    chance = random.Random(seed)

    @scene(
        site=Anything, calls_max=20, half_open_s=20.0, headers_s=0.5, request_s=0.5, answer_s=0.5
    )
    async def play(server: Server, address: str, site: Site) -> None:
        async def client(said: bytes, patience_s: float) -> None:
            raw = await Raw.open(address, b"")
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                async with asyncio.timeout(patience_s):
                    for first in range(0, len(said), 50_000):
                        raw.say(said[first : first + 50_000])
                        await asyncio.sleep(0)
                    await raw.reader.read()
            raw.writer.transport.abort()

        async with grpc.aio.insecure_channel(address) as channel:
            for _ in range(CONNECTIONS // 20):
                clients = [
                    client(conversation(chance), chance.choice([0.0, 0.01, 0.3])) for _ in range(20)
                ]
                await asyncio.gather(*clients)
                good = await Raw.open(address, request("/", b"good"))
                assert (await reply(good)).body == b"POST / good"
                good.writer.close()
                assert await channel.unary_unary("/e/unary")(b"x", timeout=20) == b"x"
        while server.connections:
            await asyncio.sleep(0.01)

    with structlog.testing.capture_logs() as logs:
        play()
    # Threads of other tests, which look at certificates say, may have something to tell, too.
    defects = [line for line in logs if line["event"] in DEFECTS]
    assert not defects
