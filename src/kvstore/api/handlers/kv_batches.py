"""``kvstore.v1.KV`` a batch at a time: the twin of ``kv`` for fronts that give calls in batches.

What a call asks, gets and ends with is the same by either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Protocol

import grpc
import structlog

from kvstore.api.handlers.calls import Forward
from kvstore.api.handlers.etcd.auth_callers import Caller, Identity, identity_of
from kvstore.api.handlers.failures import Failure, failure_of
from kvstore.api.handlers.guard import Guard
from kvstore.api.handlers.metadata import age_of, passed_on
from kvstore.api.v1 import kv_pb2
from kvstore.errors import Error, InternalError, NotLeaderError
from kvstore.service.operations import Result, Service
from kvstore.state.mvcc.auth import Auth

__all__ = ["PATHS", "HotCall", "HotCalls", "KVBatches", "TakeHot"]

METHODS = ("Put", "Get", "Delete")
"""By number, as calls say it."""

PATHS = ("/kvstore.v1.KV/Put", "/kvstore.v1.KV/Get", "/kvstore.v1.KV/Delete")

log = structlog.get_logger("kvstore.api")


class HotCall(Protocol):
    """A call as a front has it, to be answered by its front's ``answer``, or by one of these."""

    deadline: float
    age_s: float | None

    @property
    def method(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]: ...
    def put_answer(self, overwritten: bool) -> None: ...
    def get_answer(self, value: bytes | None) -> None: ...
    def delete_answer(self, deleted: bool) -> None: ...
    def fail(
        self, status: int, details: str, trailer: Sequence[tuple[str, str | bytes]] = ()
    ) -> None: ...


class HotCalls(Protocol):
    """Where a front has its calls answered. Each call is answered once."""

    def answer(self, calls: list[Any], results: list[Any]) -> list[int]:
        """Answer those whose result is one; the places of the others, which are to be ended."""

    def end(self, call: Any, answer: Callable[[Any], None]) -> None:
        """Answer one call by one of its methods."""

    def caller(self, call: Any) -> tuple[Mapping[str, Iterable[bytes]], str]:
        """What is known of who makes it: as ``auth_context`` and ``peer`` of a context."""


TakeHot = Callable[[list[Any]], None]


class KVBatches:
    """Hands batches to a service, and its results to the front. On a running event loop."""

    def __init__(
        self, service: Service, forward: Forward | None = None, guard: Guard | None = None
    ) -> None:
        """``forward`` passes on what only the leader can answer; without it the leader is named.
        ``guard``: who may do what; without it everybody everything."""
        self._service = service
        self._forward = forward
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._front: HotCalls | None = None
        # Calls that are passed on, so that none is forgotten on its way.
        self._on_their_way: set[asyncio.Task[None]] = set()

    def answered_by(self, front: HotCalls) -> None:
        """``front`` answers from now on. To be called before the first batch."""
        self._front = front

    def take(self, calls: list[HotCall]) -> None:
        """Have ``calls`` done."""
        for call in calls:
            if call.metadata:
                call.age_s = age_of(call.metadata)
        if self._guard is not None and (auth := self._guard.auth) is not None:
            calls = self._permitted(self._guard, auth, calls)
        if calls:
            self._service.take(calls, self._answered)

    def _permitted(self, guard: Guard, auth: Auth, calls: list[HotCall]) -> list[HotCall]:
        """Those that their callers may make; the others are answered."""
        permitted: list[HotCall] = []
        refused: list[HotCall] = []
        results: list[Result] = []
        elsewhere = guard.elsewhere()
        for call in calls:
            refusal = elsewhere
            if refusal is None:
                caller = Caller(guard.tokens, partial(self._identity, call))
                refusal = guard.judge(auth, caller, call.method, call.key)
            if refusal is None:
                permitted.append(call)
            else:
                refused.append(call)
                results.append(refusal)
        if refused:
            self._answered(refused, results)
        return permitted

    def _identity(self, call: HotCall) -> Identity:
        assert self._front is not None
        return identity_of(call.metadata, *self._front.caller(call))

    def _answered(self, calls: list[Any], results: list[Any]) -> None:
        assert self._front is not None
        # Many calls of a batch fail for one reason.
        failures: dict[int, Failure] = {}
        for place in self._front.answer(calls, results):
            call, result = calls[place], results[place]
            if isinstance(result, NotLeaderError) and self._forward is not None:
                self._pass_on(self._forward, call, result)
                continue
            failure = failures.get(id(result))
            if failure is None:
                failure = failures[id(result)] = _failure(call, result)
            self._fail(call, failure)

    def _pass_on(self, forward: Forward, call: HotCall, result: NotLeaderError) -> None:
        passing = self._loop.create_task(self._elsewhere(forward, call, result))
        self._on_their_way.add(passing)
        passing.add_done_callback(self._on_their_way.discard)

    async def _elsewhere(self, forward: Forward, call: HotCall, result: NotLeaderError) -> None:
        """Give ``call`` the leader's answer, or its reason for none."""
        assert self._front is not None
        method = METHODS[call.method]
        left_s = max(0.0, call.deadline - monotonic())
        answer: Any = Failure(grpc.StatusCode.UNAVAILABLE, "the call wasn't passed on")
        try:
            said = passed_on(call.metadata, *self._front.caller(call))
            answer = await forward(method, _request(call), result.leader, left_s, said)
        except Exception as error:
            log.exception("a call couldn't be passed on")
            answer = failure_of(InternalError(f"{type(error).__name__}: {error}"))
        finally:
            if answer is None:  # the leader can't be asked: the client is told of it
                answer = failure_of(result)
            if isinstance(answer, Failure):
                self._fail(call, answer)
            else:
                self._front.end(call, partial(_relay, answer))

    def _fail(self, call: HotCall, failure: Failure) -> None:
        assert self._front is not None
        code, details, trailer = failure
        self._front.end(call, lambda ended: ended.fail(code.value[0], details, trailer))


def _failure(call: HotCall, result: Result) -> Failure:
    method = METHODS[call.method]
    if not isinstance(result, Error):
        result = InternalError(f"{method} had the result {result!r}")
    if isinstance(result, InternalError):
        log.error("call failed", operation=method, error=str(result))
    return failure_of(result)


def _request(call: HotCall) -> Any:
    """The message that ``call`` came as."""
    match METHODS[call.method]:
        case "Put":
            return kv_pb2.PutRequest(
                key=call.key, value=call.value, request_id=call.request_id.decode()
            )
        case "Get":
            return kv_pb2.GetRequest(key=call.key)
        case _:
            return kv_pb2.DeleteRequest(key=call.key, request_id=call.request_id.decode())


def _relay(response: Any, call: HotCall) -> None:
    """Answer ``call`` with the leader's response."""
    match METHODS[call.method]:
        case "Put":
            call.put_answer(response.overwritten)
        case "Get":
            call.get_answer(response.value if response.found else None)
        case _:
            call.delete_answer(response.deleted)
