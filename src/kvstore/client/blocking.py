"""The client for threads: an AsyncClient on the loop of a thread that all clients share."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

from kvstore.client import background, forks
from kvstore.client.asynchronous import AsyncClient
from kvstore.client.background import Background
from kvstore.client.channels import Transport
from kvstore.client.many import do_all, put_all
from kvstore.client.operations import Operation, Result
from kvstore.client.options import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, TLS, RetryPolicy
from kvstore.client.pipeline import (
    FIRST_GETS,
    Items,
    Pipeline,
    gets_next,
    gets_of,
    moved,
    operations_of,
    pairs_of,
    take_chunk,
)
from kvstore.client.requests import BytesLike
from kvstore.client.status import ClusterStatus, Members
from kvstore.errors import BatchError, ClosedError, Error, Outcome

T = TypeVar("T")


class _Work:
    """What a client has in this process once it was used."""

    __slots__ = ("background", "client", "process")

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.process = forks.process
        self.background: Background = background.lease()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.background.run(work)

    def drop(self) -> None:
        """Of a client that nobody uses any more, and nobody closed."""
        if self.process == forks.process:
            self.background.begin(self.client.close())
            background.release(self.background)


class Client:
    """A kvd, or a cluster of them, as seen from ordinary threads.

    ``addresses`` is one ``host:port``, several separated by commas, or a list. The client finds the
    leader among them, follows leader hints, and tries a call that failed for a passing reason again
    until ``timeout`` seconds are over. Its writes belong to a session, which the first of them
    opens, and are applied at most once however often they are sent; where a server can't know any
    more whether an earlier try was applied, it refuses the next one, and the call ends with that.

    Any number of threads may use one client, and children of ``fork``, which get connections and a
    session of their own. Connections are made on first use, on one thread that all clients of a
    process share; what its threads ask for at the same time goes out together.

    >>> with Client("127.0.0.1:50051") as client:
    ...     client.put(b"colour", b"green")
    ...     client.get(b"colour")
    False
    b'green'
    """

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        tls: TLS | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Raises ConfigurationError as :class:`kvstore.AsyncClient` does."""
        self._make = partial(
            AsyncClient, addresses, tls=tls, timeout=timeout, retry=retry, transport=transport
        )
        self._closed = False
        self._work: _Work | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._make()  # what is wrong is told now, not later

    def put(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Store ``value`` (up to 1 MiB) under ``key`` (1 to 1,024 bytes).

        Returns True if the key had a value before. When this returns, the write is on the disks of
        a majority. Without a ``request_id`` the write is the client's session's, and applied at
        most once whatever happens. With one (1 to 4,096 bytes of UTF-8) a later client or process
        can try again: ``retry`` says that this is done, so that the server refuses what it may have
        forgotten, and doesn't take it for new.

        Raises InvalidArgumentError, UnavailableError or NotLeaderError (no leader found in time),
        DeadlineExceededError, StorageError, ClosedError, ForgottenError (nobody knows any more
        whether it was applied). ``outcome`` of the error says whether the write was not applied, or
        may have been.
        """
        work = self._begun()
        return work.run(
            work.client.put(key, value, request_id=request_id, retry=retry, timeout=timeout)
        )

    def get(self, key: BytesLike, *, timeout: float | None = None) -> bytes | None:
        """Return the newest value of ``key``, None if it has none. Linearizable.

        Raises as :meth:`put` does.
        """
        work = self._begun()
        return work.run(work.client.get(key, timeout=timeout))

    def delete(
        self,
        key: BytesLike,
        *,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Remove ``key``; True if it had a value. Arguments and errors as of :meth:`put`."""
        work = self._begun()
        return work.run(
            work.client.delete(key, request_id=request_id, retry=retry, timeout=timeout)
        )

    def pipeline(self, *, timeout: float | None = None) -> Pipeline:
        """A list of operations to be sent together; see :class:`Pipeline`."""
        return Pipeline(self._do_all, self._begun().client.doer.seconds(timeout))

    def put_many(self, items: Items, *, timeout: float | None = None) -> int:
        """Store each value under its key, hundreds at a time; returns how many there were.

        ``items`` is a mapping or any iterable of pairs, however long: it is taken from as its items
        can be sent. Each is a write of its own, with :meth:`put`'s promises and ``timeout``; they
        are no transaction, and others may see some of them. Of one key the later item wins.

        Raises BatchError when one fails, after the others under way have ended; no more are taken.
        It says which were not stored, or may not have been: all that were taken before and aren't
        among its ``failures`` were stored.
        """
        work = self._begun()
        timeout = work.client.doer.seconds(timeout)
        operations = operations_of(items)
        stored = 0
        # The iterator runs in the caller's thread.
        while chunk := take_chunk(operations, stored):
            try:
                stored += work.run(put_all(work.client.doer, iter(chunk), timeout=timeout))
            except BatchError as error:
                raise moved(error, stored) from error.__cause__
            except ClosedError as error:
                raise moved(_given_up(chunk, error), stored) from error
        return stored

    def get_many(
        self, keys: Iterable[BytesLike], *, timeout: float | None = None
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield each key with its value, or None, in order; hundreds are asked for at a time.

        As few as 16 where values are large: 64 at first, then as many as 16 MiB have room for.
        ``keys`` may be endless. Each is a linearizable read of its own; together they are no
        snapshot. ``dict(client.get_many(keys))`` has them all. Raises as :meth:`get` does, when it
        comes to a key that couldn't be read.
        """
        work = self._begun()
        return self._gets(work, keys, work.client.doer.seconds(timeout))

    def _gets(
        self, work: _Work, keys: Iterable[BytesLike], timeout: float
    ) -> Iterator[tuple[bytes, bytes | None]]:
        operations = gets_of(keys)
        ask = FIRST_GETS
        while chunk := list(islice(operations, ask)):
            values = work.run(do_all(work.client.doer, chunk, timeout=timeout))
            ask = gets_next(values)
            yield from pairs_of(chunk, values)
            del values  # before there are others

    def _do_all(
        self, operations: Sequence[Operation], timeout: float | None
    ) -> list[Result | Error]:
        work = self._begun()
        try:
            return work.run(do_all(work.client.doer, operations, timeout=timeout))
        except ClosedError as error:
            return [*_given_up(operations, error).failures.values()]

    def status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Return what the server knows of itself and its members."""
        work = self._begun()
        return work.run(work.client.status(timeout=timeout))

    def members(self, *, timeout: float | None = None) -> Members:
        """Return who belongs to the cluster. Raises as :meth:`put` does."""
        work = self._begun()
        return work.run(work.client.members(timeout=timeout))

    def add_member(
        self,
        member_id: int,
        client_address: str,
        peer_address: str,
        *,
        timeout: float | None = None,
    ) -> Members:
        """Add a member under an id never used, as a learner. Returns when that is committed.

        Raises InvalidArgumentError for an id or address that is taken, UnavailableError while
        another change is under way, and as :meth:`put` does.
        """
        work = self._begun()
        return work.run(
            work.client.add_member(member_id, client_address, peer_address, timeout=timeout)
        )

    def promote_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Let a learner vote.

        Raises UnavailableError while it lacks too much of the log or wasn't heard from lately, or
        when no majority of the voters to be was; with ``force`` it is done all the same.
        """
        work = self._begun()
        return work.run(work.client.promote_member(member_id, force=force, timeout=timeout))

    def remove_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Take a member out for good: its id can't be used again.

        Raises UnavailableError when no majority of the voters that stay was heard from lately;
        with ``force`` it is done all the same.
        """
        work = self._begun()
        return work.run(work.client.remove_member(member_id, force=force, timeout=timeout))

    def forget_introduction(self, member_id: int, *, timeout: float | None = None) -> bool:
        """Let the member that answers forget what it remembers of another one's data directory.

        Returns whether there was anything. For when it refuses a member whose directory is whole.
        """
        work = self._begun()
        return work.run(work.client.forget_introduction(member_id, timeout=timeout))

    def transfer_leadership(self, to: int = 0, *, timeout: float | None = None) -> int:
        """Hand leadership to a voter (0: the one that is furthest); returns who leads then."""
        work = self._begun()
        return work.run(work.client.transfer_leadership(to, timeout=timeout))

    def save_snapshot(
        self, *, stale: bool = False, timeout: float | None = None
    ) -> Iterator[bytes]:
        """Yield a backup file of the member that answers, piece by piece (docs/storage-format.md).

        It holds every write that was acknowledged, to anyone, before the call. With ``stale`` it is
        what that member has, for when a majority is lost. ``timeout`` bounds finding a member that
        can begin, not the transfer; members are only changed before the first piece.

        Raises CorruptionError when the member's data is damaged, and as :meth:`put` does.
        """
        work = self._begun()
        pieces = work.client.save_snapshot(stale=stale, timeout=timeout)
        try:
            while (piece := work.run(_next(pieces))) is not None:
                yield piece
        finally:
            with contextlib.suppress(ClosedError):
                work.run(pieces.aclose())

    def close(self) -> None:
        """Close all connections. Calls under way fail with ClosedError; closing twice is fine."""
        with background.lock():
            self._closed = True
            work, self._work = self._work, None
        if work is None or work.process != forks.process:
            return
        if self._finalizer is not None:
            self._finalizer.detach()
        with contextlib.suppress(ClosedError):
            work.run(work.client.close())
        background.release(work.background)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begun(self) -> _Work:
        """What this process works with. Raises ClosedError."""
        work = self._work
        if work is None or work.process != forks.process:
            return self._begin()
        return work

    def _begin(self) -> _Work:
        with background.lock():
            if self._closed:
                raise ClosedError("the client is closed")
            if self._work is not None and self._work.process != forks.process:
                # A child of fork: its session and connections are its own.
                background.abandon(self._work)
                self._work = None
            if self._work is None:
                self._work = _Work(self._make())
                self._finalizer = weakref.finalize(self, self._work.drop)
                self._finalizer.atexit = False
            return self._work


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    """The next piece; None after the last."""
    return await anext(pieces, None)


def _given_up(operations: Sequence[Operation], error: ClosedError) -> BatchError:
    """What is known of operations whose loop ended under them, or before."""
    error.outcome = Outcome.UNKNOWN
    return BatchError(dict.fromkeys(range(len(operations)), error), len(operations))
