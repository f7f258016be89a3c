"""Calls of etcd's API in batches: who is asked, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import batches
from kvstore.api.handlers.etcd.batches import FIRST, EtcdBatches
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.translate import range_response
from kvstore.errors import OverloadedError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import Header
from kvstore.state.mvcc.answers import PutAnswer, RangeAnswer
from kvstore.state.mvcc.operations import decode_operations, join_proposals
from kvstore.state.mvcc.requests import DeleteRange, Put, Range, Txn

RANGE, PUT, TXN, KEEP_ALIVE = range(FIRST, FIRST + 4)
HEADER = Header(7, 8, 9, 10)


class Call:
    """A :class:`kvstore.api.handlers.etcd.batches.WholeCall`."""

    def __init__(self, method: int, request: Any, *metadata: tuple[str, str], left: float = inf):
        self.method = method
        self.message = request if isinstance(request, bytes) else request.SerializeToString()
        self.metadata = metadata
        self.timeout_s = left
        self.deadline = monotonic() + (10 if left == inf else left)
        self.answer: bytes | None = None
        self.failure: tuple[int, str] | None = None
        self.was_reset = False
        self.session: object | None = "there"

    def reset(self) -> None:
        self.was_reset = True

    def fail(self, status: int, details: str, trailer: Any = ()) -> None:
        self.failure = status, details


class Stage:
    """A front, a service that is asked, and handlers. ``outcome``: what whoever asks is told."""

    has_leader = True
    is_learner = False
    election_timeout_s = 1.0
    patience_s = 7.0
    machine: Any = ()

    def __init__(self) -> None:
        self.asks_who = False
        self.outcome: Any = None
        self.asked: list[Any] = []
        self.ordinary: list[tuple[str, Any, Any]] = []
        self.error: Exception | None = None
        self.room = 1 << 30
        self.rounds = 0
        self.entrance = Entrance(self)
        self.batches = EtcdBatches(self, self.entrance, self, self, self)  # type: ignore[arg-type]
        self.batches.answered_by(self)

    # The front.

    def answer(self, calls: list[Call], results: list[Any]) -> list[int]:
        self.rounds += 1
        left = []
        for place, (call, result) in enumerate(zip(calls, results, strict=True)):
            assert call.answer is call.failure is None
            if isinstance(result, bytes) and len(result) <= self.room:
                call.answer = result
            else:
                left.append(place)
        return left

    def end(self, call: Call, answer: Callable[[Call], None]) -> None:
        assert call.answer is call.failure is None
        answer(call)

    def refuse_unread(self, call: Call) -> None:
        self.end(call, lambda ended: ended.fail(14, "unread"))

    def caller(self, call: Call) -> tuple[Any, str]:
        return {"x509_common_name": [b"cn"]}, "ipv4:peer"

    # The service.

    def header(self) -> Header:
        return HEADER

    def read(
        self,
        operation: Any,
        serializable: bool,
        deadline: Any,
        done: Any,
        render: Any,
        make: Any = None,
        *,
        gone: Any,
    ) -> None:
        self.asked.append((operation, serializable, deadline))
        self.gone = gone
        done(render(self.outcome) if isinstance(self.outcome, tuple) else self.outcome)

    def new_id(self) -> bytes:
        return b"i" * 16

    def propose_encoded(self, id: bytes, encoded: bytes, deadline: Any, done: Any) -> None:
        (proposal,) = decode_operations(join_proposals([encoded]))
        assert proposal.id == id
        self.propose(proposal.operation, proposal.who, deadline, done)

    def read_keys(self, keys: list[bytes], done: Any) -> None:
        self.asked.append(keys)
        done([self.outcome] * len(keys) if isinstance(self.outcome, tuple) else self.outcome)

    def propose(self, operation: Any, who: Any, deadline: Any, done: Any) -> None:
        assert who is None
        self.asked.append((operation, deadline))
        done(self.outcome)

    def renew(self, id: int, deadline: Any, done: Any) -> None:
        self.asked.append((id, deadline))
        done(self.outcome)

    # The handlers.

    def range_response(self, answer: Any) -> bytes:
        return range_response(answer, pb.ResponseHeader(revision=3)).SerializeToString()

    def put_response(self, answer: Any) -> bytes:
        return b"put at %d" % answer.revision

    def txn_response(self, answer: Any) -> bytes:
        return b"txn"

    async def _ordinarily(self, name: str, request: Any, context: Any) -> Any:
        self.ordinary.append((name, request, context))
        if self.error is not None:
            raise self.error
        return pb.PutResponse(header=pb.ResponseHeader(revision=99))

    async def Range(self, request: Any, context: Any) -> Any:
        return await self._ordinarily("Range", request, context)

    async def Put(self, request: Any, context: Any) -> Any:
        return await self._ordinarily("Put", request, context)

    async def Txn(self, request: Any, context: Any) -> Any:
        return await self._ordinarily("Txn", request, context)

    async def LeaseKeepAlive(self, requests: Any, context: Any) -> None:
        async for request in requests:
            await context.write(await self._ordinarily("LeaseKeepAlive", request, context))

    async def take(self, *calls: Call) -> None:
        self.batches.take([*calls])
        for _ in range(20):
            await asyncio.sleep(0)


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scene(Stage())

    asyncio.run(main())


ORDINARY = pb.PutResponse(header=pb.ResponseHeader(revision=99)).SerializeToString()
REQUESTS = {
    RANGE: pb.RangeRequest(key=b"k"),
    PUT: pb.PutRequest(key=b"k", value=b"v"),
    TXN: pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k"))]),
    KEEP_ALIVE: pb.LeaseKeepAliveRequest(ID=5),
}
READING_TXN = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))])


def test_each_method_asks_the_service_and_a_batch_is_answered_at_once() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = PutAnswer(4)
        put, late = Call(PUT, REQUESTS[PUT]), Call(PUT, REQUESTS[PUT], left=5)
        await stage.take(put, late)
        assert put.answer == late.answer == b"put at 4"
        assert stage.asked == [(Put(b"k", b"v"), None), (Put(b"k", b"v"), late.deadline)]
        assert stage.rounds == 1
        stage.asked.clear()
        stage.outcome = RangeAnswer(3, (), False, 0)
        read = Call(RANGE, pb.RangeRequest(key=b"k", serializable=True))
        await stage.take(read)
        assert stage.asked == [(Range(b"k"), True, None)]
        assert pb.RangeResponse.FromString(read.answer or b"").header.revision == 3
        stage.asked.clear()
        stage.outcome = 60
        renewal = Call(KEEP_ALIVE, REQUESTS[KEEP_ALIVE])
        await stage.take(renewal)
        assert stage.asked == [(5, None)]
        response = pb.LeaseKeepAliveResponse.FromString(renewal.answer or b"")
        assert (response.ID, response.TTL, response.header.revision) == (5, 60, 9)

    play(scene)


def test_ranges_of_single_keys_share_a_read() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = RangeAnswer(3, (), False, 0)
        calls = [Call(RANGE, pb.RangeRequest(key=b"%d" % number)) for number in range(3)]
        # Clients tell who they are, and wait for longer than the service.
        version = ("client-api-version", "3.5")
        calls.append(Call(RANGE, REQUESTS[RANGE], ("user-agent", "x"), version, left=8))
        # These are asked for by themselves, for their deadline and for what they say.
        late = Call(RANGE, REQUESTS[RANGE], left=5)
        serializable = Call(RANGE, pb.RangeRequest(key=b"s", serializable=True))
        unlawful = Call(RANGE, REQUESTS[RANGE], ("client-api-version", "\xff"))
        await stage.take(*calls, late, serializable, unlawful)
        assert stage.asked == [
            (Range(b"k"), False, late.deadline),
            (Range(b"s"), True, None),
            [b"0", b"1", b"2", b"k"],
        ]
        answers = {call.answer for call in (*calls, late, serializable)}
        assert answers == {stage.range_response(stage.outcome)}
        assert unlawful.failure is not None
        assert unlawful.failure[0] == grpc.StatusCode.INVALID_ARGUMENT.value[0]

    play(scene)


def test_keys_that_only_the_disk_knows_are_read_by_themselves() -> None:
    async def scene(stage: Stage) -> None:
        answer = RangeAnswer(3, (), False, 0)
        stage.outcome = answer
        stage.read_keys = lambda keys, done: done([answer, None])  # type: ignore[method-assign]
        known, cold = Call(RANGE, REQUESTS[RANGE]), Call(RANGE, pb.RangeRequest(key=b"cold"))
        await stage.take(known, cold)
        assert stage.asked == [(Range(b"cold"), False, None)]
        assert known.answer == cold.answer == stage.range_response(answer)

    play(scene)


def test_whoever_may_not_be_let_in_is_looked_at_by_itself() -> None:
    async def scene(stage: Stage) -> None:
        stage.is_learner = True
        stage.outcome = RangeAnswer(3, (), False, 0)
        calls = [Call(method, request) for method, request in REQUESTS.items()]
        await stage.take(*calls)
        assert {call.failure for call in calls} == {
            (9, "etcdserver: rpc not supported for learner")
        }
        assert stage.asked == []

    play(scene)


def test_an_unusual_put_or_txn_is_proposed_as_it_is() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = PutAnswer(4)
        deletion = pb.RequestOp(
            request_delete_range=pb.DeleteRangeRequest(key=b"a", range_end=b"b")
        )
        await stage.take(
            Call(PUT, pb.PutRequest(key=b"k", prev_kv=True)),
            Call(TXN, pb.TxnRequest(success=[deletion])),
        )
        assert stage.asked == [
            (Put(b"k", prev_kv=True), None),
            (Txn((), (DeleteRange(b"a", b"b"),), ()), None),
        ]

    play(scene)


def test_a_txn_that_only_reads_goes_through_no_log() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = b"read"
        only = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))])
        await stage.take(Call(TXN, only))
        assert stage.asked == [(Txn((), (Range(b"k"),), ()), False, None)]

    play(scene)


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("key", ["token", "authorization", "kvstore-request-id", "hasleader"])
def test_a_call_that_says_more_goes_to_its_handler(method: int, key: str) -> None:
    async def scene(stage: Stage) -> None:
        call = Call(method, REQUESTS[method], ("other", "1"), (key, "true"), left=5)
        await stage.take(call)
        assert stage.asked == []
        ((_, request, context),) = stage.ordinary
        assert request == REQUESTS[method]
        assert call.answer == ORDINARY
        assert context.invocation_metadata() == call.metadata
        assert context.auth_context() == {"x509_common_name": [b"cn"]}
        assert context.peer() == "ipv4:peer"
        assert 0 < context.time_remaining() <= 5

    play(scene)


@pytest.mark.parametrize("method", REQUESTS)
def test_while_users_are_asked_for_every_call_goes_to_its_handler(method: int) -> None:
    async def scene(stage: Stage) -> None:
        stage.asks_who = True
        call = Call(method, REQUESTS[method])
        await stage.take(call)
        assert (stage.asked, call.answer) == ([], ORDINARY)
        assert stage.ordinary[0][2].time_remaining() is None

    play(scene)


def test_while_users_may_be_asked_for_a_renewal_goes_to_its_handler() -> None:
    async def scene(stage: Stage) -> None:
        stage.machine = None
        call = Call(KEEP_ALIVE, REQUESTS[KEEP_ALIVE])
        await stage.take(call)
        assert (stage.asked, call.answer) == ([], ORDINARY)

    play(scene)


def test_what_was_read_once_users_are_asked_for_is_not_told() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = RangeAnswer(3, (), False, 0)
        read, read_keys = stage.read, stage.read_keys

        def later(*asked: Any, **more: Any) -> None:
            stage.asks_who = True
            read(*asked, **more)

        def keys_later(*asked: Any) -> None:
            stage.asks_who = True
            read_keys(*asked)

        stage.read = later  # type: ignore[method-assign]
        stage.read_keys = keys_later  # type: ignore[method-assign]
        single = Call(RANGE, REQUESTS[RANGE])
        several = Call(RANGE, pb.RangeRequest(key=b"k", range_end=b"l"))
        for call in (single, several):
            stage.asks_who = False
            await stage.take(call)
            assert call.answer == ORDINARY
        assert len(stage.asked) == 2

    play(scene)


@pytest.mark.parametrize("reason", [Reason.USER_EMPTY, Reason.AUTH_OLD_REVISION])
def test_a_write_that_was_not_done_for_want_of_a_user_goes_to_its_handler(reason: Reason) -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = EtcdError(reason)
        calls = [Call(PUT, REQUESTS[PUT]), Call(TXN, REQUESTS[TXN])]
        await stage.take(*calls)
        assert [call.answer for call in calls] == [ORDINARY] * 2

    play(scene)


@pytest.mark.parametrize("method", REQUESTS)
def test_errors_are_told_by_their_status(method: int) -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = EtcdError(Reason.COMPACTED)
        call, other = (Call(method, REQUESTS[method]) for _ in range(2))
        await stage.take(call)
        assert call.failure == (
            grpc.StatusCode.OUT_OF_RANGE.value[0],
            "etcdserver: mvcc: required revision has been compacted",
        )
        stage.error = OverloadedError("too much")
        stage.asks_who = True
        await stage.take(other)
        assert other.failure == (8, "etcdserver: too many requests")

    play(scene)


@pytest.mark.parametrize("method", REQUESTS)
def test_bad_bytes_and_whom_the_entrance_keeps_out(method: int) -> None:
    async def scene(stage: Stage) -> None:
        broken, late = Call(method, b"\xff"), Call(method, REQUESTS[method])
        await stage.take(broken)
        assert broken.failure == (3, "the request is not a protobuf message")
        stage.entrance.close()
        await stage.take(late)
        assert late.failure == (14, "etcdserver: server stopped")
        assert stage.asked == []

    play(scene)


def test_a_defect_ends_its_call_alone() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = PutAnswer(4)
        stage.renew = None  # type: ignore[assignment,method-assign]
        defect, other = Call(KEEP_ALIVE, REQUESTS[KEEP_ALIVE]), Call(PUT, REQUESTS[PUT])
        await stage.take(defect, other)
        assert defect.failure is not None
        assert defect.failure[0] == grpc.StatusCode.INTERNAL.value[0]
        assert other.answer == b"put at 4"

    play(scene)


def test_an_answer_waits_for_room_and_then_its_outcome_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "ROOM_LOOK_S", 0.001)

    async def scene(stage: Stage) -> None:
        stage.outcome = PutAnswer(4)
        stage.room = 0
        call, forgotten = Call(PUT, REQUESTS[PUT]), Call(PUT, REQUESTS[PUT])
        await stage.take(call)
        assert call.answer is None
        stage.room = 100
        async with asyncio.timeout(30):
            while call.answer is None:
                await asyncio.sleep(0.001)
        monkeypatch.setattr(batches, "ROOM_PATIENCE_S", 0.0)
        stage.room = 0
        await stage.take(forgotten)
        assert forgotten.was_reset

    play(scene)


def test_answers_that_wait_for_room_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "ROOM_LOOK_S", 0.001)

    async def scene(stage: Stage) -> None:
        stage.outcome = bytes(batches.WAITING_BYTES_MAX // 2 + 1)
        # Twice: what waited counts no more.
        for _ in range(2):
            stage.room = 0
            first, second = Call(TXN, READING_TXN), Call(TXN, READING_TXN)
            await stage.take(first)
            await stage.take(second)
            assert (first.failure, second.failure) == (None, (14, "unread"))
            stage.room = 1 << 30
            async with asyncio.timeout(30):
                while first.answer is None:
                    await asyncio.sleep(0.001)

    play(scene)


def test_large_answers_go_out_before_more_are_taken_in() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = bytes(batches.FLUSH_BYTES // 2)
        calls = [Call(TXN, READING_TXN) for _ in range(7)]
        stage.batches.take([*calls])
        assert [call.answer is None for call in calls] == [False] * 6 + [True]
        await stage.take()
        assert calls[-1].answer == stage.outcome

    play(scene)


@pytest.mark.parametrize(
    ("method", "request_of"),
    [
        (RANGE, pb.RangeRequest(key=b"a", range_end=b"b")),
        (TXN, pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))])),
    ],
)
def test_who_reads_is_told_when_its_call_is_gone(method: int, request_of: Any) -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = EtcdError(Reason.DEADLINE)
        call = Call(method, request_of)
        await stage.take(call)
        assert not stage.gone()
        call.session = None
        assert stage.gone()

    play(scene)
