"""From a handler's call to the service's callbacks, and its answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.translate import header_message
from kvstore.errors import Error
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.reads import Read, Render
from kvstore.state.mvcc.answers import HashAnswer
from kvstore.state.mvcc.requests import Numbered, Operation, Range, Txn

__all__ = ["Asking", "deadline_of"]

Asked = TypeVar("Asked")


class Asking:
    """Asks for handlers, which are tasks, and raises what is wrong. On a running event loop."""

    def __init__(self, service: EtcdService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()

    def header(self, revision: int | None = None) -> pb.ResponseHeader:
        """Of this moment, with the ``revision`` of an answer where it has one. Any thread."""
        return header_message(self._service.header(), revision)

    async def propose(
        self, operation: Operation, context: Context, *, request: Numbered | None = None
    ) -> Any:
        """What ``operation`` came to, which its client's session numbered ``request``. Raises
        Error."""
        propose = partial(self._service.propose, request=request)
        return await self.outcome(partial(propose, operation, None, deadline_of(context)))

    async def propose_unhurried(self, operation: Operation) -> Any:
        """As :meth:`propose`, for as long as the service waits: the call may have ended."""
        return await self.outcome(partial(self._service.propose, operation, None, None))

    async def read(
        self, operation: Range | Txn, serializable: bool, context: Context, render: Render
    ) -> Any:
        """What ``render`` made of the answer, on the thread that read it. Raises Error."""
        service, deadline = self._service, deadline_of(context)
        return await self.outcome(
            lambda done: service.read(operation, serializable, deadline, done, render)
        )

    async def read_state(self, read: Read, context: Context) -> Any:
        """What ``read`` reads of the state, linearizably and on a worker. Raises Error."""
        service, deadline = self._service, deadline_of(context)
        return await self.outcome(lambda done: service.read_state(read, False, deadline, done))

    async def read_point(self, context: Context) -> None:
        """Return once what was acknowledged before is applied here. Raises Error."""
        await self.outcome(partial(self._service.read_point, deadline_of(context)))

    async def reclaim(self) -> None:
        """Return once the room of what is compacted is free, on this member. Raises Error."""
        await self.outcome(self._service.reclaim)

    async def hash_kv(self, revision: int) -> HashAnswer:
        """The hash of what this member has up to ``revision``, 0 for the current one."""
        hashed = await self.outcome(partial(self._service.hash_kv, revision))
        assert isinstance(hashed, HashAnswer)
        return hashed

    async def outcome(self, ask: Callable[[Callable[[Any | Error], None]], None]) -> Any:
        """What ``ask`` has its callback told. Raises the Error that it is told of."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(outcome: Any | Error) -> None:
            # A caller that went away has cancelled it; what was proposed is done all the same.
            if not future.done():
                future.set_result(outcome)

        ask(done)
        outcome = await future
        if isinstance(outcome, Error):
            raise outcome
        return outcome


def deadline_of(context: Context) -> float | None:
    """The client's own, in seconds of the monotonic clock; None where it has none."""
    left = context.time_remaining()
    return None if left is None else monotonic() + left
