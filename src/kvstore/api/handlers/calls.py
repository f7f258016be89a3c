"""From a call to an operation's result, and from an error to a call's end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc.aio
import structlog

from kvstore.api.handlers.failures import Failure, failure_of
from kvstore.api.handlers.guard import Guard
from kvstore.api.handlers.metadata import Said, passed_on
from kvstore.errors import Error, InternalError, NotLeaderError
from kvstore.service.operations import Operation, Result, Service

__all__ = ["Calls", "Context", "Forward"]

# How long a call may take that says nothing about it.
DEFAULT_DEADLINE_S = 10.0

log = structlog.get_logger("kvstore.api")

Context = grpc.aio.ServicerContext[Any, Any]

# (method, request, leader, seconds left, metadata) -> the leader's response, a Failure to end with,
# or None.
Forward = Callable[[str, Any, int, float, Said], Awaitable[Any]]


class Calls:
    """Submits what handlers are asked, and ends the calls that get no result here."""

    def __init__(
        self, service: Service, forward: Forward | None = None, guard: Guard | None = None
    ) -> None:
        """``forward`` passes on what only the leader can answer; without it the leader is named.
        ``guard``: who may do what; without it everybody everything."""
        self._submit = service.submit
        self._forward = forward
        self._guard = guard
        self._loop = asyncio.get_running_loop()

    def result(self, operation: Operation, context: Context) -> asyncio.Future[Result]:
        """Submit ``operation``; the future has its result, errors included, and never raises."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(results: Sequence[Result]) -> None:
            # A caller that went away has cancelled the future; a write is done all the same.
            if not future.done():
                future.set_result(results[0])

        refusal = None if self._guard is None else self._guard.refusal(operation, context)
        if refusal is not None:
            done((refusal,))
            return future
        try:
            self._submit((operation,), time.monotonic() + _time_left(context), done)
        except Exception as error:
            log.exception("the service broke its promise not to raise")
            done((InternalError(f"{type(error).__name__}: {error}"),))
        return future

    async def elsewhere(self, method: str, request: Any, result: Result, context: Context) -> Any:
        """The leader's response to a call that this member can't answer; else the call ends."""
        if isinstance(result, NotLeaderError) and self._forward is not None:
            said = passed_on(context.invocation_metadata(), context.auth_context(), context.peer())
            left = _time_left(context)
            answer = await self._forward(method, request, result.leader, left, said)
            if isinstance(answer, Failure):
                await context.abort(answer.code, answer.details, answer.trailer)
            if answer is not None:
                return answer
        return await _fail(context, method, result)


def _time_left(context: Context) -> float:
    left = context.time_remaining()
    return DEFAULT_DEADLINE_S if left is None else left


async def _fail(context: Context, method: str, result: Result) -> NoReturn:
    """End the RPC with the status of an error, or of a result that can't be."""
    if not isinstance(result, Error):
        result = InternalError(f"{method} had the result {result!r}")
    if isinstance(result, InternalError):
        log.error("call failed", operation=method, error=str(result))
    failure = failure_of(result)
    await context.abort(failure.code, failure.details, failure.trailer)
