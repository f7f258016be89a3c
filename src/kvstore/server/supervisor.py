"""Telling systemd what becomes of the process: the protocol of sd_notify(3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import structlog

__all__ = ["notify", "watch_over"]

log = structlog.get_logger("kvstore.server")


def notify(state: str) -> None:
    """Send ``state`` (such as ``READY=1``) to whoever started the process and wants to know.

    Nothing happens without ``NOTIFY_SOCKET`` in the environment; a supervisor that can't be told is
    no reason to stop.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.sendto(state.encode(), address)
    except OSError as error:
        log.warning("the supervisor can't be told", state=state, reason=str(error))


@contextlib.asynccontextmanager
async def watch_over() -> AsyncIterator[None]:
    """Tell the supervisor that the event loop turns, as often as it wants to hear it.

    Nothing without ``WATCHDOG_USEC`` in the environment, for this process (sd_watchdog_enabled(3)).
    """
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if not wanted.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        yield
        return
    pause_s = int(wanted) / 2_000_000

    async def tell() -> None:
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(pause_s)

    telling = asyncio.create_task(tell(), name="watchdog")
    try:
        yield
    finally:
        telling.cancel()
