"""Names that nobody can resolve, while others can."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore.wire import resolving
from kvstore.wire.resolving import NAMES_MAX, resolved


class NameServer:
    """Answers at once for all but those whose names begin with ``hangs``."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, **_: object) -> Any:
        self.asked.append(host)
        if host.startswith("hangs"):
            assert self.answers.wait(60)
        if host.endswith("nobody"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.answers.set()
    for thread in threading.enumerate():
        if thread.name == "kvstore-resolve":
            thread.join(30)
    assert not resolving._asked


async def within(seconds: float, host: str) -> Any:
    async with asyncio.timeout(seconds):
        return await resolved(host, 1)


def test_names_that_hang_hold_up_no_others_and_are_asked_for_once(names: NameServer) -> None:
    async def run() -> None:
        for number in range(NAMES_MAX - 1):
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await within(0.001, f"hangs{number}")
        assert (await within(30, "db1"))[0][4] == ("10.0.0.1", 1)
        with pytest.raises(socket.gaierror):
            await within(30, "nobody")
        with pytest.raises(TimeoutError):
            await within(0.001, "hangs")
        with pytest.raises(OSError, match="64 other names are being resolved"):
            await within(30, "db1")
        waiting = asyncio.create_task(within(30, "hangs"))
        await asyncio.sleep(0)
        names.answers.set()
        assert (await waiting)[0][4] == ("10.0.0.1", 1)

    asyncio.run(run())
    assert names.asked.count("hangs0") == 1


def test_its_threads_keep_no_process(names: NameServer) -> None:
    async def run() -> None:
        with pytest.raises(TimeoutError):
            await within(0.001, "hangs")

    asyncio.run(run())
    (thread,) = (one for one in threading.enumerate() if one.name == "kvstore-resolve")
    assert thread.daemon


def test_a_child_of_fork_asks_for_itself(names: NameServer) -> None:
    async def run() -> None:
        with pytest.raises(TimeoutError):
            await within(0.001, "hangs")

    asyncio.run(run())
    child = os.fork()
    if not child:
        os._exit(0 if not resolving._asked and not resolving._lock.locked() else 1)
    assert os.waitpid(child, 0)[1] == 0
