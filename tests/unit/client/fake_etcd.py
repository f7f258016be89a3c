"""A server of etcd's API that does what a test says, in the test's own loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, NoReturn, Self, cast

import grpc
import grpc.aio

from kvstore.api.etcd import etcd_pb2
from kvstore.api.etcd.methods import SERVICES
from kvstore.api.v1 import session_pb2, session_pb2_grpc

Context = Any
Answer = Callable[[Any, Context], Awaitable[Any]]


class WatchSession:
    """One Watch stream, from the server's side."""

    def __init__(self, requests: AsyncIterator[etcd_pb2.WatchRequest], context: Context) -> None:
        self._requests = requests
        self._context = context
        self.metadata = dict(context.invocation_metadata())

    async def request(self) -> etcd_pb2.WatchRequest:
        """What comes next."""
        return await anext(self._requests)

    async def create(self, revision: int = 1) -> etcd_pb2.WatchCreateRequest:
        """Take a watch, as at that revision."""
        created = (await self.request()).create_request
        await self.send(watch_id=created.watch_id, created=True, revision=revision)
        return created

    async def cancelled(self) -> int:
        """The id of the watch that is taken back."""
        request = await self.request()
        assert request.HasField("cancel_request"), request
        await self.send(watch_id=request.cancel_request.watch_id, canceled=True, revision=1)
        return request.cancel_request.watch_id

    async def send(
        self, *events: etcd_pb2.Event, revision: int = 0, watch_id: int = 1, **fields: Any
    ) -> None:
        header = etcd_pb2.ResponseHeader(
            revision=revision or (events[-1].kv.mod_revision if events else 0)
        )
        await self._context.write(
            etcd_pb2.WatchResponse(header=header, watch_id=watch_id, events=events, **fields)
        )

    async def fail(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        await self._context.abort(code, details)
        raise AssertionError

    async def stay(self) -> None:
        """Until the client ends it, whatever else it asks for."""
        async for _ in self._requests:
            pass
        await asyncio.Event().wait()


class _Sessions:
    def __init__(self, opens: list[session_pb2.OpenSessionResponse]) -> None:
        self._opens = opens

    async def Open(self, request: Any, context: Context) -> session_pb2.OpenSessionResponse:
        return self._opens.pop(0)


Session = Callable[[WatchSession], Coroutine[Any, Any, None]]


class FakeEtcd:
    """``answers``: what each unary method does, by its name, or a list of what it does one after
    the other; ``sessions``: likewise, of Watch streams; ``keep_alive``: the TTL for an id;
    ``opens``: what kvd answers who opens a session, for this to be kvd."""

    def __init__(
        self,
        *sessions: Session,
        keep_alive: Callable[[int], Awaitable[int]] | None = None,
        opens: list[session_pb2.OpenSessionResponse] | None = None,
        **answers: Answer | list[Answer],
    ) -> None:
        self.sessions = deque(sessions)
        self.keep_alive = keep_alive
        self.opens = opens
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for service, methods in SERVICES.items():
            handlers = {}
            for name, shape in methods.items():
                if name == "Watch":
                    handlers[name] = grpc.stream_stream_rpc_method_handler(
                        self._watch, shape.request.FromString, shape.response.SerializeToString
                    )
                elif name == "LeaseKeepAlive":
                    handlers[name] = grpc.stream_stream_rpc_method_handler(
                        self._renew, shape.request.FromString, shape.response.SerializeToString
                    )
                elif not (shape.streams_in or shape.streams_out):
                    handlers[name] = grpc.unary_unary_rpc_method_handler(
                        self._unary(name),
                        shape.request.FromString,
                        shape.response.SerializeToString,
                    )
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        if self.opens is not None:
            services = cast("session_pb2_grpc.SessionsServicer", _Sessions(self.opens))
            session_pb2_grpc.add_SessionsServicer_to_server(services, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.stop(grace=None)

    def _unary(self, name: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            self.asked.append((name, request))
            self.metadata.append(dict(context.invocation_metadata()))
            answer = self.answers.get(name)
            if isinstance(answer, list):
                answer = answer.pop(0)
            if answer is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no {name} in this test")
                raise AssertionError
            return await answer(request, context)

        return handle

    async def _watch(self, requests: AsyncIterator[Any], context: Context) -> None:
        if not self.sessions:
            await asyncio.Event().wait()
        await self.sessions.popleft()(WatchSession(requests, context))

    async def _renew(self, requests: AsyncIterator[Any], context: Context) -> None:
        async for request in requests:
            self.asked.append(("LeaseKeepAlive", request))
            assert self.keep_alive is not None
            ttl = await self.keep_alive(request.ID)
            await context.write(etcd_pb2.LeaseKeepAliveResponse(ID=request.ID, TTL=ttl))


def event(revision: int, key: bytes, value: bytes = b"v") -> etcd_pb2.Event:
    """A put of a new key."""
    return etcd_pb2.Event(
        kv=etcd_pb2.KeyValue(
            key=key, value=value, mod_revision=revision, create_revision=revision, version=1
        )
    )


def answer(response: Any) -> Answer:
    async def give(request: Any, context: Context) -> Any:
        return response

    return give


def refuse(code: grpc.StatusCode, details: str) -> Answer:
    async def abort(request: Any, context: Context) -> Any:
        await context.abort(code, details)

    return abort


def header(revision: int) -> etcd_pb2.ResponseHeader:
    return etcd_pb2.ResponseHeader(revision=revision)
