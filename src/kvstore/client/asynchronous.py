"""The client for asyncio."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from kvstore.client.attempts import Attempts
from kvstore.client.calls import Calls
from kvstore.client.channels import Transport, is_native
from kvstore.client.entries import Event, KeyValue
from kvstore.client.history import compact, history
from kvstore.client.keys import Keys, selected, selected_or_key, single
from kvstore.client.leases import (
    AsyncLease,
    LeaseStatus,
    lease_status,
    list_leases,
    revoke_lease,
)
from kvstore.client.many import do_all, put_all
from kvstore.client.operating import AsyncOperating
from kvstore.client.operations import Kind, Result
from kvstore.client.options import (
    DEFAULT_ADDRESS,
    LOCK_TTL_S,
    TLS,
    TRANSACT_TRIES,
    RetryPolicy,
    checked_timeout,
)
from kvstore.client.pipeline import (
    FIRST_GETS,
    AsyncPipeline,
    Items,
    gets_next,
    gets_of,
    operations_of,
    pairs_of,
)
from kvstore.client.quick import QuickTry, Tries
from kvstore.client.renewals import Renewals, renew
from kvstore.client.requests import (
    BytesLike,
    as_bytes,
    as_lease,
    delete_request,
    get_request,
    put_request,
)
from kvstore.client.scanning import PAGE_KEYS, AsyncRange, Selection, count
from kvstore.client.servers import Server
from kvstore.client.telemetry import Telemetry, calls_of
from kvstore.client.transactions import (
    AsyncTransaction,
    DeleteResult,
    LeaseLike,
    delete_range,
    put_with_lease,
)
from kvstore.client.urls import Target, described, target_of
from kvstore.client.watch_stream import WatchStream
from kvstore.client.watching import AsyncWatch, watch_request
from kvstore.errors import ClosedError, InvalidArgumentError, LeaseNotFoundError

# What a program that only gets and puts never needs is imported where it is asked for: never by
# what a Client's own thread does, as a fork meanwhile would leave the child with a lock that nobody
# gives back.
if TYPE_CHECKING:
    from kvstore.client.auth import AsyncAuth
    from kvstore.client.elections import AsyncElection
    from kvstore.client.locks import AsyncLock
    from kvstore.client.maintenance import AsyncMaintenance
    from kvstore.client.optimistic import AsyncDraft
    from kvstore.client.turns import Turn

T = TypeVar("T")


class AsyncClient(AsyncOperating):
    """A kvd, or a cluster of them, as seen from one event loop.

    The same as :class:`kvstore.Client` in all but the ``await``; any number of tasks of one loop
    may use one client. Connections are made on first use, on the loop that is running then.

    >>> async with AsyncClient("127.0.0.1:50051") as client:
    ...     await client.put(b"colour", b"green")
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
        """See :class:`kvstore.Client` for the arguments.

        Raises ConfigurationError for a malformed address or connection string, an unreadable PEM
        file, a transport that there isn't, a user without a password, or a namespace that leaves
        no room for keys; InvalidArgumentError for a timeout that is no positive number.
        """
        given = Target(
            (),
            tls=tls,
            timeout=timeout,
            namespace=None if namespace is None else as_bytes(namespace, "namespace"),
            transport=transport,
            user=user,
            password=password,
        )
        target = target_of(addresses, given)
        calls = calls_of(target, retry, telemetry)
        self._set_up(calls, target, quick=is_native(target.transport))

    def _set_up(self, calls: Calls, target: Target, *, quick: bool) -> None:
        self.calls = calls
        """What it has to its servers."""
        self.target = target
        self._stream = WatchStream(calls)
        self._renewals = Renewals(calls)
        self.doer = Tries(self, calls, quick=quick)
        """What does many operations of it."""

    warns = True
    """Whether a ResourceWarning tells that nobody uses it any more, and nobody closed it."""

    def __del__(self) -> None:
        calls: Calls | None = getattr(self, "calls", None)
        if self.warns and calls is not None and not calls.closed and calls.connections.in_use:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return described(self, self.target, closed=self.calls.closed)

    async def put(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        lease: LeaseLike | None = None,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Store ``value`` under ``key``; True if it had a value before. See :meth:`Client.put`."""
        if lease is not None:
            if request_id is not None:
                raise InvalidArgumentError("a put with a lease has no request_id")
            return await put_with_lease(self.calls, key, value, lease, timeout)
        request = put_request(key, value)
        return (
            await self.calls.write(
                lambda server: server.kv.Put, request, request_id, retry, timeout
            )
        ).overwritten

    async def get(self, key: BytesLike, *, timeout: float | None = None) -> bytes | None:
        """Return the newest value of ``key``, None if it has none. See :meth:`Client.get`."""
        response = await self.calls.call(lambda server: server.kv.Get, get_request(key), timeout)
        return response.value if response.found else None

    async def delete(
        self,
        key: BytesLike,
        *,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Remove ``key``; True if it had a value. See :meth:`Client.delete`."""
        request = delete_request(key)
        return (
            await self.calls.write(
                lambda server: server.kv.Delete, request, request_id, retry, timeout
            )
        ).deleted

    async def get_entry(
        self, key: BytesLike, *, revision: int = 0, timeout: float | None = None
    ) -> KeyValue | None:
        """Return ``key`` with its revisions, as it is or was; see :meth:`Client.get_entry`."""
        wanted = Selection(single(key), revision=revision)
        entries = await AsyncRange(self.calls, wanted, timeout).list()
        return entries[0] if entries else None

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
    ) -> AsyncRange:
        """Keys and values in order, all at one revision; see :meth:`Client.range`."""
        wanted = Selection(
            selected(start, end, prefix),
            revision=revision,
            limit=limit,
            keys_only=keys_only,
            reverse=reverse,
            serializable=serializable,
            page=page,
        )
        return AsyncRange(self.calls, wanted, timeout)

    async def count(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        revision: int = 0,
        timeout: float | None = None,
    ) -> int:
        """How many keys there are in a range; see :meth:`Client.count`."""
        return await count(self.calls, selected(start, end, prefix), revision, timeout)

    async def delete_range(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        previous: bool = False,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove all keys of a range, at one revision; see :meth:`Client.delete_range`."""
        if start is None and end is None and prefix is None:
            raise InvalidArgumentError('all keys are removed with prefix=b"" alone')
        keys = selected(start, end, prefix)
        return await delete_range(self.calls, keys, previous, timeout)

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

    def transaction(self, *, timeout: float | None = None) -> AsyncTransaction:
        """A transaction to be built; see :meth:`Client.transaction`."""
        return AsyncTransaction(self.calls, timeout)

    async def transact(
        self,
        do: Callable[[AsyncDraft], Awaitable[T]],
        *,
        tries: int = TRANSACT_TRIES,
        timeout: float | None = None,
    ) -> T:
        """Read and write as one, again if others came in between; see :meth:`Client.transact`."""
        from kvstore.client.optimistic import transact

        return await transact(self.calls, do, tries, timeout)

    async def compact(
        self, revision: int, *, physical: bool = False, timeout: float | None = None
    ) -> None:
        """Forget history before ``revision``; see :meth:`Client.compact`."""
        await compact(self.calls, revision, physical, timeout)

    def history(
        self, key: BytesLike, *, timeout: float | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield what is remembered of a key, the oldest first; see :meth:`Client.history`."""
        return history(self.calls, single(key), timeout)

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
    ) -> AsyncWatch:
        """Changes of keys as they come; see :meth:`Client.watch`."""
        keys = selected_or_key(key, start, end, prefix)
        request = watch_request(keys, from_revision, previous=previous, puts=puts, deletes=deletes)
        return AsyncWatch(self._stream, request, checked_timeout(timeout, self.calls.timeout))

    def lease(self, ttl: float, *, lease_id: int | None = None) -> AsyncLease:
        """A lease, kept alive within ``async with``; see :meth:`Client.lease`."""
        return AsyncLease(self.calls, self._renewals, ttl, lease_id)

    async def renew_lease(self, lease_id: int, *, timeout: float | None = None) -> int:
        """Renew somebody's lease once; the seconds that it has then. Raises LeaseNotFoundError."""
        (ttl,) = await renew(self.calls, [as_lease(lease_id)], timeout)
        if ttl <= 0:
            raise LeaseNotFoundError(f"there is no lease {lease_id:x}")
        return ttl

    async def revoke_lease(self, lease_id: int, *, timeout: float | None = None) -> None:
        """End somebody's lease, and remove its keys. Raises LeaseNotFoundError."""
        await revoke_lease(self.calls, lease_id, timeout)

    async def lease_status(
        self, lease_id: int, *, keys: bool = False, timeout: float | None = None
    ) -> LeaseStatus | None:
        """What a server says of a lease, with its ``keys`` if asked for; None: there is none."""
        return await lease_status(self.calls, lease_id, keys, timeout)

    async def leases(self, *, timeout: float | None = None) -> list[int]:
        """The ids of all leases, as the member has them that answers, maybe late."""
        return await list_leases(self.calls, timeout)

    def lock(
        self, name: BytesLike, *, ttl: float = LOCK_TTL_S, wait: float | None = None
    ) -> AsyncLock:
        """A lock, held within ``async with``; see :meth:`Client.lock`."""
        from kvstore.client.locks import AsyncLock

        return AsyncLock(self._turn(name, b"", ttl), wait)

    def election(self, name: BytesLike, *, ttl: float = LOCK_TTL_S) -> AsyncElection:
        """An election to campaign in, or to look at; see :meth:`Client.election`."""
        from kvstore.client.elections import AsyncElection

        candidate = partial(self._turn, name, ttl=ttl)
        return AsyncElection(self.calls, self._stream, name, candidate)

    @property
    def auth(self) -> AsyncAuth:
        """Users, their roles, and whether they are asked for; see :attr:`Client.auth`."""
        from kvstore.client.auth import AsyncAuth

        return AsyncAuth(self.calls)

    @property
    def maintenance(self) -> AsyncMaintenance:
        """Alarms, and room given back; see :attr:`Client.maintenance`."""
        from kvstore.client.maintenance import AsyncMaintenance

        return AsyncMaintenance(self.calls)

    def _turn(self, name: BytesLike, value: bytes, ttl: float) -> Turn:
        from kvstore.client.turns import Turn

        return Turn(self.calls, self._renewals, self._stream, name, value, ttl)

    def pipeline(self, *, timeout: float | None = None) -> AsyncPipeline:
        """A list of operations to be sent together; see :class:`AsyncPipeline`."""
        return AsyncPipeline(self.doer, self.doer.seconds(timeout))

    async def put_many(self, items: Items, *, timeout: float | None = None) -> int:
        """Store each value under its key, hundreds at a time; see :meth:`Client.put_many`."""
        return await put_all(self.doer, operations_of(items), timeout=timeout)

    def get_many(
        self, keys: Iterable[BytesLike], *, timeout: float | None = None
    ) -> AsyncGenerator[tuple[bytes, bytes | None], None]:
        """Yield each key with its value, or None, in order; see :meth:`Client.get_many`."""
        if self.calls.closed:
            raise ClosedError("the client is closed")
        return self._gets(keys, self.doer.seconds(timeout))

    async def _gets(
        self, keys: Iterable[BytesLike], timeout: float
    ) -> AsyncGenerator[tuple[bytes, bytes | None], None]:
        operations = gets_of(keys)
        ask = FIRST_GETS
        while chunk := list(islice(operations, ask)):
            values = await do_all(self.doer, chunk, timeout=timeout, name="get_many")
            ask = gets_next(values)
            for pair in pairs_of(chunk, values):
                yield pair
            del values  # before there are others

    async def close(self) -> None:
        """Close all connections. Calls under way fail with ClosedError; closing twice is fine."""
        self.calls.closed = True
        await self._stream.close()
        await self._renewals.close()
        await self.calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def go_on(self, failed: QuickTry, error: grpc.RpcError) -> Result:
        """Go on with an operation of many whose first try, without a task, failed."""
        calls = self.calls
        operation = failed.operation
        timeout = failed.flight.timeout
        writes = operation.kind is not Kind.GET
        attempts = Attempts(calls.endpoints, calls.policy, timeout, writes=writes)
        took = asyncio.get_running_loop().time() - failed.started
        attempts.tried(failed.link.address, failed.sent, took)
        first = (failed.link, error, failed.timeout)
        try:
            if operation.kind is Kind.GET:
                get = get_request(operation.key)
                got = await calls.tried(lambda server: server.kv.Get, get, attempts, first)
                return got.value if got.found else None
            if operation.kind is Kind.PUT:
                put = put_request(operation.key, operation.value)
                response = await calls.carried(
                    lambda server: server.kv.Put, put, attempts, failed.write, first
                )
                return response.overwritten
            delete = delete_request(operation.key)
            gone = await calls.carried(
                lambda server: server.kv.Delete, delete, attempts, failed.write, first
            )
            return gone.deleted
        finally:
            await calls.give_back(failed.link)

    async def leave(self, server: Server) -> None:
        """Close a connection that nobody uses any more."""
        await server.channel.close(grace=None)
