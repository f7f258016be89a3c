"""All four kinds of calls, and hot ones, between our client's and our server's session."""

from __future__ import annotations

from kvstore.api.v1 import kv_pb2
from tests.unit.wire.conversation import PATHS, Conversation, native

PUT, GET, DELETE = PATHS


def test_put_comes_decoded_and_its_answer_goes_back() -> None:
    talk = Conversation()
    request = kv_pb2.PutRequest(key=b"k", value=b"v" * 100, request_id="größe")
    stream = talk.unary(PUT, request.SerializeToString(), timeout_s=1.5)
    (call,) = talk.hot
    assert (call.method, call.key, call.value) == (native.PUT, b"k", b"v" * 100)
    assert call.request_id == "größe".encode()
    assert (call.timeout_s, call.metadata, call.session) == (1.5, (), talk.server)
    call.put_answer(True)
    assert call.answered
    assert call.session is None
    answer = kv_pb2.PutResponse(overwritten=True).SerializeToString()
    assert talk.client_events() == [(native.ANSWER, stream, 0, answer, "", (), (), False)]


def test_get_finds_a_value_larger_than_all_windows() -> None:
    talk = Conversation()
    value = bytes(range(256)) * 4096
    talk.unary(GET, kv_pb2.GetRequest(key=b"k").SerializeToString())
    talk.hot[0].get_answer(value)
    ((_, _, status, message, *_),) = talk.client_events()
    assert status == 0
    assert kv_pb2.GetResponse.FromString(message) == kv_pb2.GetResponse(found=True, value=value)


def test_failed_hot_call_has_details_and_trailer() -> None:
    talk = Conversation()
    request = kv_pb2.DeleteRequest(key=b"k", request_id="r").SerializeToString()
    stream = talk.unary(DELETE, request, metadata=(("kvstore-attempt", "2"), ("other", "x")))
    call = talk.hot[0]
    assert (call.method, call.metadata) == (native.DELETE, (("kvstore-attempt", "2"),))
    call.fail(9, "no leader: 100 %, größe\n", (("kvstore-leader-hint", "3"),))
    assert talk.client_events() == [
        (
            native.ANSWER,
            stream,
            9,
            None,
            "no leader: 100 %, größe\n",
            (("kvstore-leader-hint", "3"),),
            (),
            False,
        )
    ]


def test_second_answer_of_a_hot_call_does_nothing() -> None:
    talk = Conversation()
    talk.unary(GET, b"")
    call = talk.hot[0]
    call.get_answer(None)
    call.get_answer(b"late")
    call.fail(13, "late")
    assert [event[2:4] for event in talk.client_events()] == [(0, b"")]
    assert talk.unsent.used == 0


def test_unary_call_is_answered_at_once() -> None:
    talk = Conversation()
    stream = talk.unary("/s/M", b"ask", metadata=(("a", "b"), ("c-bin", b"\0\xff")), timeout_s=3)
    metadata = (("user-agent", "grpc-python-kvstore"), ("a", "b"), ("c-bin", b"\0\xff"))
    assert talk.server_events() == [
        (native.CALL, stream, "/s/M", 3.0, metadata),
        (native.MESSAGE, stream, b"ask"),
        (native.HALF_CLOSED, stream),
    ]
    assert talk.server.respond(stream, b"answer", (("t", "1"),), (("i", "2"),))
    assert talk.client_events() == [
        (native.ANSWER, stream, 0, b"answer", "", (("t", "1"),), (("i", "2"),), False)
    ]
    assert (talk.server.streams, talk.client.streams) == (0, 0)


def test_messages_go_both_ways_in_order() -> None:
    talk = Conversation()
    stream = talk.client.call("/s/M", (), None, None, False)
    assert talk.server_events()[0][:2] == (native.CALL, stream)
    talk.server.start(stream, (("i", "1"),))
    assert talk.client_events() == [(native.HEADERS, stream, (("i", "1"),))]
    sent = [b"", b"x" * 70_000, b"y"]
    for message in sent:
        assert talk.client.message(stream, message)
        assert talk.server.message(stream, message)
    assert talk.server_events() == [(native.MESSAGE, stream, message) for message in sent]
    assert talk.client_events() == [(native.MESSAGE, stream, message) for message in sent]
    talk.client.half_close(stream)
    assert talk.server_events() == [(native.HALF_CLOSED, stream)]
    talk.server.finish(stream, 5, "gone", (("t", "1"),))
    assert talk.client_events() == [(native.FINISHED, stream, 5, "gone", (("t", "1"),), False)]
    assert (talk.server.streams, talk.client.streams) == (0, 0)


def test_cancelled_call_is_told_to_the_server_alone() -> None:
    talk = Conversation()
    stream = talk.unary("/s/M", b"ask")
    talk.server_events()
    talk.client.cancel(stream)
    assert talk.server_events() == [(native.CLOSED, stream, 8)]
    assert talk.client_events() == []
    assert talk.server.respond(stream, b"late")
    assert talk.client_events() == []


def test_cancelled_hot_call_can_not_be_answered() -> None:
    talk = Conversation()
    talk.client.cancel(talk.unary(GET, b""))
    talk.step()
    talk.unary(GET, b"")
    call, other = talk.hot
    assert native.living(talk.hot) == [other]
    assert call.session is None
    call.get_answer(b"late")
    assert talk.client_events() == []


def test_answer_before_the_request_ended_ends_the_call() -> None:
    talk = Conversation()
    stream = talk.client.call("/s/M", (), None, b"first", False)
    talk.step()
    talk.server.finish(stream, 7, "not you")
    assert talk.client_events() == [(native.FINISHED, stream, 7, "not you", (), False)]
    assert (talk.server.streams, talk.client.streams) == (0, 0)
    assert talk.received.used == 0


def test_drained_connection_ends_after_its_last_call() -> None:
    talk = Conversation()
    stream = talk.unary("/s/M", b"ask")
    talk.server.notify_shutdown()
    assert talk.client_events() == [(native.GOAWAY, 2**31 - 1, 0, b"")]
    talk.server.goaway()
    assert talk.client_events() == [(native.GOAWAY, stream, 0, b"")]
    assert not talk.client.accepting
    assert talk.client.call("/s/M", (), None, b"", True) == 0
    assert not talk.server.finished
    talk.server.respond(stream, b"answer")
    assert [event[:4] for event in talk.client_events()] == [(native.ANSWER, stream, 0, b"answer")]
    assert talk.server.finished
    assert talk.client.finished


def test_ping_is_answered() -> None:
    talk = Conversation()
    talk.client.ping()
    talk.server.ping()
    assert talk.server_events() == [(native.PONG,)]
    assert talk.client_events() == [(native.PONG,)]


def test_call_that_comes_after_the_server_decided_to_go_is_not_done() -> None:
    talk = Conversation()
    taken = talk.unary(PATHS[0], kv_pb2.PutRequest(key=b"k").SerializeToString())
    talk.server.goaway()  # which isn't sent yet when the next calls come
    late = [talk.client.call(path, (), 5.0, b"", True) for path in (PATHS[0], "/s/M")]
    assert talk.server.receive(talk.client.send(1 << 20), 0.0) == []
    assert [call.stream for call in talk.hot] == [taken]
    talk.hot[0].put_answer(True)
    talk.server.goaway()
    events = talk.client_events()
    assert [event[1] for event in events if event[0] == native.GOAWAY] == [taken, taken]
    answers = {event[1]: event[2::5] for event in events if event[0] == native.ANSWER}
    assert answers == {taken: (0, False), late[0]: (14, True), late[1]: (14, True)}
    assert (talk.server.streams, talk.received.used) == (0, 0)
    assert talk.server.finished
