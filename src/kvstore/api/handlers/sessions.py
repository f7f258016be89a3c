"""``kvstore.v1.Sessions`` over a :class:`kvstore.service.operations.Service`."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.api.handlers.calls import Calls, Context, Forward
from kvstore.api.handlers.guard import Guard
from kvstore.api.v1 import session_pb2, session_pb2_grpc
from kvstore.service.limits import SESSION_IDLE_MS, SESSION_WINDOW
from kvstore.service.operations import OpenSession, Service

__all__ = ["SessionsHandlers"]


class SessionsHandlers(session_pb2_grpc.SessionsServicer):
    """Opening a session is a write: it is answered once it is committed."""

    def __init__(
        self,
        service: Service,
        forward: Forward | None = None,
        guard: Guard | None = None,
        *,
        numbers_operations: Callable[[], bool] = lambda: False,
    ) -> None:
        """``forward`` and ``guard`` as for :class:`kvstore.api.handlers.kv.KVHandlers`.
        ``numbers_operations``: whether all members know sequences of operations of etcd's API,
        which this one serves."""
        self._calls = Calls(service, forward, guard)
        self._numbers_operations = numbers_operations

    async def Open(
        self, request: session_pb2.OpenSessionRequest, context: Context
    ) -> session_pb2.OpenSessionResponse:
        result = await self._calls.result(OpenSession(), context)
        response: session_pb2.OpenSessionResponse
        if isinstance(result, bytes):
            response = session_pb2.OpenSessionResponse(
                session=result.decode(), idle_timeout_ms=SESSION_IDLE_MS, window=SESSION_WINDOW
            )
        else:
            response = await self._calls.elsewhere("Open", request, result, context)
        # Whoever opened it: the client asked here.
        response.operations = self._numbers_operations()
        return response
