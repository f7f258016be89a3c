"""Streams of other members, which end with the certificate that let them in.

A connection proves who the other side is when it is made, and a stream between members lasts for
months. So each is ended when the certificate of its caller has ended, and all of them when this
member's own files were exchanged: who may still come dials again, and shows what it has by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
from collections.abc import AsyncIterator, Iterable, Mapping

from kvstore.errors import ConfigurationError
from kvstore.server.tls.validity import not_after

__all__ = ["OpenStreams", "has_ended"]

_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)


class OpenStreams:
    """The streams that other members have open here. Used on the event loop's thread only."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Timeout, datetime.datetime] = {}

    @contextlib.asynccontextmanager
    async def entered(self, auth: Mapping[str, Iterable[bytes]]) -> AsyncIterator[None]:
        """The block is a stream. ``auth`` is gRPC's auth context.

        Raises TimeoutError, in the middle of the block, when the stream is to end.
        """
        async with asyncio.timeout(None) as limit:
            self._open[limit] = _end(auth)
            try:
                yield
            finally:
                del self._open[limit]

    def end_expired(self) -> None:
        """End those whose caller's certificate has ended."""
        now = datetime.datetime.now(datetime.UTC)
        self._end([limit for limit, end in self._open.items() if end <= now])

    def end_all(self) -> None:
        """End all: what this member, or the authority, is known by was exchanged."""
        self._end(list(self._open))

    def _end(self, limits: Iterable[asyncio.Timeout]) -> None:
        for limit in limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())


def has_ended(auth: Mapping[str, Iterable[bytes]]) -> bool:
    """Whether the certificate that a connection was made with has ended since."""
    end = _end(auth)
    return end is not _NEVER and end <= datetime.datetime.now(datetime.UTC)


def _end(auth: Mapping[str, Iterable[bytes]]) -> datetime.datetime:
    for pem in auth.get("x509_pem_cert", ()):
        return _not_after(pem)
    return _NEVER


@functools.lru_cache(maxsize=64)
def _not_after(pem: bytes) -> datetime.datetime:
    try:
        return not_after(pem)
    except ConfigurationError:
        # gRPC has verified it by then; what we can't read we don't judge.
        return _NEVER
