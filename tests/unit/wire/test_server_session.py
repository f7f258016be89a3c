"""What a server's session tells its front beside events: batches, budgets, who is slow."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kvstore.api.v1 import kv_pb2
from tests.unit.wire.conversation import PATHS, Conversation, native

PUT, GET, DELETE = PATHS
HEADERS, CONTINUATION = 1, 9


def ask(talk: Conversation, method: str) -> Any:
    """A new hot call of ``talk``."""
    talk.unary(method, kv_pb2.GetRequest(key=b"k").SerializeToString())
    return talk.hot.pop()


def test_a_batch_of_several_connections_is_answered_at_once() -> None:
    one, two = Conversation(), Conversation()
    one.server.owner, two.server.owner = "one", "two"
    calls = [ask(one, PUT), ask(two, GET), ask(one, DELETE), ask(two, GET)]
    owners: set[str] = set()
    assert native.answer_all(calls, [True, b"value", False, None], owners) == []
    assert owners == {"one", "two"}
    assert [event[3] for event in one.client_events()] == [
        kv_pb2.PutResponse(overwritten=True).SerializeToString(),
        kv_pb2.DeleteResponse(deleted=False).SerializeToString(),
    ]
    assert [event[3] for event in two.client_events()] == [
        kv_pb2.GetResponse(found=True, value=b"value").SerializeToString(),
        kv_pb2.GetResponse(found=False).SerializeToString(),
    ]
    assert [call.status for call in calls] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("method", "result"),
    [(PUT, b"bytes"), (PUT, None), (PUT, ValueError()), (GET, True), (GET, "text"), (DELETE, None)],
)
def test_what_is_no_result_of_a_method_is_left(method: str, result: object) -> None:
    talk = Conversation()
    call = ask(talk, method)
    assert native.answer_all([call], [result], set()) == [0]
    assert (call.answered, call.status) == (False, -1)
    call.fail(9, "no")
    assert call.status == 9


def test_the_answer_of_a_call_that_is_gone_goes_nowhere() -> None:
    talk = Conversation()
    call = ask(talk, GET)
    talk.client.cancel(call.stream)
    talk.step()
    owners: set[Any] = set()
    assert native.answer_all([call], [b"v"], owners) == []
    assert (owners, call.status, talk.unsent.used) == (set(), -1, 0)


def test_a_call_has_ten_seconds_when_it_says_nothing() -> None:
    talk = Conversation()
    talk.now = 100.0
    talk.unary(GET, b"", timeout_s=30)
    talk.unary(GET, b"")
    assert [call.deadline for call in talk.hot] == [130.0, 110.0]
    assert [call.age_s for call in talk.hot] == [None, None]
    talk.hot[0].deadline, talk.hot[0].age_s = 5.0, 2.0
    assert (talk.hot[0].deadline, talk.hot[0].age_s) == (5.0, 2.0)


def greedy(unsent: Any, answers: list[Any]) -> Any:
    """A connection whose client asks for ``answers`` and reads none of them."""
    hot: list[Any] = []
    server = native.ServerSession(native.Limits(), native.Budget(1 << 20), unsent, PATHS, hot)
    client = native.ClientSession(
        native.Limits(), native.Budget(1 << 20), native.Budget(1 << 20), "a", "http"
    )
    for _ in answers:
        client.call(GET, (), None, b"", True)
    while data := client.send(1 << 20):
        server.receive(data, 0.0)
    assert native.answer_all(hot, answers, set()) == []
    return server, [call.status for call in hot]


def test_those_that_read_nothing_leave_room_for_the_others() -> None:
    limit = 1 << 20
    unsent = native.Budget(limit)
    connections = [greedy(unsent, [bytes(50_000)] * 30) for _ in range(10)]
    # Each has less than the one before, and something is left.
    accepted = [statuses.count(0) for _, statuses in connections]
    assert accepted == sorted(accepted, reverse=True)
    assert 0 < accepted[0] < 30
    assert unsent.used < limit - 50_000
    # The outcome of a write goes out whatever is held.
    talk = Conversation(unsent=0)
    put = ask(talk, PUT)
    assert native.answer_all([put], [True], set()) == []
    assert put.status == 0
    assert [event[3] for event in talk.client_events()] == [
        kv_pb2.PutResponse(overwritten=True).SerializeToString()
    ]
    # So does a small value.
    small, statuses = greedy(unsent, [bytes(10_000), bytes(10_000)])
    assert statuses[0] == 0
    for server, _ in [*connections, (small, statuses)]:
        server.close()
    assert unsent.used == 0


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def test_headers_that_do_not_end_are_seen() -> None:
    server = native.ServerSession(native.Limits(), native.Budget(1 << 20), native.Budget(1 << 20))
    server.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0.0)
    assert not server.established
    server.receive(frame(4, 0, 0, b""), 0.0)
    assert server.established
    assert not server.in_headers
    server.receive(frame(HEADERS, 0, 1, b"\x83"), 0.0)
    assert server.in_headers
    server.receive(frame(CONTINUATION, 4, 1, b"\x86\x84"), 0.0)
    assert not server.in_headers


def test_requests_that_are_not_complete_are_named() -> None:
    talk = Conversation()
    stream = talk.client.call(GET, (), None, None, False)
    whole = talk.unary("/s/M", b"x")
    talk.step()
    assert talk.server.incomplete() == [stream]
    talk.client.half_close(stream)
    talk.client.cancel(whole)
    talk.step()
    assert talk.server.incomplete() == []


def test_answers_that_are_not_taken_are_named() -> None:
    talk = Conversation()
    call = ask(talk, GET)
    call.get_answer(bytes(1 << 20))
    for _ in itertools.takewhile(bool, iter(lambda: talk.server.send(1 << 20), None)):
        pass
    assert talk.server.undelivered() == [call.stream]
    talk.server.reset(call.stream, 8)
    talk.server.send(1 << 20)
    assert (talk.server.undelivered(), talk.unsent.used) == ([], 0)
