"""The native server under clients that say anything, in any order, and hang up at any moment.

Whatever they do, another client is served, no defect is logged, and nothing is left of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import grpc.aio
import pytest
import structlog

from tests.unit.wire import frames
from tests.unit.wire.stage import Echo, Server, play

CONNECTIONS = 200
PATHS = ["/e/unary", "/e/both", "/e/gathered", "/e/refuse", "/e/metadata", "/e/wait", "/nowhere"]
BODIES = [b"", b"\n\1k\x12\1v\x1a\1r", b"\xff\xff", bytes(1000)]


def conversation(chance: random.Random) -> bytes:
    """A client's side: calls for the most part, and mistakes."""
    said = frames.PREFACE + frames.frame(frames.SETTINGS, 0)
    stream = 1
    for _ in range(chance.randrange(40)):
        kind = chance.random()
        if kind < 0.7:
            path = chance.choice([*PATHS, *frames.PATHS])
            timeout = chance.choice([(), (("grpc-timeout", chance.choice(["1m", "0S", "9S"])),)])
            body = frames.message(chance.choice(BODIES))
            said += frames.headers(stream, frames.request(path, *timeout))
            said += frames.frame(frames.DATA, stream, body, chance.choice([0, 1, 1, 1]))
            stream += 2
        elif kind < 0.8 and stream > 1:
            said += frames.frame(frames.RST_STREAM, chance.randrange(1, stream, 2), b"\0\0\0\x08")
        elif kind < 0.9:
            said += frames.frame(frames.WINDOW, 0, (1000).to_bytes(4, "big"))
        else:
            anything = chance.randbytes(chance.randrange(20))
            said += frames.frame(chance.randrange(10), chance.randrange(4), anything)
    if chance.random() < 0.3:
        damaged = bytearray(said)
        damaged[chance.randrange(len(said))] = chance.randrange(256)
        return bytes(damaged)
    return said


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_clients_say_harms_others_or_stays(seed: int) -> None:
    chance = random.Random(seed)

    async def talk(server: Server, address: str, echo: Echo) -> None:
        loop = asyncio.get_running_loop()

        def take(calls: list[Any]) -> None:
            for call in calls:
                result = bytes(chance.randrange(50_000)) if call.method == 1 else True
                if chance.random() < 0.3:
                    hot.end(call, lambda one: one.fail(5, "no"))
                elif chance.random() < 0.5:
                    loop.call_soon(hot.answer, [call], [result])
                else:
                    hot.answer([call], [result])

        hot = server.add_hot_methods(frames.PATHS, take)
        host, _, port = address.rpartition(":")
        async with grpc.aio.insecure_channel(address) as channel:
            good = channel.unary_unary("/e/unary")
            for number in range(CONNECTIONS):
                reader, writer = await asyncio.open_connection(host, int(port))
                said = conversation(chance)
                while said and not writer.transport.is_closing():
                    size = chance.choice([1, 10, 100, 10_000])
                    writer.write(said[:size])
                    said = said[size:]
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    with contextlib.suppress(TimeoutError, ConnectionError):
                        await asyncio.wait_for(reader.read(1 << 16), 0.01)
                if chance.random() < 0.5:
                    writer.transport.abort()
                writer.close()
                if number % 20 == 0:
                    assert await good(b"x") == b"x"
        while server.connections:
            await asyncio.sleep(0.01)
        await echo.cancelled.wait()

    with structlog.testing.capture_logs() as logs:
        play(talk)  # which looks that no call and no byte is left
    assert {entry["event"] for entry in logs} <= {"a client was cut off"}
