"""From a handler's call to the service's callbacks, and its answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.auth_callers import Caller
from kvstore.api.handlers.etcd.auth_gate import Allowed, Gate
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.translate import header_message
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService, Header
from kvstore.service.etcd.read_calls import Gone, Read, Render
from kvstore.state.mvcc.answers import HashAnswer
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.auth_checks import check_permission
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.requests import Numbered, Operation, Range, Txn

__all__ = ["Asking", "deadline_of"]

Asked = TypeVar("Asked")

TRIES_MAX: Final = 32
"""Of a proposal that was overtaken by changes of users: those of each member come one after the
other, so that of three that make them without end each has a third of a chance a time."""

_OVERTAKEN: Final = frozenset((Reason.AUTH_OLD_REVISION, Reason.USER_EMPTY))
"""It was proposed as of users that weren't the present ones any more, and nothing was done."""


class Asking:
    """Asks for handlers, which are tasks, and raises what is wrong. On a running event loop."""

    def __init__(self, service: EtcdService, gate: Gate) -> None:
        self._service = service
        self.gate = gate
        """Who may do what."""
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()

    def header(self, revision: int | None = None) -> pb.ResponseHeader:
        """Of this moment, with the ``revision`` of an answer where it has one. Any thread."""
        return header_message(self._service.header(), revision)

    def moment(self) -> Header:
        """What stands in headers of this moment. Any thread."""
        return self._service.header()

    async def propose(
        self,
        operation: Operation,
        context: Context,
        caller: Caller | None = None,
        *,
        request: Numbered | None = None,
    ) -> Any:
        """What ``operation`` came to, which its client's session numbered ``request``. Raises
        Error.

        ``caller``: who asks, where that is known already.
        """
        return await self._propose(operation, context, caller, deadline_of(context), request)

    async def propose_in_turn(self, operation: Operation, context: Context) -> Any:
        """As :meth:`propose`, for changes of users, one after the other: each of them makes all
        others old that are under way."""
        try:
            async with asyncio.timeout(self._service.patience_s):
                await self._turn.acquire()
        except TimeoutError:
            raise EtcdError(Reason.TIMED_OUT) from None
        try:
            return await self.propose(operation, context)
        finally:
            self._turn.release()

    async def propose_unhurried(
        self, operation: Operation, context: Context, caller: Caller
    ) -> Any:
        """As :meth:`propose`, for as long as the service waits: the call may have ended."""
        return await self._propose(operation, context, caller, None, None)

    async def _propose(
        self,
        operation: Operation,
        context: Context,
        caller: Caller | None,
        deadline: float | None,
        request: Numbered | None,
    ) -> Any:
        propose = partial(self._service.propose, request=request)
        tries = 0
        while True:
            who = await self.gate.who(context, caller)
            tries += 1
            try:
                return await self.outcome(partial(propose, operation, who, deadline))
            except EtcdError as error:
                # This member has applied by now what it was overtaken by.
                if error.reason not in _OVERTAKEN or tries == TRIES_MAX:
                    raise

    async def read(
        self,
        operation: Range | Txn,
        serializable: bool,
        context: Context,
        render: Render,
        caller: Caller | None = None,
        make: MakeGathered | None = None,
    ) -> Any:
        """What ``render`` made of the answer, on the thread that read it. Raises Error.

        ``caller`` as for :meth:`propose`, ``make`` as for :meth:`EtcdService.read`.
        """

        def allowed(auth: Auth, user: str) -> None:
            check_permission(auth, user, operation)

        service, deadline = self._service, deadline_of(context)
        permit = self.gate.permit(context, allowed, caller)
        if serializable:
            await self.gate.who(context, caller)  # its token may be newer than what is here
        return await self._wanted(
            lambda done, gone: service.read(
                operation, serializable, deadline, done, render, permit, make, gone
            )
        )

    async def read_state(
        self, read: Read, context: Context, allowed: Allowed, caller: Caller | None = None
    ) -> Any:
        """What ``read`` reads of the state, linearizably and on a worker, if the caller is
        ``allowed`` it. Raises Error. ``caller`` as for :meth:`propose`."""
        service, deadline = self._service, deadline_of(context)
        permit = self.gate.permit(context, allowed, caller)
        return await self._wanted(
            lambda done, gone: service.read_state(read, False, deadline, done, permit, gone)
        )

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

    async def listing(self, job: Callable[[], Any]) -> Any:
        """What ``job`` lists, on a worker, one at a time; raises Error where too many wait."""
        return await self.outcome(partial(self._service.listing, job))

    async def outcome(self, ask: Callable[[Callable[[Any | Error], None]], None]) -> Any:
        """What ``ask`` has its callback told. Raises the Error that it is told of."""
        return await self._wanted(lambda done, gone: ask(done))

    async def _wanted(self, ask: Callable[[Callable[[Any | Error], None], Gone], None]) -> Any:
        """The same of what can ask whether its caller is gone."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(outcome: Any | Error) -> None:
            # A caller that went away has cancelled it; what was proposed is done all the same.
            if not future.done():
                future.set_result(outcome)

        ask(done, future.cancelled)
        outcome = await future
        if isinstance(outcome, Error):
            raise outcome
        return outcome


def deadline_of(context: Context) -> float | None:
    """The client's own, in seconds of the monotonic clock; None where it has none."""
    left = context.time_remaining()
    return None if left is None else monotonic() + left
