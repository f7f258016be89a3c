"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from kvstore.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from kvstore.client.attempts import Attempts, Endpoints, Metadata
from kvstore.client.channels import Transport, dialler, is_native
from kvstore.client.connections import Connection, Connections
from kvstore.client.failure import understand
from kvstore.client.many import do_all, put_all
from kvstore.client.operations import Kind, Result
from kvstore.client.options import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    TLS,
    RetryPolicy,
    checked_timeout,
    parse_addresses,
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
from kvstore.client.sessions import PlainWrite, Sessions, SessionWrite, Write
from kvstore.client.status import ClusterStatus, Members
from kvstore.errors import (
    ClosedError,
    Error,
    ForgottenError,
    InvalidArgumentError,
    Outcome,
    Refusal,
    ResourceExhaustedError,
    UnsupportedError,
)

Request = TypeVar("Request", contravariant=True)
WriteRequest = TypeVar("WriteRequest", kv_pb2.PutRequest, kv_pb2.DeleteRequest)
Response = TypeVar("Response", covariant=True)


# A try that failed: over what, how, and the seconds that it had.
FailedTry: TypeAlias = "tuple[Connection[_Server], grpc.RpcError, float]"

_CLOSED = "the client was closed during the call"


class _Method(Protocol[Request, Response]):
    """One RPC of a stub."""

    def __call__(
        self, request: Request, *, timeout: float | None, metadata: Metadata | None
    ) -> Awaitable[Response]: ...


class _Server:
    """The connection to one address."""

    __slots__ = ("admin", "channel", "kv", "sessions")

    def __init__(self, address: str, dial: Callable[[str], grpc.aio.Channel]) -> None:
        self.channel = dial(address)
        self.kv = cast("kv_pb2_grpc.KVAsyncStub", kv_pb2_grpc.KVStub(self.channel))
        self.sessions = cast(
            "session_pb2_grpc.SessionsAsyncStub", session_pb2_grpc.SessionsStub(self.channel)
        )
        self.admin = cast("admin_pb2_grpc.AdminAsyncStub", admin_pb2_grpc.AdminStub(self.channel))


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
    ) -> None:
        """``transport``: ``"native"`` or ``"grpcio"``; without one, the best that was built.

        Raises ConfigurationError for a malformed address, an unreadable PEM file, or a transport
        that there isn't; InvalidArgumentError for a timeout that is no positive number.
        """
        self._endpoints = Endpoints(parse_addresses(addresses))
        self._timeout = positive_seconds(timeout)
        self._retry = retry or RetryPolicy()
        self._closed = False
        self._connections = Connections(partial(_Server, dial=dialler(transport, tls)), tls)
        self._sessions = Sessions()
        self.doer = Tries(
            self,
            self._connections,
            self._sessions,
            self._endpoints,
            self._retry,
            self._timeout,
            quick=is_native(transport),
        )
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
        return (await self._write(_put, request, request_id, retry, timeout)).overwritten

    async def get(self, key: BytesLike, *, timeout: float | None = None) -> bytes | None:
        """Return the newest value of ``key``, None if it has none. See :meth:`Client.get`."""
        response = await self._call(_get, get_request(key), timeout)
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
        return (await self._write(_delete, request, request_id, retry, timeout)).deleted

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
        if self._closed:
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
        answer = await self._call(_status, admin_pb2.StatusRequest(), timeout)
        return ClusterStatus.from_message(answer)

    async def members(self, *, timeout: float | None = None) -> Members:
        """Return who belongs to the cluster. Raises as :meth:`put` does."""
        answer = await self._call(_members, admin_pb2.MembersRequest(), timeout)
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
        return Members.from_message(await self._call(_change_members, request, timeout))

    async def forget_introduction(self, member_id: int, *, timeout: float | None = None) -> bool:
        """Let the member that answers forget what it remembers of another one's data directory.

        Returns whether there was anything. For when it refuses a member whose directory is whole.
        """
        request = admin_pb2.ForgetIntroductionRequest(member_id=member_id)
        return (await self._call(_forget_introduction, request, timeout)).known

    async def transfer_leadership(self, to: int = 0, *, timeout: float | None = None) -> int:
        """Hand leadership to a voter (0: the one that is furthest); returns who leads then."""
        request = admin_pb2.TransferLeadershipRequest(to=to)
        return (await self._call(_transfer_leadership, request, timeout)).leader_id

    async def save_snapshot(
        self, *, stale: bool = False, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a backup file of the member that answers; see :meth:`Client.save_snapshot`."""
        attempts = Attempts(self._endpoints, self._retry, checked_timeout(timeout, self._timeout))
        request = admin_pb2.SaveSnapshotRequest(stale=stale)
        begun = False
        while True:
            attempts.next()
            connection = self._connections.take(attempts.address)
            call = connection.server.admin.SaveSnapshot(request)
            try:
                async for response in call:
                    begun = True
                    yield response.data
                return
            except grpc.RpcError as error:
                if self._closed:
                    raise ClosedError(_CLOSED) from error
                failure = understand(error)
                if begun:
                    raise failure.error from error
                self._connections.failed(connection, failure)
                delay = attempts.failed(failure)
            except (asyncio.CancelledError, grpc.aio.UsageError) as error:
                if self._closed and not _task_is_cancelled():
                    raise ClosedError(_CLOSED) from error
                raise
            finally:
                call.cancel()
                left = self._connections.give_back(connection)
                if left is not None:
                    await self.leave(left)
            await asyncio.sleep(delay)

    async def close(self) -> None:
        """Close all connections. Calls under way fail with ClosedError; closing twice is fine."""
        self._closed = True
        for server in self._connections.close():
            await self.leave(server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(
        self,
        method: Callable[[_Server], _Method[Request, Response]],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Try until it works, can't work or the time is up."""
        timeout = checked_timeout(timeout, self._timeout)
        return await self._try(method, request, Attempts(self._endpoints, self._retry, timeout))

    async def _write(
        self,
        method: Callable[[_Server], _Method[WriteRequest, Response]],
        request: WriteRequest,
        request_id: str | None,
        retry: bool,
        timeout: float | None,
    ) -> Response:
        """The same for a write, which gets its id here."""
        timeout = checked_timeout(timeout, self._timeout)
        if retry and request_id is None:
            raise InvalidArgumentError("retry needs the request_id that was sent before")
        attempts = Attempts(self._endpoints, self._retry, timeout, writes=True, sent_before=retry)
        write = None if request_id is None else PlainWrite(request_id)
        return await self._carry(method, request, attempts, write)

    async def _carry(
        self,
        method: Callable[[_Server], _Method[WriteRequest, Response]],
        request: WriteRequest,
        attempts: Attempts,
        write: Write | None,
        failed: FailedTry | None = None,
    ) -> Response:
        """Write under the id that there is, if any, after a first try of it that ``failed``."""
        while True:
            if write is None:
                if self._sessions.claim():
                    await self._open_session(attempts)
                write = self._sessions.begin()
            request.request_id = write.request_id
            try:
                return await self._try(method, request, attempts, failed)
            except ForgottenError as error:
                if not self._may_renew(write, error):
                    raise
                attempts.renew()
            finally:
                write.done()
            write = failed = None

    async def go_on(self, failed: QuickTry, error: grpc.RpcError) -> Result:
        """Go on with an operation of many whose first try, without a task, failed."""
        operation = failed.operation
        timeout = failed.flight.timeout
        writes = operation.kind is not Kind.GET
        attempts = Attempts(self._endpoints, self._retry, timeout, writes=writes)
        took = asyncio.get_running_loop().time() - failed.started
        attempts.tried(failed.link.address, failed.sent, took)
        first = (failed.link, error, failed.timeout)
        try:
            if operation.kind is Kind.GET:
                got = await self._try(_get, get_request(operation.key), attempts, first)
                return got.value if got.found else None
            if operation.kind is Kind.PUT:
                put = put_request(operation.key, operation.value)
                response = await self._carry(_put, put, attempts, failed.write, first)
                return response.overwritten
            delete = delete_request(operation.key)
            return (await self._carry(_delete, delete, attempts, failed.write, first)).deleted
        finally:
            left = self._connections.give_back(failed.link)
            if left is not None:
                await self.leave(left)

    async def leave(self, server: _Server) -> None:
        """Close a connection that nobody uses any more."""
        await server.channel.close(grace=None)

    def _may_renew(self, write: Write, error: ForgottenError) -> bool:
        """Whether the write, which a session that has expired numbered, may have another id."""
        if error.refusal is not Refusal.SESSION_EXPIRED or not isinstance(write, SessionWrite):
            return False
        self._sessions.expired(write.session)
        return error.outcome is Outcome.NOT_APPLIED

    async def _open_session(self, attempts: Attempts) -> None:
        """Open the session that this call was chosen to open."""
        opened = None
        refused = False
        try:
            opened = await self._try(_open, session_pb2.OpenSessionRequest(), attempts)
        except (ResourceExhaustedError, UnsupportedError):
            refused = True
        except Error as error:
            # Whatever became of the session, the write was not sent.
            error.outcome = Outcome.NOT_APPLIED
            raise
        finally:
            self._sessions.opened(opened, refused=refused)
            attempts.renew()

    async def _try(
        self,
        method: Callable[[_Server], _Method[Request, Response]],
        request: Request,
        attempts: Attempts,
        failed: FailedTry | None = None,
    ) -> Response:
        if failed is not None:
            await asyncio.sleep(self._after(attempts, *failed))
        while True:
            time_left = attempts.next()
            try:
                connection = self._connections.take(attempts.address)
            except Error as error:
                raise attempts.unsent(error) from None
            try:
                response = await method(connection.server)(
                    request, timeout=time_left, metadata=attempts.metadata()
                )
                connection.answered()
                attempts.succeeded()
                return response
            except grpc.RpcError as error:
                delay = self._after(attempts, connection, error, time_left)
            except (asyncio.CancelledError, grpc.aio.UsageError) as error:
                # gRPC cancels the calls of a channel that close() has closed; a cancellation of
                # this very task goes on its way.
                if self._closed and not _task_is_cancelled():
                    raise attempts.ended(ClosedError(_CLOSED)) from error
                raise
            finally:
                left = self._connections.give_back(connection)
                if left is not None:
                    await self.leave(left)
            await asyncio.sleep(delay)

    def _after(
        self,
        attempts: Attempts,
        connection: Connection[_Server],
        error: grpc.RpcError,
        took_s: float,
    ) -> float:
        """Seconds to wait after a try that failed; raises when another one can't help."""
        if self._closed:
            raise attempts.ended(ClosedError(_CLOSED)) from error
        failure = understand(error)
        self._connections.failed(connection, failure, took_s)
        return attempts.failed(failure)


def _task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _put(server: _Server) -> _Method[kv_pb2.PutRequest, kv_pb2.PutResponse]:
    return server.kv.Put


def _get(server: _Server) -> _Method[kv_pb2.GetRequest, kv_pb2.GetResponse]:
    return server.kv.Get


def _delete(server: _Server) -> _Method[kv_pb2.DeleteRequest, kv_pb2.DeleteResponse]:
    return server.kv.Delete


def _status(server: _Server) -> _Method[admin_pb2.StatusRequest, admin_pb2.StatusResponse]:
    return server.admin.Status


def _members(server: _Server) -> _Method[admin_pb2.MembersRequest, admin_pb2.MembersResponse]:
    return server.admin.Members


def _change_members(
    server: _Server,
) -> _Method[admin_pb2.ChangeMembersRequest, admin_pb2.MembersResponse]:
    return server.admin.ChangeMembers


def _forget_introduction(
    server: _Server,
) -> _Method[admin_pb2.ForgetIntroductionRequest, admin_pb2.ForgetIntroductionResponse]:
    return server.admin.ForgetIntroduction


def _transfer_leadership(
    server: _Server,
) -> _Method[admin_pb2.TransferLeadershipRequest, admin_pb2.TransferLeadershipResponse]:
    return server.admin.TransferLeadership


def _open(
    server: _Server,
) -> _Method[session_pb2.OpenSessionRequest, session_pb2.OpenSessionResponse]:
    return server.sessions.Open
