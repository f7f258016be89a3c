"""First tries of operations over the native wire, begun without a task and ended without a future.

Where hundreds are under way that is half of what an operation costs. What doesn't go well at the
first try goes on in a task, by the rules of all calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import grpc
import grpc.aio

from kvstore.api.v1 import kv_pb2
from kvstore.client.attempts import seconds_of_the_world, try_seconds
from kvstore.client.calls import Calls, Told
from kvstore.client.connections import Connection
from kvstore.client.many import Flight
from kvstore.client.operations import Kind, Operation, Result
from kvstore.client.options import checked_timeout
from kvstore.client.sessions import SessionWrite
from kvstore.errors import Error, InvalidArgumentError
from kvstore.wire.errors import Metadata, RpcError, status_code

__all__ = ["QuickTry", "Rules", "Tries"]

_PATHS = {
    Kind.PUT: "/kvstore.v1.KV/Put",
    Kind.GET: "/kvstore.v1.KV/Get",
    Kind.DELETE: "/kvstore.v1.KV/Delete",
}


class Rules(Protocol):
    """What a client does in a task."""

    async def put(self, key: bytes, value: bytes, *, timeout: float | None) -> bool: ...
    async def get(self, key: bytes, *, timeout: float | None) -> bytes | None: ...
    async def delete(self, key: bytes, *, timeout: float | None) -> bool: ...
    async def go_on(self, failed: QuickTry, error: grpc.RpcError) -> Result:
        """Go on with what failed at its first try."""

    async def leave(self, server: Any) -> None:
        """Close a connection that nobody uses any more."""


class QuickTry:
    """One try: what the channel needs to know of it, and what to go on with if it fails."""

    __slots__ = (
        "_tries",
        "connection",
        "deadline",
        "flight",
        "half_closed",
        "link",
        "message",
        "metadata",
        "operation",
        "path",
        "repeats",
        "sent",
        "size",
        "started",
        "stream",
        "timeout",
        "unary",
        "wait_for_ready",
        "write",
    )

    def __init__(
        self,
        tries: Tries,
        flight: Flight,
        operation: Operation,
        message: bytes,
        write: SessionWrite | None,
        link: Connection[Any],
        started: float,
        timeout: float,
        metadata: Metadata,
    ) -> None:
        self._tries = tries
        self.flight = flight
        self.operation = operation
        self.write = write
        self.link = link
        self.started = started
        self.sent = seconds_of_the_world()
        self.path = _PATHS[operation.kind]
        self.metadata = metadata
        self.message: bytes | None = message
        self.size = len(message)
        self.unary = True
        self.half_closed = True
        self.wait_for_ready = False
        self.timeout = timeout
        self.deadline = started + timeout
        self.connection: Any = None
        self.stream = 0
        self.repeats = 0

    def answered(
        self, status: int, message: bytes | None, details: str, trailer: Metadata, initial: Metadata
    ) -> None:
        if status or message is None:
            code = status_code(status) if status else grpc.StatusCode.INTERNAL
            self.failed(RpcError(code, details, trailer, initial))
            return
        try:
            result = _result(self.operation.kind, message)
        except Exception as error:  # noqa: BLE001 - whatever a parser makes of bad bytes
            details = f"the server's answer can't be read: {error}"
            self.failed(RpcError(grpc.StatusCode.INTERNAL, details))
            return
        self.operation.begun = None
        self.link.answered()
        self._tries.succeeded(self)
        self.flight.landed(self.operation, result)

    def failed(self, error: RpcError) -> None:
        self.operation.begun = None
        self._tries.failed(self)
        self.flight.go_on(self.operation, self._tries.rules.go_on(self, error))

    def cancel(self) -> bool:
        """The channel is closed."""
        self.link.server.channel.drop(self)
        self.failed(RpcError(grpc.StatusCode.CANCELLED, "the channel was closed"))
        return True

    def began(self) -> None: ...

    def headers(self, initial: Metadata) -> None: ...

    def received(self, message: bytes) -> None: ...

    def finished(self, status: int, details: str, trailer: Metadata) -> None: ...

    def writable(self) -> None: ...


def _result(kind: Kind, message: bytes) -> Result:
    if kind is Kind.GET:
        got = kv_pb2.GetResponse.FromString(message)
        return got.value if got.found else None
    if kind is Kind.PUT:
        return kv_pb2.PutResponse.FromString(message).overwritten
    return kv_pb2.DeleteResponse.FromString(message).deleted


class Tries:
    """How a client does many operations: a :class:`kvstore.client.many.Doer`."""

    def __init__(self, rules: Rules, calls: Calls, *, quick: bool) -> None:
        """``quick``: whether the connections are those of the native wire."""
        self.rules = rules
        self._calls = calls
        self._quick = quick

    def opens_session(self, operation: Operation) -> bool:
        return operation.kind is not Kind.GET and self._calls.sessions.wanted

    def told(self, operation: str) -> AbstractContextManager[Told | None]:
        return self._calls.told(operation)

    def seconds(self, timeout: float | None) -> float:
        return checked_timeout(timeout, self._calls.timeout)

    def begin(self, operation: Operation, flight: Flight, now: float) -> bool:
        if not self._quick or self._calls.login.wanted:
            return False
        kind = operation.kind
        key = operation.key
        if self._calls.namespace is not None:
            try:
                key = self._calls.namespace.key(key)
            except InvalidArgumentError:
                return False  # and be told why there
        write = None
        if kind is Kind.GET:
            message = kv_pb2.GetRequest(key=key).SerializeToString()
        else:
            write = self._calls.sessions.number()
            if write is None:
                return False
            message = _write_message(operation, key, write.request_id)
        if not self._calls.gate.try_enter(len(message)):
            if write is not None:
                write.done()
            return False  # and wait there
        try:
            link: Connection[Any] = self._calls.connections.take(self._calls.endpoints.preferred)
        except Error:
            self._calls.gate.leave(len(message))
            if write is not None:
                write.done()
            return False  # and be told why there
        timeout = try_seconds(self._calls.endpoints, self._calls.policy, flight.timeout)
        operation.begun = quick = QuickTry(
            self, flight, operation, message, write, link, now, timeout, self._calls.login.metadata
        )
        link.server.channel.start(quick)
        return True

    async def do(self, operation: Operation, timeout: float) -> Result:
        if operation.kind is Kind.PUT:
            return await self.rules.put(operation.key, operation.value, timeout=timeout)
        if operation.kind is Kind.GET:
            return await self.rules.get(operation.key, timeout=timeout)
        return await self.rules.delete(operation.key, timeout=timeout)

    def abandon(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            quick = operation.begun
            if quick is not None:
                operation.begun = None
                quick.link.server.channel.drop(quick)
                self.ended(quick)

    def succeeded(self, quick: QuickTry) -> None:
        """It was answered well."""
        self._calls.endpoints.budget.succeeded()
        self.ended(quick)

    def failed(self, quick: QuickTry) -> None:
        """Another try of it follows, in a task."""
        self._calls.gate.leave(quick.size)

    def ended(self, quick: QuickTry) -> None:
        """It was answered, or nobody waits for it any more."""
        self._calls.gate.leave(quick.size)
        if quick.write is not None:
            quick.write.done()
        left = self._calls.connections.give_back(quick.link)
        if left is not None:
            quick.flight.spawn(self.rules.leave(left))


def _write_message(operation: Operation, key: bytes, request_id: str) -> bytes:
    if operation.kind is Kind.PUT:
        return kv_pb2.PutRequest(
            key=key, value=operation.value, request_id=request_id
        ).SerializeToString()
    return kv_pb2.DeleteRequest(key=key, request_id=request_id).SerializeToString()
