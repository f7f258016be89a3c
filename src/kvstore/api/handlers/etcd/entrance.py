"""What holds for every call of etcd's API before its handler is asked, and what ends streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, Final, Protocol

from kvstore.api.etcd.methods import MethodShape
from kvstore.etcd_errors import EtcdError, Reason

__all__ = ["Entrance", "Judge", "Member", "has_lawful_version"]

REQUIRE_LEADER: Final = ("hasleader", "true")
"""Metadata of a client that wants no answer of a member that knows no leader."""

CLIENT_VERSION: Final = "client-api-version"

ELECTIONS_MAX: Final = 3
"""So many election timeouts without a leader end streams with that mark."""

# What a learner answers; of Range what is serializable.
_OF_LEARNERS: Final = frozenset(
    ("/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot")
)
_RANGE: Final = "/etcdserverpb.KV/Range"


Judge = Callable[[MethodShape, Any], Awaitable[None]]
"""(method, context): raises Error for a call that isn't its caller's to make."""


class Member(Protocol):
    """The member that takes the calls."""

    @property
    def has_leader(self) -> bool:
        """It leads, or hears who does."""

    @property
    def is_learner(self) -> bool: ...

    @property
    def election_timeout_s(self) -> float: ...


class _Stream:
    """A stream that is open. ``reason``: why it was ended from here."""

    __slots__ = ("limit", "needs_leader", "reason")

    def __init__(self, limit: asyncio.Timeout, needs_leader: bool) -> None:
        self.limit = limit
        self.needs_leader = needs_leader
        self.reason: Reason | None = None

    def end(self, reason: Reason) -> None:
        if self.reason is None:
            self.reason = reason
            self.limit.reschedule(asyncio.get_running_loop().time())


class Entrance:
    """Lets calls in, and ends streams. On a running event loop."""

    def __init__(self, member: Member, judge: Judge | None = None) -> None:
        """``judge``: asked once a call is let in; None: anybody may make any call."""
        self._member = member
        self.judge = judge
        self._streams: set[_Stream] = set()
        self._led_at = monotonic()
        self._closed = False

    @property
    def takes_unmarked(self) -> bool:
        """:meth:`admit` has nothing against any call whose metadata doesn't ask for a leader, and
        :func:`has_lawful_version`."""
        return not self._closed and not self._member.is_learner

    def admit(self, shape: MethodShape, metadata: Iterable[Any] | None, request: Any) -> None:
        """Raise EtcdError for a call that isn't to reach its handler.

        ``request``: None for one that streams requests.
        """
        member = self._member
        if self._closed:
            raise EtcdError(Reason.STOPPED)
        if not has_lawful_version(metadata):
            raise EtcdError(Reason.INVALID_CLIENT_VERSION)
        if member.is_learner and not _is_for_learners(shape, request):
            raise EtcdError(Reason.NOT_FOR_LEARNER)
        if not member.has_leader and _needs_leader(metadata):
            raise EtcdError(Reason.NO_LEADER)

    @contextlib.asynccontextmanager
    async def stream(self, metadata: Iterable[Any] | None) -> AsyncIterator[None]:
        """While a stream's handler is in here it may be ended, which raises EtcdError."""
        stream: _Stream | None = None
        try:
            async with asyncio.timeout(None) as limit:
                stream = _Stream(limit, _needs_leader(metadata))
                self._streams.add(stream)
                yield
        except TimeoutError:
            if stream is None or stream.reason is None:
                raise
            raise EtcdError(stream.reason) from None
        finally:
            if stream is not None:
                self._streams.discard(stream)

    def tick(self) -> None:
        """To be called as often as members tick: a leader may be missing for too long."""
        member, now = self._member, monotonic()
        if member.has_leader:
            self._led_at = now
        elif now - self._led_at >= ELECTIONS_MAX * member.election_timeout_s:
            for stream in self._streams:
                if stream.needs_leader:
                    stream.end(Reason.NO_LEADER)

    def close(self) -> None:
        """End all streams, so that a stop needn't wait for them, and let nobody in any more."""
        self._closed = True
        for stream in self._streams:
            stream.end(Reason.STOPPED)


def _needs_leader(metadata: Iterable[Any] | None) -> bool:
    return any((key, value) == REQUIRE_LEADER for key, value in metadata or ())


def has_lawful_version(metadata: Iterable[Any] | None) -> bool:
    """What a client says of its version is text; nothing else is asked of it."""
    for key, value in metadata or ():
        if key == CLIENT_VERSION:
            try:
                # The fronts know of no encoding.
                data = value if isinstance(value, bytes) else value.encode("latin-1")
                data.decode()
            except UnicodeError:
                return False
    return True


def _is_for_learners(shape: MethodShape, request: Any) -> bool:
    if shape.path == _RANGE:
        return bool(request.serializable)
    return shape.path in _OF_LEARNERS
