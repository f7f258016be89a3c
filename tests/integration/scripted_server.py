"""A KV server that answers as a script says: for what a healthy kvd does too seldom to test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NoReturn, Self

import grpc

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc, session_pb2, session_pb2_grpc

Answer = Callable[[grpc.ServicerContext], bool]


def value(answer: bool) -> Answer:
    """Answer a write with this outcome."""
    return lambda context: answer


def fails(code: grpc.StatusCode, details: str = "", **metadata: str) -> Answer:
    """Answer with a status; metadata names have ``_`` for ``-``."""
    trailer = tuple((name.replace("_", "-"), text) for name, text in metadata.items())

    def answer(context: grpc.ServicerContext) -> NoReturn:
        context.set_trailing_metadata(trailer)
        context.abort(code, details)

    return answer


class _Sessions(session_pb2_grpc.SessionsServicer):
    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = list(answers)
        self.opened = 0

    def Open(  # type: ignore[override]
        self, request: session_pb2.OpenSessionRequest, context: grpc.ServicerContext
    ) -> session_pb2.OpenSessionResponse:
        self.answers.pop(0)(context)
        self.opened += 1
        return session_pb2.OpenSessionResponse(
            session=f"{self.opened:032x}", idle_timeout_ms=3_600_000, window=256
        )


class ScriptedServer(kv_pb2_grpc.KVServicer):
    """Takes its answers from a list, one a call, and remembers what it was asked.

    ``sessions``: the same for sessions to open, which get the numbers 1, 2, ... for names; without
    it the server is one that has none.
    """

    def __init__(
        self, answers: Iterable[Answer] = (), *, sessions: Iterable[Answer] | None = None
    ) -> None:
        self.answers = list(answers)
        self.metadata: list[dict[str, str | bytes]] = []
        self.request_ids: list[str] = []
        self.deadlines_s: list[float] = []
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        kv_pb2_grpc.add_KVServicer_to_server(self, self._server)
        if sessions is not None:
            session_pb2_grpc.add_SessionsServicer_to_server(_Sessions(sessions), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, request_id: str, context: grpc.ServicerContext) -> bool:
        self.request_ids.append(request_id)
        self.deadlines_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        return self.answers.pop(0)(context)

    def Put(  # type: ignore[override]
        self, request: kv_pb2.PutRequest, context: grpc.ServicerContext
    ) -> kv_pb2.PutResponse:
        return kv_pb2.PutResponse(overwritten=self._answer(request.request_id, context))

    def Get(  # type: ignore[override]
        self, request: kv_pb2.GetRequest, context: grpc.ServicerContext
    ) -> kv_pb2.GetResponse:
        found = self._answer("", context)
        return kv_pb2.GetResponse(found=found, value=b"value" if found else b"")

    def Delete(  # type: ignore[override]
        self, request: kv_pb2.DeleteRequest, context: grpc.ServicerContext
    ) -> kv_pb2.DeleteResponse:
        return kv_pb2.DeleteResponse(deleted=self._answer(request.request_id, context))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop(grace=None).wait()
