"""The watchdog hears from the loop as long as it turns, and only when somebody listens."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from kvstore.server.supervisor import watch_over


def hear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1, **environment: str
) -> int:
    """How many messages came in so many seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        async def serve() -> None:
            async with watch_over():
                await asyncio.sleep(seconds)

        asyncio.run(serve())
        heard = 0
        while True:
            try:
                assert supervisor.recv(100) == b"WATCHDOG=1"
            except BlockingIOError:
                return heard
            heard += 1


def test_it_is_told_twice_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 <= hear(tmp_path, monkeypatch, 1.0, WATCHDOG_USEC="500000") <= 5


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "10000", "WATCHDOG_PID": str(os.getpid() + 1)}],
)
def test_without_one_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert hear(tmp_path, monkeypatch, **environment) == 0


def test_a_loop_that_stands_still_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread speaks for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "10000")

        async def is_told() -> None:
            loop = asyncio.get_running_loop()
            while await asyncio.wait_for(loop.sock_recv(supervisor, 100), 10) != b"WATCHDOG=1":
                pass

        def heard() -> int:
            count = 0
            while True:
                try:
                    supervisor.recv(100)
                except BlockingIOError:
                    return count
                count += 1

        async def serve() -> None:
            async with watch_over():
                await is_told()
                heard()
                time.sleep(0.1)
                assert heard() == 0
                await is_told()

        asyncio.run(serve())
