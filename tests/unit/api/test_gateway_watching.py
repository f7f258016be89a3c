"""Watches in JSON: the same as in protobuf, and each event put into JSON once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.watch import WatchHandlers
from kvstore.api.handlers.gateway import watching
from kvstore.api.handlers.gateway.transcoding import pieces_of
from kvstore.api.handlers.gateway.watching import JsonText, JsonWording
from kvstore.replica.work import AtOnce
from kvstore.service.etcd.header import Header
from kvstore.service.etcd.hub import WatchBounds, WatchHub
from kvstore.service.etcd.watch_index import Place
from kvstore.service.etcd.watch_topic import Form, Topic, Writing
from kvstore.state.mvcc.answers import Event, KeyValue
from tests.unit.api.auth_gates import Users
from tests.unit.service.etcd.fake_source import FakeSource

WATCHERS = 5


class Context:
    """A call that takes what is written; in JSON where it has that wording."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return ()

    def auth_context(self) -> dict[str, Any]:
        return {}

    def peer(self) -> str:
        return "ipv4:peer"

    async def write_all(self, messages: Sequence[bytes]) -> None:
        self.written += messages


class JsonContext(Context):
    wording = JsonWording


async def requests(*asked: pb.WatchCreateRequest) -> AsyncIterator[pb.WatchRequest]:
    for each in asked:
        yield pb.WatchRequest(create_request=each)


def in_json(messages: Sequence[bytes]) -> list[Any]:
    """Of protobuf's."""
    return [json.loads("".join(pieces_of(pb.WatchResponse.FromString(each)))) for each in messages]


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def play() -> tuple[list[Any], list[list[Any]]]:
    """What a watch saw in protobuf, and what others did in JSON."""
    loop = asyncio.get_running_loop()
    source = FakeSource()
    hub = WatchHub(
        now=loop.time,
        soon=loop.call_soon,
        work=AtOnce(),
        rng=random.Random(1),
        damaged=lambda error: None,
        bounds=WatchBounds(stream=1 << 20, held=4 << 20),
    )
    hub.follow(source)
    handlers = WatchHandlers(hub, lambda: Header(11, 22, source.revision, 3), Users().gate)
    asked = pb.WatchCreateRequest(key=b"k", range_end=b"l", prev_kv=True)
    contexts = [Context(), *[JsonContext() for _ in range(WATCHERS)]]
    calls: list[Any] = [handlers.Watch(requests(asked, asked), each) for each in contexts]  # type: ignore[arg-type]
    tasks = [asyncio.create_task(call) for call in calls]
    await settle()
    changes = [
        lambda: source.put((b"k1", b"one"), (b"k2", bytes(range(256)))),
        lambda: source.put((b"other", b"x")),
        lambda: source.put((b"k1", b'"quoted" \\ and \xff'), (b"k3", b"")),
        lambda: source.delete(b"k1", b"k2"),
    ]
    for change in changes:
        change()
        hub.applied()
        await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(type(each) is JsonText for context in contexts[1:] for each in context.written)
    told = [[json.loads(each) for each in context.written] for context in contexts[1:]]
    return in_json(contexts[0].written), told


def test_a_watch_says_the_same_in_json() -> None:
    expected, told = asyncio.run(play())
    assert sum(len(each.get("events", ())) for each in expected) == 2 * 6
    assert any("prev_kv" in event for each in expected for event in each.get("events", ()))
    assert told == [expected] * WATCHERS


def test_an_event_is_put_into_json_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(message: Any) -> Any:
        made.append(type(message).__name__)
        return pieces_of(message)

    monkeypatch.setattr(watching, "pieces_of", counted)
    asyncio.run(play())
    assert made.count("Event") == 6, "however many watches of however many streams"


def test_what_json_takes_counts() -> None:
    """A third more than the bytes that are in it: so much more may not wait for slow readers."""
    place = Place(b"k", b"l", 0.5)
    topic = place.topics[Form(JsonWording.event)] = Topic(place, Form(JsonWording.event))
    writing = Writing(lambda key: [place])
    event = Event(False, KeyValue(b"k1", 2, 2, 1, bytes(30_000), 0))
    writing.add(2, [event], lambda topic: True)
    ((found, chunk),) = writing.chunks(None)
    assert found is topic
    assert chunk.weight >= len(chunk.joined()) >= 40_000
