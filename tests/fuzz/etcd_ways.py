"""Three members in this process, and the ways of a call to them: plain handlers, and batches.

The handlers are those of a server; what stands in its place here has no wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import grpc
import grpc.aio

from kvstore.api.handlers.etcd.batches import FIRST, ONCE, WHOLE
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.server.config.options import ServerOptions
from kvstore.server.etcd_services import EtcdServices
from kvstore.server.nodes import embedded
from kvstore.server.nodes.embedded import EmbeddedNode

MEMBERS = 3
PATIENCE_S = 60.0
ADDRESS = "127.0.0.1:2379"
IN_BATCHES = WHOLE + ONCE

Metadata = Sequence[tuple[str, str]]


class Outcome(NamedTuple):
    """What a call ended with; ``answers`` as they go over the wire."""

    code: int
    details: str
    answers: tuple[bytes, ...] = ()


class Context:
    """The part of ``grpc.aio.ServicerContext`` that handlers use."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.outcome: tuple[int, str] = (0, "")
        self.written: list[bytes] = []

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def auth_context(self) -> dict[str, Any]:
        return {}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return None

    async def write(self, message: Any) -> None:
        self.written.append(_encoded(message))

    async def abort(self, code: Any, details: str = "", trailer: Any = ()) -> NoReturn:
        self.outcome = code.value[0], details
        raise grpc.aio.AbortError("aborted")


def _encoded(message: Any) -> bytes:
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


class Call:
    """A :class:`kvstore.api.handlers.etcd.batches.WholeCall`."""

    def __init__(self, method: int, message: bytes, metadata: Metadata) -> None:
        self.method = method
        self.message = message
        self.metadata = metadata
        self.timeout_s = inf
        self.deadline = monotonic() + 3600
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def session(self) -> object | None:
        """Of a call of the native wire: None once its client has gone."""
        return None if self.outcome.cancelled() else self

    def end(self, outcome: Outcome) -> None:
        if self.outcome.cancelled():
            return  # its client has gone
        assert not self.outcome.done(), "a call is answered once"
        self.outcome.set_result(outcome)

    def reset(self) -> None:
        self.end(Outcome(-1, "reset"))

    def fail(self, status: int, details: str, trailer: Any = ()) -> None:
        self.end(Outcome(status, details))


class Front:
    """A listener's part, and the one that answers the calls that it gave."""

    def __init__(self) -> None:
        self.handlers: list[Any] = []
        self.take: Callable[[list[Any]], None] = lambda calls: None

    # For the services.

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self.handlers += handlers

    def add_whole_methods(self, whole: Any, once: Any, take: Callable[[list[Any]], None]) -> Front:
        assert (*whole, *once) == IN_BATCHES
        self.take = take
        return self

    # For the batches.

    def answer(self, calls: list[Call], results: list[Any]) -> list[int]:
        left = []
        for place, (call, result) in enumerate(zip(calls, results, strict=True)):
            if isinstance(result, bytes):
                call.end(Outcome(0, "", (result,)))
            else:
                left.append(place)
        return left

    def end(self, call: Call, answer: Callable[[Call], None]) -> None:
        answer(call)

    def refuse_unread(self, call: Call) -> None:
        call.fail(14, "unread")

    def caller(self, call: Call) -> tuple[Any, str]:
        return {}, "ipv4:127.0.0.1:1"


class Members:
    """They, and what calls are made by. On a running event loop; the caller may do everything."""

    def __init__(self, directory: Path) -> None:
        options = ServerOptions(data_dir=str(directory))
        with mock.patch.object(embedded, "MEMBERS", MEMBERS):
            self.node = EmbeddedNode(directory, options)
        self._front = Front()
        anybody = Rights(lambda context: True, lambda context: True)
        self._services = EtcdServices(self.node, ADDRESS, anybody)
        self._services.add(self._front)
        self._services.take_batches(self._front)  # type: ignore[arg-type]

    @property
    def replicas(self) -> Sequence[Any]:
        return self.node.figures().replicas

    async def serve(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not (self.node.leader() and self.node.etcd.machine is not None):
                await asyncio.sleep(0.01)
            while (await self.plain(IN_BATCHES[1], (b"\n\x01a",))).code:  # a Put of "a"
                await asyncio.sleep(0.01)

    async def plain(self, path: str, requests: Sequence[bytes], metadata: Metadata = ()) -> Outcome:
        """A call by its handler; one that streams has ended when its requests have."""
        context = Context(metadata)
        details = SimpleNamespace(method=path, invocation_metadata=metadata)
        handler = next(filter(None, (one.service(details) for one in self._front.handlers)))
        answers: tuple[bytes, ...] = ()
        try:
            if handler.unary_unary:
                answers = (_encoded(await handler.unary_unary(requests[0], context)),)
            elif handler.unary_stream:
                await handler.unary_stream(requests[0], context)
            else:
                await handler.stream_stream(_all(requests), context)
        except grpc.aio.AbortError:
            return Outcome(*context.outcome)
        return Outcome(0, "", answers or tuple(context.written))

    async def in_batch(
        self, path: str, requests: Sequence[bytes], metadata: Metadata = ()
    ) -> Outcome:
        """A call as the native front gives it."""
        call = Call(FIRST + IN_BATCHES.index(path), requests[0], metadata)
        self._front.take([call])
        return await call.outcome

    async def settle(self) -> None:
        """Until all members have applied what there is."""
        async with asyncio.timeout(PATIENCE_S):
            while len({(one.status().applied, one.last_log) for one in self.replicas}) > 1 or any(
                one.status().applied < one.last_log[1] for one in self.replicas
            ):
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self._services.close()
        await self.node.close()


async def _all(requests: Sequence[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request
