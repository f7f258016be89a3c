"""The native wire under bytes of strangers, broken conversations and any order of calls.

Whatever comes, a session raises nothing, tells each call's end once, and gives its budgets back.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.api.v1 import kv_pb2
from tests.unit.wire import frames
from tests.unit.wire.conversation import PATHS, Conversation, native

LIMITS = {
    "message_bytes_max": 100_000,
    "header_bytes_max": 2000,
    "streams_max": 8,
    "resets_max": 50,
    "idle_frames_max": 50,
}
SEEDS = range(40)


def drain(session: Any) -> bytes:
    said = b""
    while more := session.send(1 << 16):
        said += more
    return said


class Server:
    """A server's session that answers whatever is told, in whichever way comes up."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.budgets = native.Budget(1_000_000), native.Budget(200_000)
        self.hot: list[Any] = []
        self.session = native.ServerSession(native.Limits(**LIMITS), *self.budgets, PATHS, self.hot)
        self.told: set[int] = set()
        self.now = 0.0

    def receive(self, data: bytes) -> bytes:
        """Take it in pieces; what is said then."""
        said = b""
        at = 0
        while at < len(data):
            size = self.chance.choice((1, 9, 100, 5000, 100_000))
            self.now += 0.001
            for event in self.session.receive(memoryview(data)[at : at + size], self.now):
                self.event(event)
            self.answer()
            said += drain(self.session)
            at += size
        return said

    def event(self, event: tuple[Any, ...]) -> None:
        kind, *rest = event
        if kind == native.CALL:
            assert rest[0] not in self.told
            self.told.add(rest[0])
        elif kind in (native.MESSAGE, native.HALF_CLOSED, native.CLOSED):
            assert rest[0] in self.told
            if kind == native.CLOSED:
                self.told.remove(rest[0])
            elif kind == native.MESSAGE:
                assert isinstance(rest[1], bytes)
                self.session.consumed(rest[0], len(rest[1]))

    def answer(self) -> None:
        while self.hot and self.chance.random() < 0.8:
            call = self.hot.pop(self.chance.randrange(len(self.hot)))
            if self.chance.random() < 0.2:
                call.fail(9, "nö", (("kvstore-leader-hint", "2"),))
            elif call.method == native.GET:
                call.get_answer(self.chance.choice((None, b"", b"v" * 100, b"v" * 50_000)))
            else:
                native.answer_all([call], [True], set())
        for stream in list(self.told):
            match self.chance.randrange(6):
                case 0:
                    self.session.start(stream, (("i", "1"),))
                case 1:
                    self.session.message(stream, b"m" * self.chance.randrange(30_000))
                case 2:
                    self.session.finish(stream, self.chance.randrange(17), "details")
                    self.told.remove(stream)
                case 3:
                    if self.session.respond(stream, b"r" * self.chance.randrange(30_000)):
                        self.told.remove(stream)

    def end(self) -> None:
        session = self.session
        assert 0 <= session.received_bytes == self.budgets[0].used <= self.budgets[0].limit
        assert 0 <= session.unsent_bytes == self.budgets[1].used <= self.budgets[1].limit
        assert session.streams <= LIMITS["streams_max"]
        session.close()
        assert [budget.used for budget in self.budgets] == [0, 0]
        assert (session.streams, session.finished, session.wants_write) == (0, True, False)
        for call in self.hot:
            assert call.session is None
            call.fail(13, "late")


def requests() -> bytes:
    """A conversation's bytes to the server: hot calls, streams, cancelled ones, pings."""
    talk = Conversation()
    said = bytearray(frames.PREFACE + frames.frame(frames.SETTINGS, 0))
    client = talk.client
    put = kv_pb2.PutRequest(key=b"k" * 16, value=b"v" * 3000, request_id="r" * 32)
    for turn in range(3):
        client.call(PATHS[0], (("kvstore-attempt", "1"),), 5.0, put.SerializeToString(), True)
        client.call(PATHS[1], (), None, kv_pb2.GetRequest(key=b"k").SerializeToString(), True)
        stream = client.call("/s/M", (("x-bin", bytes(9)),), 1.0, b"first", False)
        said += drain(client)
        client.message(stream, b"second" * 9)
        client.ping()
        said += drain(client)
        client.cancel(stream) if turn == 1 else client.half_close(stream)
        said += drain(client)
    return bytes(said)


def answers() -> bytes:
    """The bytes of a server that answers four calls of a client."""
    talk = Conversation()
    for path in (PATHS[0], PATHS[1], "/s/M", "/s/N"):
        talk.client.call(path, (), None, b"", path != "/s/N")
    said = b""
    talk.server.receive(drain(talk.client), 0.0)
    talk.hot[0].put_answer(True)
    talk.hot[1].get_answer(b"v" * 20_000)
    talk.server.respond(5, b"answer", (("t-bin", b"1"),), (("i", "1"),))
    talk.server.start(7, ())
    talk.server.message(7, b"m" * 300)
    said += drain(talk.server)
    talk.server.finish(7, 5, "größe")
    talk.server.ping()
    talk.server.goaway()
    return said + drain(talk.server)


REQUESTS, ANSWERS = requests(), answers()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, gone or added; whole frames in another order, twice or not at all."""
    bad = bytearray(data)
    if chance.random() < 0.5:
        parts = []
        at = len(frames.PREFACE) if data.startswith(b"PRI") else 0
        start = data[:at]
        while at < len(data):
            size = 9 + int.from_bytes(data[at : at + 3], "big")
            parts.append(data[at : at + size])
            at += size
        for _ in range(chance.randint(1, 3)):
            one = chance.randrange(len(parts))
            match chance.randrange(3):
                case 0:
                    parts.insert(chance.randrange(len(parts)), parts[one])
                case 1:
                    parts[one] = b""
                case _:
                    parts.append(parts.pop(one))
        bad = bytearray(start + b"".join(parts))
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(bad))
        match chance.randrange(3):
            case 0:
                bad[at] = chance.randrange(256)
            case 1:
                del bad[at : at + chance.randint(1, 8)]
            case _:
                bad[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(bad)


@given(st.binary(max_size=300), st.integers())
def test_server_hears_a_stranger(data: bytes, seed: int) -> None:
    server = Server(random.Random(seed))
    server.receive(frames.PREFACE + frames.frame(frames.SETTINGS, 0) + data)
    server.end()


@given(st.binary(max_size=300))
def test_client_hears_a_stranger(data: bytes) -> None:
    budgets = native.Budget(1_000_000), native.Budget(1_000_000)
    session = native.ClientSession(native.Limits(**LIMITS), *budgets, "a", "http")
    streams = {session.call("/s/M", (), 1.0, b"m" * 9, unary) for unary in (True, False)}
    drain(session)
    events = session.receive(frames.frame(frames.SETTINGS, 0) + data, 0.0)
    drain(session)
    events += session.close("lost")
    ends = [event[1] for event in events if event[0] in (native.ANSWER, native.FINISHED)]
    assert sorted(ends) == sorted(streams)
    assert [budget.used for budget in budgets] == [0, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_server_hears_a_broken_conversation(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        server = Server(chance)
        server.receive(mutated(REQUESTS, chance))
        server.end()


@pytest.mark.parametrize("seed", SEEDS)
def test_client_hears_a_broken_conversation(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        budgets = native.Budget(1_000_000), native.Budget(1_000_000)
        session = native.ClientSession(native.Limits(**LIMITS), *budgets, "a", "http")
        streams = [
            session.call("/s/M", (), None, b"", unary) for unary in (True, True, True, False)
        ]
        drain(session)
        events: list[tuple[Any, ...]] = []
        data = mutated(ANSWERS, chance)
        at = 0
        while at < len(data):
            size = chance.choice((1, 9, 1000, 100_000))
            events += session.receive(data[at : at + size], 0.0)
            drain(session)
            for event in events:
                if event[0] == native.MESSAGE:
                    session.consumed(event[1], len(event[2]))
            at += size
        events += session.close("lost")
        ends = [event[1] for event in events if event[0] in (native.ANSWER, native.FINISHED)]
        assert sorted(ends) == streams
        assert [budget.used for budget in budgets] == [0, 0]


STEPS = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 7), st.integers(0, 70_000)), max_size=40
)


@settings(max_examples=300)
@given(STEPS, st.integers())
def test_sessions_bear_any_order_of_calls(steps: list[tuple[int, int, int]], seed: int) -> None:
    """Each call that was begun ends once at the client, unless the client cancelled it."""
    talk = Conversation(
        server=native.Limits(**{**LIMITS, "streams_max": 5}),
        received=400_000,
        unsent=400_000,
    )
    chance = random.Random(seed)
    client, server = talk.client, talk.server
    begun: list[int] = []
    events: list[tuple[Any, ...]] = []
    to_server, to_client = b"", b""
    for step, which, size in steps:
        stream = begun[which % len(begun)] if begun else 1 + 2 * which
        data = bytes(size)
        talk.now += 0.01
        match step:
            case 0 | 1:
                path = chance.choice((*PATHS, "/s/M"))
                message = chance.choice(
                    (b"", data, kv_pb2.GetRequest(key=b"k").SerializeToString())
                )
                begun.append(client.call(path, (("x", "y"),), 5.0, message, path != "/s/M"))
                if begun[-1] == 0:
                    begun.pop()
            case 2:
                client.message(stream, data)
            case 3:
                client.half_close(stream)
            case 4 if stream in begun:
                client.cancel(stream)
                begun.remove(stream)
                events = [event for event in events if event[1:2] != (stream,)]
            case 5:
                to_server += client.send(size)
            case 6:
                to_client += server.send(size)
            case 7:
                server.receive(to_server[:size], talk.now)
                to_server = to_server[size:]
            case 8:
                events += client.receive(to_client[:size], talk.now)
                to_client = to_client[size:]
            case 9:
                server.start(stream, (("i", "1"),))
            case 10:
                server.message(stream, data)
            case 11:
                server.finish(stream, which, "details", (("t", "1"),))
            case 12:
                server.respond(stream, data)
            case 13:
                server.reset(stream, which)
            case 14:
                results = [chance.choice((True, None, b"v" * size)) for _ in talk.hot]
                for place in native.answer_all(talk.hot, results, set()):
                    talk.hot[place].fail(14, "later")
                talk.hot.clear()
            case 15:
                chance.choice((client.ping, server.ping, server.notify_shutdown, server.goaway))()
        assert talk.received.used == server.received_bytes <= 400_000
        assert talk.unsent.used == server.unsent_bytes <= 400_000
        assert server.incomplete() == [] or server.streams > 0
    server.receive(to_server, talk.now)
    events += client.receive(to_client, talk.now)
    talk.step()
    events += talk.at_client
    events += client.close("lost")
    ends = [event[1] for event in events if event[0] in (native.ANSWER, native.FINISHED)]
    assert [stream for stream in ends if stream in begun] == ends
    assert sorted(ends) == sorted(begun)
    server.close()
    budgets = (talk.received, talk.unsent, talk.client_received, talk.client_unsent)
    assert [budget.used for budget in budgets] == [0, 0, 0, 0]
