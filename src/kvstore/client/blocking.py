"""The client for threads: an AsyncClient on the loop of a thread that all clients share."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kvstore.client import background, forks
from kvstore.client.asynchronous import AsyncClient
from kvstore.client.background import drawn
from kvstore.client.channels import Transport
from kvstore.client.entries import Event, KeyValue
from kvstore.client.keys import Keys, selected, single
from kvstore.client.leases import Lease, LeaseStatus
from kvstore.client.many import do_all, put_all
from kvstore.client.operating import Operating
from kvstore.client.operations import Operation, Result
from kvstore.client.options import (
    DEFAULT_ADDRESS,
    LOCK_TTL_S,
    TLS,
    TRANSACT_TRIES,
    RetryPolicy,
)
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
from kvstore.client.scanning import PAGE_KEYS, Range
from kvstore.client.telemetry import Telemetry
from kvstore.client.transactions import DeleteResult, LeaseLike, Transaction, commit
from kvstore.client.urls import described
from kvstore.client.watching import Watch
from kvstore.client.work import Kept, Work
from kvstore.errors import BatchError, ClosedError, Error, Outcome

# Imported where they are asked for; see kvstore.client.asynchronous.
if TYPE_CHECKING:
    from kvstore.client.auth import Auth
    from kvstore.client.elections import Election
    from kvstore.client.locks import Lock
    from kvstore.client.maintenance import Maintenance
    from kvstore.client.optimistic import Draft

T = TypeVar("T")


class Client(Operating):
    """A kvd, or a cluster of them, as seen from ordinary threads.

    ``addresses`` is one ``host:port``, several separated by commas, a list, or a connection string:
    ``kv://host:port,host2:port/?tls-ca=ca.pem&timeout=5``. The client finds the leader among them,
    follows leader hints, and tries a call that failed for a passing reason again until ``timeout``
    seconds are over. Its writes belong to a session, which the first of them opens, and are applied
    at most once however often they are sent; where a server can't know any more whether an earlier
    try was applied, it refuses the next one, and the call ends with that.

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
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        transport: Transport | None = None,
        user: str | None = None,
        password: str | None = None,
        namespace: BytesLike | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """``timeout``: of each call, in seconds, 10 if nothing is said. ``retry``: see
        :class:`RetryPolicy`. ``transport``: ``"native"`` or ``"grpcio"``; without one, the best
        that was built. With ``user`` and ``password`` it asks the server for a token before its
        first call, and again when that has expired. ``namespace``: all keys begin with that in the
        store, which nobody sees here: see docs/clients.md. ``telemetry``: spans and metrics, a
        :class:`kvstore.client.otel.OpenTelemetry`.

        An argument counts more than what a connection string says. Raises ConfigurationError as
        :class:`kvstore.AsyncClient` does.
        """
        self._set_up(
            partial(
                AsyncClient,
                addresses,
                tls=tls,
                timeout=timeout,
                retry=retry,
                transport=transport,
                user=user,
                password=password,
                namespace=namespace,
                telemetry=telemetry,
            )
        )

    def _set_up(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._closed = False
        self._work: Work | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._target = make().target  # what is wrong is told now, not later

    def __repr__(self) -> str:
        return described(self, self._target, closed=self._closed)

    def put(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        lease: LeaseLike | None = None,
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

        With a ``lease`` the key goes when the lease does. Such a put is a transaction, and raises
        OutcomeUnknownError when nobody knows whether it was applied.

        Raises InvalidArgumentError, UnavailableError or NotLeaderError (no leader found in time),
        DeadlineExceededError, StorageError, ClosedError, ForgottenError (nobody knows any more
        whether it was applied). ``outcome`` of the error says whether the write was not applied, or
        may have been.
        """
        work = self._begun()
        return work.run(
            work.client.put(
                key, value, lease=lease, request_id=request_id, retry=retry, timeout=timeout
            )
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

    def get_entry(
        self, key: BytesLike, *, revision: int = 0, timeout: float | None = None
    ) -> KeyValue | None:
        """Return ``key`` with its revisions, as it is, or as it was at ``revision``.

        None: it has, or had, no value. Raises CompactedError for a revision that is forgotten,
        FutureRevisionError for one that hasn't come, and as :meth:`put` does.
        """
        work = self._begun()
        return work.run(work.client.get_entry(key, revision=revision, timeout=timeout))

    def range(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        limit: int | None = None,
        revision: int = 0,
        keys_only: bool = False,
        reverse: bool = False,
        serializable: bool = False,
        page: int = PAGE_KEYS,
        timeout: float | None = None,
    ) -> Range:
        """Keys and values in order: those with ``prefix``, or from ``start`` on to before ``end``.

        They are read as they are iterated over, ``page`` keys at most at a time, or as many as come
        to 8 MiB, and all show one revision: the newest when the first page was read, or
        ``revision``. ``serializable``: as the member has it that answers, maybe late, without
        asking the others. ``timeout`` is each page's.

        >>> for entry in client.range(prefix=b"jobs/"):
        ...     print(entry.key, entry.value, entry.mod_revision)

        Iterating raises CompactedError when it takes so long that the revision is forgotten,
        FutureRevisionError, and as :meth:`get` does.
        """
        work = self._begun()
        keys = work.client.range(
            start,
            end,
            prefix=prefix,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            reverse=reverse,
            serializable=serializable,
            page=page,
            timeout=timeout,
        )
        return Range(Kept(self, work), keys)

    def count(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        revision: int = 0,
        timeout: float | None = None,
    ) -> int:
        """How many keys there are: of all, of a prefix, or from ``start`` on to before ``end``."""
        work = self._begun()
        return work.run(
            work.client.count(start, end, prefix=prefix, revision=revision, timeout=timeout)
        )

    def delete_range(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        previous: bool = False,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove all keys with ``prefix``, or from ``start`` on to before ``end``, as one.

        With ``previous`` the result has what there was. ``prefix=b""`` is all there is. Raises
        OutcomeUnknownError when nobody knows whether it was done, and as :meth:`put` does.
        """
        work = self._begun()
        return work.run(
            work.client.delete_range(start, end, prefix=prefix, previous=previous, timeout=timeout)
        )

    def key(self, key: BytesLike) -> Keys:
        """A key whose fields can be compared in a transaction; see :class:`Keys`."""
        return Keys(single(key))

    def keys(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
    ) -> Keys:
        """Keys of a range, for conditions that hold if they do for each of them."""
        return Keys(selected(start, end, prefix))

    def transaction(self, *, timeout: float | None = None) -> Transaction:
        """Conditions, and what is done if they hold or if they don't, all at one revision.

        >>> stock = client.get_entry(b"stock")
        >>> result = (
        ...     client.transaction()
        ...     .if_(client.key(b"stock").mod_revision == stock.mod_revision)
        ...     .then(Put(b"stock", b"41"), Put(b"orders/7", b"1"))
        ...     .commit()
        ... )
        >>> result.succeeded

        See :class:`Transaction`, :class:`Keys` for conditions, and :meth:`transact`, which does
        such as this by itself.
        """
        work = self._begun()
        run = Kept(self, work)
        calls = work.client.calls
        return Transaction(lambda parts, timeout: run(commit(calls, parts, timeout)), timeout)

    def transact(
        self, do: Callable[[Draft], T], *, tries: int = TRANSACT_TRIES, timeout: float | None = None
    ) -> T:
        """Call ``do``, and write what it wrote if nothing of what it read has changed meanwhile.

        Otherwise nothing is written, and ``do`` is called again. All that it reads is as it was at
        one revision. It is called in this thread; what it raises ends it. Returns what it returns.

        >>> def move(draft):
        ...     left = int(draft.get(b"a") or b"0") - 1
        ...     draft.put(b"a", b"%d" % left)
        ...     draft.put(b"b", b"%d" % (int(draft.get(b"b") or b"0") + 1))
        ...     return left
        >>> client.transact(move)

        Raises ConflictError after ``tries`` calls of ``do``, OutcomeUnknownError when nobody knows
        whether it was written, and as :meth:`put` does. ``timeout`` is each call's to the server.
        """
        from kvstore.client.optimistic import transact_blocking

        work = self._begun()
        return transact_blocking(Kept(self, work), work.client.calls, do, tries, timeout)

    def compact(
        self, revision: int, *, physical: bool = False, timeout: float | None = None
    ) -> None:
        """Forget history before ``revision``; what there was at ``revision`` can still be read.

        ``physical``: return only when the space is free. Raises CompactedError if it was done
        before, FutureRevisionError, and as :meth:`put` does.
        """
        work = self._begun()
        work.run(work.client.compact(revision, physical=physical, timeout=timeout))

    def history(self, key: BytesLike, *, timeout: float | None = None) -> Iterator[Event]:
        """Yield what is remembered of a key's changes, the oldest first, up to now.

        ``timeout`` is how long nothing may come. Raises as :meth:`get` does.
        """
        work = self._begun()
        return drawn(Kept(self, work), work.client.history(key, timeout=timeout))

    def watch(
        self,
        key: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        from_revision: int = 0,
        previous: bool = False,
        puts: bool = True,
        deletes: bool = True,
        timeout: float | None = None,
    ) -> Watch:
        """Changes of a key, of those with ``prefix``, or from ``start`` on to before ``end``.

        Each change comes once, in order, from the moment that the ``with`` block is entered, or
        from ``from_revision`` on. Whatever becomes of servers and connections, it goes on where it
        stopped, with any of the servers; iterating it ends when it is closed. If it is read so
        slowly, or nothing can be reached for so long, that history is forgotten, it raises
        CompactedError. ``previous``: events have what there was before. ``timeout``: how long it
        may take until it has begun.

        >>> with client.watch(prefix=b"jobs/") as changes:
        ...     for event in changes:
        ...         print(event.kind, event.key, event.value, event.revision)
        """
        work = self._begun()
        watch = work.client.watch(
            key,
            prefix=prefix,
            start=start,
            end=end,
            from_revision=from_revision,
            previous=previous,
            puts=puts,
            deletes=deletes,
            timeout=timeout,
        )
        return Watch(Kept(self, work), watch)

    def lease(self, ttl: float, *, lease_id: int | None = None) -> Lease:
        """A lease of ``ttl`` seconds, with which keys are put that shall go when it does.

        It is granted when the ``with`` block is entered, kept alive in the background, and revoked,
        with its keys, when that is left. ``lost`` says that it has expired, or may have, as when no
        server could be reached for so long; leaving the block raises LeaseLostError then.

        >>> with client.lease(10) as lease:
        ...     client.put(b"workers/7", b"host-3:8000", lease=lease)
        """
        work = self._begun()
        return Lease(Kept(self, work), work.client.lease(ttl, lease_id=lease_id))

    def renew_lease(self, lease_id: int, *, timeout: float | None = None) -> int:
        """Renew somebody's lease once; the seconds that it has then. Raises LeaseNotFoundError."""
        work = self._begun()
        return work.run(work.client.renew_lease(lease_id, timeout=timeout))

    def revoke_lease(self, lease_id: int, *, timeout: float | None = None) -> None:
        """End somebody's lease, and remove its keys. Raises LeaseNotFoundError."""
        work = self._begun()
        work.run(work.client.revoke_lease(lease_id, timeout=timeout))

    def lease_status(
        self, lease_id: int, *, keys: bool = False, timeout: float | None = None
    ) -> LeaseStatus | None:
        """What a server says of a lease, with its ``keys`` if asked for; None: there is none."""
        work = self._begun()
        return work.run(work.client.lease_status(lease_id, keys=keys, timeout=timeout))

    def leases(self, *, timeout: float | None = None) -> list[int]:
        """The ids of all leases, as the member has them that answers, maybe late."""
        work = self._begun()
        return work.run(work.client.leases(timeout=timeout))

    def lock(self, name: BytesLike, *, ttl: float = LOCK_TTL_S, wait: float | None = None) -> Lock:
        """A lock, which one holder at a time has within its ``with`` block.

        Entering waits for it, ``wait`` seconds at most, and raises DeadlineExceededError if others
        held it for so long. A holder that is gone loses it after ``ttl`` seconds. One that has only
        stood still for so long doesn't know: what must not be done by two needs ``lock.held`` as a
        condition of its transaction, or ``lock.fence`` where it is done.

        >>> with client.lock(b"reports", ttl=10, wait=5) as lock:
        ...     client.transaction().if_(lock.held).then(Put(b"report", b"done")).commit()
        """
        from kvstore.client.locks import Lock

        work = self._begun()
        return Lock(Kept(self, work), work.client.lock(name, ttl=ttl, wait=wait))

    def election(self, name: BytesLike, *, ttl: float = LOCK_TTL_S) -> Election:
        """An election: candidates lead one after the other, and all can see who does.

        >>> election = client.election(b"scheduler", ttl=10)
        >>> with election.campaign(b"host-3") as leadership:
        ...     leadership.proclaim(b"host-3, ready")

        Candidates are locks (see :meth:`lock`) that say something.
        """
        from kvstore.client.elections import Election

        work = self._begun()
        return Election(Kept(self, work), work.client.election(name, ttl=ttl))

    @property
    def auth(self) -> Auth:
        """Users, their roles, and whether they are asked for.

        >>> client.auth.add_user("app", "secret")
        >>> client.auth.add_role("jobs")
        >>> client.auth.grant_permission("jobs", Access.READWRITE, prefix=b"jobs/")
        >>> client.auth.grant_role("app", "jobs")
        """
        from kvstore.client.auth import Auth

        work = self._begun()
        return Auth(Kept(self, work), work.client.auth)

    @property
    def maintenance(self) -> Maintenance:
        """Alarms, for which the store refuses writes, and room given back.

        >>> client.maintenance.alarms()
        [Alarm(member_id=1, kind='NOSPACE')]
        >>> client.maintenance.disarm()
        """
        from kvstore.client.maintenance import Maintenance

        work = self._begun()
        return Maintenance(Kept(self, work), work.client.maintenance)

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
        self, work: Work, keys: Iterable[BytesLike], timeout: float
    ) -> Iterator[tuple[bytes, bytes | None]]:
        operations = gets_of(keys)
        ask = FIRST_GETS
        while chunk := list(islice(operations, ask)):
            values = work.run(do_all(work.client.doer, chunk, timeout=timeout, name="get_many"))
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

    def _begun(self) -> Work:
        """What this process works with. Raises ClosedError."""
        work = self._work
        if work is None or work.process != forks.process:
            return self._begin()
        return work

    def _begin(self) -> Work:
        with background.lock():
            if self._closed:
                raise ClosedError("the client is closed")
            if self._work is not None and self._work.process != forks.process:
                # A child of fork: its session and connections are its own.
                background.abandon(self._work)
                self._work = None
            if self._work is None:
                self._work = Work(self._make(), repr(self))
                self._finalizer = weakref.finalize(self, self._work.drop)
                self._finalizer.atexit = False
            return self._work


def _given_up(operations: Sequence[Operation], error: ClosedError) -> BatchError:
    """What is known of operations whose loop ended under them, or before."""
    error.outcome = Outcome.UNKNOWN
    return BatchError(dict.fromkeys(range(len(operations)), error), len(operations))
