"""Calls of a client: tries over its addresses, until it works, can't work or the time is up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from kvstore.api.etcd import etcd_pb2
from kvstore.api.metadata_keys import REQUEST_KEY
from kvstore.api.v1 import admin_pb2, kv_pb2, session_pb2
from kvstore.client.attempts import Attempts, Endpoints, Metadata, seconds_of_the_world
from kvstore.client.channels import dialler
from kvstore.client.connections import Connection, Connections
from kvstore.client.failure import Failure, understand
from kvstore.client.gate import Gate
from kvstore.client.login import Login
from kvstore.client.logs import log
from kvstore.client.namespaces import Namespace, enter, namespace_of
from kvstore.client.options import DEFAULT_TIMEOUT_S, RetryPolicy, checked_timeout
from kvstore.client.servers import Method, Server
from kvstore.client.sessions import PlainWrite, Sessions, SessionWrite, Write
from kvstore.client.urls import Target
from kvstore.errors import (
    ClosedError,
    ConfigurationError,
    Error,
    ForgottenError,
    InvalidArgumentError,
    Outcome,
    PermissionDeniedError,
    Refusal,
    RefusedError,
    ResourceExhaustedError,
    UnsupportedError,
)

__all__ = ["CLOSED", "Calls", "FailedTry", "task_is_cancelled"]

Request = TypeVar("Request")
WriteRequest = TypeVar("WriteRequest", kv_pb2.PutRequest, kv_pb2.DeleteRequest)
Response = TypeVar("Response")

# A try that failed: over what, how, and the seconds that it had.
FailedTry: TypeAlias = "tuple[Connection[Server], grpc.RpcError, float]"

CLOSED = "the client was closed during the call"
OTHER_LOOP = "an AsyncClient belongs to the event loop of its first call: make one in each"


class Told(Protocol):
    """Who is told of many operations."""

    def many(self, operations: int) -> None:
        """So many were done."""


class Calls:
    """What a client has to its servers. For the loop of the first call alone."""

    carries_context = False
    """Whether what is done for a caller needs to know the context that it calls in."""

    def __init__(
        self,
        target: Target,
        *,
        retry: RetryPolicy | None,
        dial: Callable[[str], grpc.aio.Channel] | None = None,
    ) -> None:
        """``dial``: what makes a channel to an address, if not what ``target`` says.

        Raises ConfigurationError; InvalidArgumentError for a timeout that is no positive number.
        """
        self.endpoints = Endpoints(target.addresses)
        self.timeout = checked_timeout(target.timeout, DEFAULT_TIMEOUT_S)
        self.policy = retry or RetryPolicy()
        self.closed = False
        self.namespace = namespace_of(target.namespace)
        dial = dial or dialler(target.transport, target.tls)
        self.connections = Connections(partial(_connect, dial, self.namespace), target.tls)
        self.gate = Gate()
        self.sessions = Sessions()
        self.login = Login(target.user, target.password)
        self._logging_in = asyncio.Lock()
        self.clock: Callable[[], float] = seconds_of_the_world
        """By which leases are held."""

    async def call(
        self,
        method: Callable[[Server], Method[Request, Response]],
        request: Request,
        timeout: float | None,
        *,
        policy: RetryPolicy | None = None,
    ) -> Response:
        """A call that reads, or may be done twice."""
        timeout = checked_timeout(timeout, self.timeout)
        attempts = Attempts(self.endpoints, policy or self.policy, timeout)
        return await self.tried(method, request, attempts)

    async def write_again(
        self,
        method: Callable[[Server], Method[Request, Response]],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """A call that writes, and does the same however often it is done."""
        timeout = checked_timeout(timeout, self.timeout)
        attempts = Attempts(self.endpoints, self.policy, timeout, writes=True)
        return await self.tried(method, request, attempts)

    async def operate(
        self,
        method: Callable[[Server], Method[Request, Response]],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """A call of etcd's API that writes, and is applied once: its session numbers it.

        A server that isn't known to know such numbers, as etcd, is sent it again only while no try
        may have been applied; raises OutcomeUnknownError once one may have been.
        """
        timeout = checked_timeout(timeout, self.timeout)
        attempts = Attempts(self.endpoints, self.policy, timeout, writes=True)
        while True:
            write = await self._number(attempts)
            if write is None:
                attempts.only_once()
                return await self.tried(method, request, attempts)
            attempts.request_id = write.request_id
            number = ((REQUEST_KEY, write.request_id),)
            try:
                return await self.tried(method, request, attempts, number=number)
            except ForgottenError as error:
                if not self._may_renew(write, error):
                    raise
                attempts.renew()
            finally:
                write.done()

    async def _number(self, attempts: Attempts) -> SessionWrite | None:
        """A number for a call of etcd's API; None where there is none to be had."""
        sessions = self.sessions
        while True:
            if sessions.claim_for_operation():
                await self._open_session(attempts)
            write = sessions.number_operation()
            if write is not None or not sessions.may_number or not attempts.left:
                return write
            freed = asyncio.get_running_loop().create_future()
            sessions.await_number(partial(_resolve, freed))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(freed, attempts.left)

    async def write(
        self,
        method: Callable[[Server], Method[WriteRequest, Response]],
        request: WriteRequest,
        request_id: str | None,
        retry: bool,
        timeout: float | None,
    ) -> Response:
        """A call that writes under an id, which it gets here, and is applied once."""
        timeout = checked_timeout(timeout, self.timeout)
        if retry and request_id is None:
            raise InvalidArgumentError("retry needs the request_id that was sent before")
        attempts = Attempts(self.endpoints, self.policy, timeout, writes=True, sent_before=retry)
        write = None if request_id is None else PlainWrite(request_id)
        return await self.carried(method, request, attempts, write)

    async def carried(
        self,
        method: Callable[[Server], Method[WriteRequest, Response]],
        request: WriteRequest,
        attempts: Attempts,
        write: Write | None,
        failed: FailedTry | None = None,
    ) -> Response:
        """Write under the id that there is, if any, after a first try of it that ``failed``."""
        while True:
            if write is None:
                if self.sessions.claim():
                    await self._open_session(attempts)
                write = self.sessions.begin()
            request.request_id = attempts.request_id = write.request_id
            try:
                return await self.tried(method, request, attempts, failed)
            except ForgottenError as error:
                if not self._may_renew(write, error):
                    raise
                attempts.renew()
            finally:
                write.done()
            write = failed = None

    async def save_snapshot(
        self, stale: bool, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a backup's pieces; members are only changed before the first."""
        attempts = Attempts(self.endpoints, self.policy, checked_timeout(timeout, self.timeout))
        request = admin_pb2.SaveSnapshotRequest(stale=stale)
        begun = False
        while True:
            time_left = attempts.next()
            metadata = await self._identity(attempts)
            connection = self.connections.take(attempts.address)
            call = None
            try:
                # It reads all of its tables before the first piece, which has no bound for that:
                # that it is there it says before.
                await _answers(connection.server, time_left)
                call = connection.server.admin.SaveSnapshot(request, metadata=metadata)
                async for response in call:
                    begun = True
                    yield response.data
                return
            except grpc.RpcError as error:
                if self.closed:
                    raise ClosedError(CLOSED) from error
                failure = understand(error)
                if begun:
                    raise attempts.unsent(failure.error) from error
                self.connections.failed(connection, failure)
                delay = attempts.failed(failure)
            except (asyncio.CancelledError, grpc.aio.UsageError) as error:
                if self.closed and not task_is_cancelled():
                    raise ClosedError(CLOSED) from error
                raise
            finally:
                if call is not None:
                    call.cancel()
                await self.give_back(connection)
            await asyncio.sleep(delay)

    async def tried(
        self,
        method: Callable[[Server], Method[Request, Response]],
        request: Request,
        attempts: Attempts,
        failed: FailedTry | None = None,
        number: Metadata = (),
    ) -> Response:
        """Try as long as the plan says, after a first try that ``failed``.

        ``number``: of a call of etcd's API, as each try says it.
        """
        if failed is not None:
            await asyncio.sleep(self._after(attempts, *failed, self.login.metadata))
        login = self.login
        # What renews leases is a stream of many, and waits for nobody: they would be lost.
        gate = self.gate if isinstance(request, Message) else Gate()
        size = request.ByteSize() if isinstance(request, Message) else 0
        while True:
            identity = await self._identity(attempts) if login.wanted else login.metadata
            if not gate.try_enter(size):
                await self._turn(size, attempts)
            connection = None
            try:
                time_left = attempts.next()
                metadata = attempts.metadata()
                if identity or number:
                    metadata = (*(metadata or ()), *identity, *number)
                connection = self.connections.take(attempts.address)
                response = await method(connection.server)(
                    request, timeout=time_left, metadata=metadata
                )
                connection.answered()
                attempts.succeeded()
                return response
            except grpc.RpcError as error:
                assert connection is not None
                delay = self._after(attempts, connection, error, time_left, identity)
            except Error as error:  # before it was sent
                attempts.unsent(error)
                raise
            except asyncio.CancelledError as error:
                # gRPC cancels the calls of a channel that close() has closed; a cancellation of
                # this very task goes on its way.
                if self.closed and not task_is_cancelled():
                    raise attempts.ended(ClosedError(CLOSED)) from error
                raise
            except grpc.aio.UsageError as error:
                if self.closed:
                    raise attempts.ended(ClosedError(CLOSED)) from error
                raise attempts.unsent(ConfigurationError(OTHER_LOOP)) from error
            finally:
                gate.leave(size)
                if connection is not None:
                    await self.give_back(connection)
            await asyncio.sleep(delay)

    async def _turn(self, size: int, attempts: Attempts) -> None:
        """Wait until a try may begin."""
        try:
            await self.gate.enter(size, attempts.left)
        except TimeoutError:
            raise attempts.out_of_time() from None

    async def identity(self) -> Metadata:
        """What says who calls, for a call that is tried elsewhere. Raises as calls do."""
        return await self._identity(Attempts(self.endpoints, self.policy, self.timeout))

    async def give_back(self, connection: Connection[Server]) -> None:
        """A call over it has ended."""
        left = self.connections.give_back(connection)
        if left is not None:
            await left.channel.close(grace=None)

    def told(self, operation: str) -> AbstractContextManager[Told | None]:
        """Entered while many operations are done, for whoever is told of that."""
        return nullcontext()

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self.closed = True
        for server in self.connections.close():
            await server.channel.close(grace=None)

    async def _identity(self, attempts: Attempts) -> Metadata:
        """What says who calls: a token that the server gives for user and password."""
        login = self.login
        try:
            async with asyncio.timeout(attempts.left), self._logging_in:
                if login.wanted:  # and no other call has got one meanwhile
                    login.given(await self._authenticate())
        except Error as error:
            attempts.unsent(error)
            raise
        except TimeoutError:
            pass  # as the next try will say
        return login.metadata

    async def _authenticate(self) -> str:
        """Ask for a token; empty: the server wants none."""
        request = etcd_pb2.AuthenticateRequest(name=self.login.user, password=self.login.password)
        attempts = Attempts(self.endpoints, self.policy, self.timeout)
        while True:
            time_left = attempts.next()
            connection = self.connections.take(attempts.address)
            try:
                method = connection.server.etcd.authenticate
                answer = await method(request, timeout=time_left, metadata=None)
                return answer.token
            except grpc.RpcError as error:
                try:
                    delay = self._after(attempts, connection, error, time_left, ())
                except RefusedError:
                    return ""  # authentication is not enabled
            finally:
                await self.give_back(connection)
            await asyncio.sleep(delay)

    def _may_renew(self, write: Write, error: ForgottenError) -> bool:
        """Whether the write, which a session that has expired numbered, may have another id."""
        if error.refusal is not Refusal.SESSION_EXPIRED or not isinstance(write, SessionWrite):
            return False
        self.sessions.expired(write.session)
        return error.outcome is Outcome.NOT_APPLIED

    async def _open_session(self, attempts: Attempts) -> None:
        """Open the session that this call was chosen to open."""
        opened = None
        refused = False
        try:
            opened = await self.tried(
                lambda server: server.sessions.Open, session_pb2.OpenSessionRequest(), attempts
            )
        except (PermissionDeniedError, ResourceExhaustedError, UnsupportedError):
            refused = True
        except Error as error:
            # Whatever became of the session, the write was not sent.
            error.outcome = Outcome.NOT_APPLIED
            raise
        finally:
            self.sessions.opened(opened, refused=refused)
            attempts.renew()

    def _after(
        self,
        attempts: Attempts,
        connection: Connection[Server],
        error: grpc.RpcError,
        took_s: float,
        identity: Metadata,
    ) -> float:
        """Seconds to wait after a try that failed; raises when another one can't help."""
        if self.closed:
            raise attempts.ended(ClosedError(CLOSED)) from error
        failure = self.understood(error, identity)
        self.connections.failed(connection, failure, took_s)
        pause = attempts.failed(failure)
        log.debug("%s: %s; again in %.3f s", connection.address, failure.error, pause)
        return pause

    def understood(self, error: grpc.RpcError, identity: Metadata) -> Failure:
        """What a failed try with that identity means."""
        failure = understand(error)
        if failure.unauthenticated and self.login.known:
            # A token lasts for minutes, and until users are changed: another try has a new one.
            self.login.refused(identity)
            return Failure(failure.error, retry=True, not_applied=True)
        return failure


def _connect(
    dial: Callable[[str], grpc.aio.Channel], namespace: Namespace | None, address: str
) -> Server:
    server = Server(address, dial)
    return server if namespace is None else enter(server, namespace)


async def _answers(server: Server, timeout: float) -> None:
    """Return once it has answered, whatever it was. Raises RpcError."""
    try:
        await server.health(b"", timeout=timeout, metadata=None)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def task_is_cancelled() -> bool:
    """Whether it is this very task that was cancelled, and not just a call of it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
