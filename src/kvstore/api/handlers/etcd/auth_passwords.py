"""Passwords, hashed and compared beside the event loop: each costs a core some 50 ms, and 16 MiB
for as long, so that nobody can try many of them.

Whoever asks for more of that than there is room for is refused at once, and of one address there is
never so much that others couldn't log in.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from kvstore.errors import InvalidArgumentError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.auth_passwords import (
    PASSWORD_BYTES_MAX,
    SALT_BYTES,
    hash_password,
    is_password,
)

__all__ = ["Passwords"]

THREADS: Final = 2

WAITING_MAX: Final = 64
"""Those under way included: the last of them has waited for some seconds."""

ADDRESS_WAITING_MAX: Final = 16
"""Of them, from one address."""

T = TypeVar("T")


class Passwords:
    """Of one process. On a running event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._closed = False

    async def hash(self, password: str, peer: str) -> bytes:
        """As it is kept. ``peer``: who asks, as a front names it. Raises EtcdError, and
        InvalidArgumentError for one that is too long."""
        if len(password.encode()) > PASSWORD_BYTES_MAX:
            raise InvalidArgumentError(f"a password has {PASSWORD_BYTES_MAX} bytes at most")
        salt = os.urandom(SALT_BYTES)
        return await self._run(partial(hash_password, password.encode(), salt), peer)

    async def compare(self, password: str, kept: bytes, peer: str) -> bool:
        """Whether it is the one that is kept. Raises EtcdError."""
        return await self._run(partial(is_password, password.encode(), kept), peer)

    async def _run(self, job: Callable[[], T], peer: str) -> T:
        address = peer.rpartition(":")[0]  # without the port
        with self._lock:
            waiting = self._waiting
            if (
                self._closed
                or waiting[address] >= ADDRESS_WAITING_MAX
                or waiting.total() >= WAITING_MAX
            ):
                raise EtcdError(Reason.TOO_MANY_REQUESTS)
            waiting[address] += 1
        future = self._threads.submit(job)
        # Not when its caller goes away: it may be under way.
        future.add_done_callback(partial(self._ended, address))
        return await asyncio.wrap_future(future)

    def _ended(self, address: str, future: Future[Any]) -> None:
        with self._lock:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    def close(self) -> None:
        """Nothing is hashed any more, and nobody is waited for."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
