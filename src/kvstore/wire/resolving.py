"""Names of hosts into addresses, by threads that keep nobody waiting but who asked.

An event loop resolves names in a few threads that it has for everything: where name servers hang,
a few names that nobody can resolve take them all, the names of other servers wait behind them, and
so does the end of the process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

__all__ = ["NAMES_MAX", "Found", "resolved"]

NAMES_MAX: Final = 64
"""That are asked for at one time; each has a thread. One more is an OSError."""

Found = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]

_asked: dict[tuple[str, int], Future[Found]] = {}
_lock = threading.Lock()


async def resolved(host: str, port: int) -> Found:
    """As ``socket.getaddrinfo`` for TCP. Raises OSError.

    However often a name is asked for meanwhile, the system is asked once.
    """
    return await asyncio.wrap_future(_ask(host, port))


def _ask(host: str, port: int) -> Future[Found]:
    with _lock:
        asked = _asked.get((host, port))
        if asked is not None:
            return asked
        if len(_asked) >= NAMES_MAX:
            raise OSError(f"{NAMES_MAX} other names are being resolved, and none is answered")
        asked = _asked[host, port] = Future()
        # Who gives up leaves it to the others.
        asked.set_running_or_notify_cancel()
        thread = threading.Thread(
            target=_resolve, args=(host, port, asked), name="kvstore-resolve", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no room for one, or the interpreter ends
            del _asked[host, port]
            raise OSError(str(error)) from error
    return asked


def _resolve(host: str, port: int, asked: Future[Found]) -> None:
    found: Found = ()
    failed: Exception | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - it is theirs who asked
        failed = error
    with _lock:
        _asked.pop((host, port), None)
    if failed is None:
        asked.set_result(found)
    else:
        asked.set_exception(failed)


def _forget() -> None:
    """A child of fork has none of the threads."""
    global _lock  # somebody may have held it
    _lock = threading.Lock()
    _asked.clear()


os.register_at_fork(after_in_child=_forget)
