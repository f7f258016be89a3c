"""The calls of etcd's API that come most, a batch at a time: for fronts that give calls in batches.

What a call asks, gets and ends with is the same as by its ordinary handler, which is asked itself
where a call says who makes it, or which request it is, and while users are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from kvstore._service.native import KeyValues, key_of_range, proposal_of_put, proposal_of_txn
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import method_shape
from kvstore.api.handlers.etcd import translate
from kvstore.api.handlers.etcd.entrance import Entrance, has_lawful_version
from kvstore.api.handlers.etcd.kv import KVHandlers
from kvstore.api.handlers.etcd.lease import LeaseHandlers
from kvstore.api.handlers.etcd.register import (
    parsed,
    refusal_told,
    serialized,
    streaming_behaviour,
    unary_behaviour,
)
from kvstore.api.handlers.failures import Failure
from kvstore.api.handlers.kv_batches import PATHS
from kvstore.api.metadata_keys import REQUEST_KEY
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.lease_calls import LeaseCalls
from kvstore.state.mvcc.answers import RangeAnswer
from kvstore.state.mvcc.checks import reads_only

__all__ = ["ONCE", "WHOLE", "EtcdBatches", "WholeCall", "WholeCalls"]

WHOLE: Final = ("/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn")
"""By number, FIRST being that of the first."""

ONCE: Final = ("/etcdserverpb.Lease/LeaseKeepAlive",)
"""Renewals of which each has a stream for itself."""

FIRST: Final = len(PATHS)
"""Fronts number these methods after those of v1."""

ORDINARY_KEYS: Final = frozenset((REQUEST_KEY, "token", "authorization", "hasleader"))
"""Metadata of calls that are for the ordinary handlers."""

WHO_IS_WANTED: Final = frozenset((Reason.USER_EMPTY, Reason.AUTH_OLD_REVISION))

ROOM_LOOK_S: Final = 0.05
"""How often an answer for which there was no room is tried again."""

ROOM_PATIENCE_S: Final = 20.0

WAITING_BYTES_MAX: Final = 8 << 20
"""Of such answers, all calls' together; what goes beyond it is given up."""

FLUSH_BYTES: Final = 1 << 20
"""Of answers that wait for the end of the turn: beyond it they go out, or are given up, before the
next one is taken in."""


class WholeCall(Protocol):
    """A call as a front has it, its message not decoded."""

    @property
    def method(self) -> int: ...
    @property
    def message(self) -> bytes: ...
    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def deadline(self) -> float: ...
    @property
    def session(self) -> object | None:
        """None once it is gone: cancelled, answered, or its connection is. Any thread."""

    def reset(self) -> None: ...
    def fail(
        self, status: int, details: str, trailer: Sequence[tuple[str, str | bytes]] = ()
    ) -> None: ...


class WholeCalls(Protocol):
    """Where a front has its calls answered. Each call is answered once."""

    def answer(self, calls: list[Any], results: list[Any]) -> list[int]:
        """Answer those whose result is bytes, if there is room; the places of the others."""

    def end(self, call: Any, answer: Callable[[Any], None]) -> None:
        """Answer one call by one of its methods."""

    def refuse_unread(self, call: Any) -> None:
        """End one whose answer has no room, and isn't to wait for it: UNAVAILABLE."""

    def caller(self, call: Any) -> tuple[Any, str]:
        """What is known of who makes it: as ``auth_context`` and ``peer`` of a context."""


class EtcdBatches:
    """Takes the calls of one front. On a running event loop."""

    def __init__(
        self,
        service: EtcdService,
        entrance: Entrance,
        kv: KVHandlers,
        lease: LeaseHandlers,
        renewals: LeaseCalls,
    ) -> None:
        self._service = service
        self._entrance = entrance
        self._kv = kv
        self._renewals = renewals
        self._loop = asyncio.get_running_loop()
        self._front: WholeCalls | None = None
        self._shapes = tuple(method_shape(*path[1:].split("/")) for path in WHOLE + ONCE)
        self._take_one = (self._range, self._put, self._txn, self._keep_alive)
        self._behaviours = (
            unary_behaviour(self._shapes[0], kv.Range, entrance),
            unary_behaviour(self._shapes[1], kv.Put, entrance),
            unary_behaviour(self._shapes[2], kv.Txn, entrance),
            streaming_behaviour(self._shapes[3], lease.LeaseKeepAlive, entrance),
        )
        # What was answered in this turn, and the tasks of calls that go the ordinary way.
        self._calls: list[WholeCall] = []
        self._results: list[Any] = []
        self._results_bytes = 0
        self._flush_is_due = False
        # Of answers that wait for room.
        self._waiting_bytes = 0
        # Of the calls that are being taken: ranges of single keys, which share a read.
        self._keys = _Keys()
        self._takes_unmarked = False
        self._tasks: set[asyncio.Task[None]] = set()

    def answered_by(self, front: WholeCalls) -> None:
        """``front`` answers from now on. To be called before the first batch."""
        self._front = front

    def take(self, calls: list[Any]) -> None:
        """Have ``calls`` done."""
        if self._service.asks_who:
            for call in calls:
                self._take_ordinarily(call)
            return
        self._takes_unmarked = self._entrance.takes_unmarked
        for call in calls:
            if call.metadata and not ORDINARY_KEYS.isdisjoint([name for name, _ in call.metadata]):
                self._take_ordinarily(call)
                continue
            try:
                self._take_one[call.method - FIRST](call)
            except Exception as error:  # noqa: BLE001 - it becomes the call's status
                self._told(call, error)
        if self._keys.calls:
            keys, self._keys = self._keys, _Keys()
            self._service.read_keys(keys.keys, partial(self._keys_read, keys))

    def _is_let_in(self, call: WholeCall) -> bool:
        """There is nothing that the entrance could have against it, whatever it asks. (One that
        asks for a leader went to its handler.)"""
        return self._takes_unmarked and (not call.metadata or has_lawful_version(call.metadata))

    # --- each method ------------------------------------------------------------------------------

    def _range(self, call: WholeCall) -> None:
        # One whose client waits for less than the service would is looked after by itself.
        if call.timeout_s >= self._service.patience_s and self._is_let_in(call):
            key = key_of_range(call.message)
            if key is not None:
                self._keys.calls.append(call)
                self._keys.keys.append(key)
                return
        self._range_alone(call)

    def _range_alone(self, call: WholeCall) -> None:
        shape = self._shapes[0]
        request = parsed(shape, call.message)
        self._entrance.admit(shape, call.metadata, request)
        self._service.read(
            translate.range_of(request),
            request.serializable,
            _deadline_of(call),
            partial(self._read, call),
            self._kv.range_response,
            make=KeyValues,
            gone=partial(_is_gone, call),
        )

    def _put(self, call: WholeCall) -> None:
        if self._is_let_in(call):
            id = self._service.new_id()
            proposal = proposal_of_put(call.message, id)
            if proposal is not None:
                done = partial(self._written, call, self._kv.put_response)
                self._service.propose_encoded(id, proposal, _deadline_of(call), done)
                return
        shape = self._shapes[1]
        request = parsed(shape, call.message)
        self._entrance.admit(shape, call.metadata, request)
        operation = translate.put_of(request)
        done = partial(self._written, call, self._kv.put_response)
        self._service.propose(operation, None, _deadline_of(call), done)

    def _txn(self, call: WholeCall) -> None:
        if self._is_let_in(call):
            id = self._service.new_id()
            proposal = proposal_of_txn(call.message, id)
            if proposal is not None:
                done = partial(self._written, call, self._kv.txn_response)
                self._service.propose_encoded(id, proposal, _deadline_of(call), done)
                return
        shape = self._shapes[2]
        request = parsed(shape, call.message)
        self._entrance.admit(shape, call.metadata, request)
        operation = translate.txn_of(request)
        deadline = _deadline_of(call)
        if reads_only(operation):
            serializable = translate.is_serializable(request)
            self._service.read(
                operation,
                serializable,
                deadline,
                partial(self._read, call),
                self._kv.txn_response,
                gone=partial(_is_gone, call),
            )
        else:
            written = partial(self._written, call, self._kv.txn_response)
            self._service.propose(operation, None, deadline, written)

    def _keep_alive(self, call: WholeCall) -> None:
        if self._service.machine is None:
            # Nobody knows yet whether users are asked for.
            self._take_ordinarily(call)
            return
        shape = self._shapes[3]
        request = parsed(shape, call.message)
        self._entrance.admit(shape, call.metadata, None)
        # Before it is renewed: the revision is never after the end of a lease that lives.
        header = translate.header_message(self._service.header())
        response = pb.LeaseKeepAliveResponse(header=header, ID=request.ID)
        renewed = partial(self._renewed, call, response)
        self._renewals.renew(request.ID, None, renewed)

    # --- what they came to ------------------------------------------------------------------------

    def _keys_read(self, keys: _Keys, outcome: Sequence[RangeAnswer | None] | Error) -> None:
        if isinstance(outcome, Error):
            for call in keys.calls:
                self._told(call, outcome)
            return
        asks_who = self._service.asks_who
        for call, answer in zip(keys.calls, outcome, strict=True):
            if asks_who:
                self._take_ordinarily(call)
            elif answer is None:
                self._range_alone(call)
            else:
                self._told(call, self._kv.range_response(answer))

    def _read(self, call: WholeCall, outcome: Any) -> None:
        if self._service.asks_who:
            # Since it was taken: whoever asks may not be allowed to.
            self._take_ordinarily(call)
        else:
            self._told(call, outcome)

    def _written(self, call: WholeCall, response: Callable[[Any], bytes], outcome: Any) -> None:
        if not isinstance(outcome, Error):
            self._told(call, response(outcome))
        elif isinstance(outcome, EtcdError) and outcome.reason in WHO_IS_WANTED:
            # Users are asked for since it was proposed, and nothing was done.
            self._take_ordinarily(call)
        else:
            self._told(call, outcome)

    def _renewed(
        self, call: WholeCall, response: pb.LeaseKeepAliveResponse, outcome: int | Error
    ) -> None:
        if isinstance(outcome, Error):
            self._told(call, outcome)
        else:
            response.TTL = outcome
            self._told(call, response.SerializeToString())

    def _told(self, call: WholeCall, outcome: Any) -> None:
        """Answer it with ``outcome``, bytes or what was raised, with all others of this turn."""
        self._calls.append(call)
        self._results.append(outcome)
        self._results_bytes += len(outcome) if isinstance(outcome, bytes) else 0
        if self._results_bytes > FLUSH_BYTES:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_at_end)

    def _flush_at_end(self) -> None:
        """Of a turn."""
        self._flush_is_due = False
        if self._calls:
            self._flush()

    def _flush(self) -> None:
        calls, self._calls = self._calls, []
        results, self._results, self._results_bytes = self._results, [], 0
        self._answer(calls, results, monotonic() + ROOM_PATIENCE_S)

    def _answer(self, calls: list[WholeCall], results: list[Any], until: float) -> None:
        """Until then answers for which there is no room wait for it."""
        assert self._front is not None
        waiting: list[int] = []
        size = 0
        for place in self._front.answer(calls, results):
            call, result = calls[place], results[place]
            if not isinstance(result, bytes):
                shape = self._shapes[call.method - FIRST]
                self._fail(call, refusal_told(shape, result))
            elif monotonic() >= until:
                self._front.end(call, lambda ended: ended.reset())
            elif self._waiting_bytes + size + len(result) > WAITING_BYTES_MAX:
                self._front.refuse_unread(call)
            else:
                size += len(result)
                waiting.append(place)
        if waiting:
            self._waiting_bytes += size
            left = [calls[place] for place in waiting], [results[place] for place in waiting]
            self._loop.call_later(ROOM_LOOK_S, self._look_again, *left, size, until)

    def _look_again(
        self, calls: list[WholeCall], results: list[Any], size: int, until: float
    ) -> None:
        """Is there room by now for answers of ``size`` bytes?"""
        self._waiting_bytes -= size
        self._answer(calls, results, until)

    def _fail(self, call: WholeCall, failure: Failure) -> None:
        assert self._front is not None
        code, details, trailer = failure
        self._front.end(call, lambda ended: ended.fail(code.value[0], details, trailer))

    # --- the ordinary way -------------------------------------------------------------------------

    def _take_ordinarily(self, call: WholeCall) -> None:
        task = self._loop.create_task(self._ordinarily(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ordinarily(self, call: WholeCall) -> None:
        assert self._front is not None
        context = _Context(call, *self._front.caller(call))
        behaviour = self._behaviours[call.method - FIRST]
        streams = self._shapes[call.method - FIRST].streams_in
        answer: Any = Failure(grpc.StatusCode.UNAVAILABLE, "the call was given up")
        try:
            response = await behaviour(_one(call.message) if streams else call.message, context)
            response = context.written if streams else response
            # A stream may end with OK and without a word.
            answer = Failure(grpc.StatusCode.OK, "") if response is None else serialized(response)
        except grpc.aio.AbortError:
            answer = context.failure
        finally:
            if isinstance(answer, bytes):
                self._told(call, answer)
            else:
                self._fail(call, answer)


class _Keys:
    """Calls that read a single key each."""

    __slots__ = ("calls", "keys")

    def __init__(self) -> None:
        self.calls: list[WholeCall] = []
        self.keys: list[bytes] = []


class _Context:
    """The part of ``grpc.aio.ServicerContext`` that handlers use."""

    def __init__(self, call: WholeCall, auth: Any, peer: str) -> None:
        self._call = call
        self._auth = auth
        self._peer = peer
        self.failure = Failure(grpc.StatusCode.UNKNOWN, "")
        self.written: Any = None

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self._call.metadata

    def auth_context(self) -> Any:
        return self._auth

    def peer(self) -> str:
        return self._peer

    def time_remaining(self) -> float | None:
        deadline = _deadline_of(self._call)
        return None if deadline is None else max(0.0, deadline - monotonic())

    async def write(self, message: Any) -> None:
        """Of a stream with one request: its one answer."""
        self.written = message

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        self.failure = Failure(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError("Locally aborted.")


async def _one(message: bytes) -> AsyncIterator[bytes]:
    yield message


def _is_gone(call: WholeCall) -> bool:
    return call.session is None


def _deadline_of(call: WholeCall) -> float | None:
    """The client's own; None where it has none."""
    return None if call.timeout_s == inf else call.deadline
