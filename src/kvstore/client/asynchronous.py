"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

import grpc

from kvstore.api.v1 import admin_pb2
from kvstore.client.attempts import Attempts
from kvstore.client.calls import Calls
from kvstore.client.channels import Transport, is_native
from kvstore.client.login import Login
from kvstore.client.many import do_all, put_all
from kvstore.client.operations import Kind, Result
from kvstore.client.options import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    TLS,
    RetryPolicy,
    positive_seconds,
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
from kvstore.client.requests import (
    BytesLike,
    delete_request,
    get_request,
    put_request,
)
from kvstore.client.servers import Server
from kvstore.client.status import ClusterStatus, Members
from kvstore.errors import ClosedError


class AsyncClient:
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
        timeout: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: Transport | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        """``transport``: ``"native"`` or ``"grpcio"``; without one, the best that was built.

        With ``user`` and ``password`` it asks the server for a token before its first call, and
        again when that has expired.

        Raises ConfigurationError for a malformed address, an unreadable PEM file, a transport
        that there isn't, or a user without a password; InvalidArgumentError for a timeout that is
        no positive number.
        """
        self._calls = Calls(
            addresses,
            tls=tls,
            timeout=positive_seconds(timeout),
            retry=retry,
            transport=transport,
            login=Login(user, password),
        )
        self.doer = Tries(self, self._calls, quick=is_native(transport))
        """What does many operations of it."""

    async def put(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Store ``value`` under ``key``; True if it had a value before. See :meth:`Client.put`."""
        request = put_request(key, value)
        return (
            await self._calls.write(
                lambda server: server.kv.Put, request, request_id, retry, timeout
            )
        ).overwritten

    async def get(self, key: BytesLike, *, timeout: float | None = None) -> bytes | None:
        """Return the newest value of ``key``, None if it has none. See :meth:`Client.get`."""
        response = await self._calls.call(lambda server: server.kv.Get, get_request(key), timeout)
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
            await self._calls.write(
                lambda server: server.kv.Delete, request, request_id, retry, timeout
            )
        ).deleted

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
        if self._calls.closed:
            raise ClosedError("the client is closed")
        return self._gets(keys, self.doer.seconds(timeout))

    async def _gets(
        self, keys: Iterable[BytesLike], timeout: float
    ) -> AsyncGenerator[tuple[bytes, bytes | None], None]:
        operations = gets_of(keys)
        ask = FIRST_GETS
        while chunk := list(islice(operations, ask)):
            values = await do_all(self.doer, chunk, timeout=timeout)
            ask = gets_next(values)
            for pair in pairs_of(chunk, values):
                yield pair
            del values  # before there are others

    async def status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Return what the server knows of itself and its members."""
        answer = await self._calls.call(
            lambda server: server.admin.Status, admin_pb2.StatusRequest(), timeout
        )
        return ClusterStatus.from_message(answer)

    async def members(self, *, timeout: float | None = None) -> Members:
        """Return who belongs to the cluster. Raises as :meth:`put` does."""
        answer = await self._calls.call(
            lambda server: server.admin.Members, admin_pb2.MembersRequest(), timeout
        )
        return Members.from_message(answer)

    async def add_member(
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
        new = admin_pb2.Member(
            member_id=member_id, client_address=client_address, peer_address=peer_address
        )
        return await self._change(admin_pb2.ChangeMembersRequest(add=new), timeout)

    async def promote_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Let a learner vote; raises UnavailableError while it lacks too much of the log."""
        return await self._change(
            admin_pb2.ChangeMembersRequest(promote=member_id, force=force), timeout
        )

    async def remove_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Take a member out for good: its id can't be used again."""
        return await self._change(
            admin_pb2.ChangeMembersRequest(remove=member_id, force=force), timeout
        )

    async def _change(
        self, request: admin_pb2.ChangeMembersRequest, timeout: float | None
    ) -> Members:
        return Members.from_message(
            await self._calls.call(lambda server: server.admin.ChangeMembers, request, timeout)
        )

    async def forget_introduction(self, member_id: int, *, timeout: float | None = None) -> bool:
        """Let the member that answers forget what it remembers of another one's data directory.

        Returns whether there was anything. For when it refuses a member whose directory is whole.
        """
        request = admin_pb2.ForgetIntroductionRequest(member_id=member_id)
        return (
            await self._calls.call(lambda server: server.admin.ForgetIntroduction, request, timeout)
        ).known

    async def transfer_leadership(self, to: int = 0, *, timeout: float | None = None) -> int:
        """Hand leadership to a voter (0: the one that is furthest); returns who leads then."""
        request = admin_pb2.TransferLeadershipRequest(to=to)
        return (
            await self._calls.call(lambda server: server.admin.TransferLeadership, request, timeout)
        ).leader_id

    def save_snapshot(
        self, *, stale: bool = False, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a backup file of the member that answers; see :meth:`Client.save_snapshot`."""
        return self._calls.save_snapshot(stale, timeout)

    async def close(self) -> None:
        """Close all connections. Calls under way fail with ClosedError; closing twice is fine."""
        await self._calls.close()

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
        calls = self._calls
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
