"""The Watch stream as clients see it, on either front, over a store that is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.register import register
from kvstore.api.handlers.etcd.watch import WatchHandlers
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import AtOnce
from kvstore.service.etcd import auth_tokens
from kvstore.service.etcd.header import Header
from kvstore.service.etcd.hub import WatchBounds, WatchHub
from kvstore.state.mvcc.requests import PermissionKind
from kvstore.wire import available
from tests.unit.api.auth_gates import Users, users_of
from tests.unit.service.etcd.fake_source import FakeSource

SERVICE = "etcdserverpb.Watch"
NO_ID = -1
COMPACTED = "etcdserver: mvcc: required revision has been compacted"


class Member:
    """A :class:`kvstore.api.handlers.etcd.entrance.Member`."""

    has_leader = True
    is_learner = False
    election_timeout_s = 0.0


class Stage:
    """A front, a hub behind it, a store behind that, and a channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.source = FakeSource()
        self.member = Member()
        self.entrance = Entrance(self.member)
        self.users = Users()
        self.hub = WatchHub(
            now=asyncio.get_running_loop().time,
            soon=asyncio.get_running_loop().call_soon,
            work=AtOnce(),
            rng=random.Random(1),
            damaged=lambda error: None,
            bounds=WatchBounds(stream=1 << 20, held=4 << 20),
        )
        self.hub.follow(self.source)
        self.handlers = WatchHandlers(
            self.hub, lambda: Header(11, 22, self.source.revision, 3), self.users.gate
        )

    def put(self, *pairs: tuple[bytes, bytes]) -> int:
        revision = self.source.put(*pairs)
        self.hub.applied()
        return revision

    def delete(self, *keys: bytes) -> int:
        revision = self.source.delete(*keys)
        self.hub.applied()
        return revision

    @contextlib.asynccontextmanager
    async def watch(self, metadata: Any = ()) -> AsyncIterator[Stream]:
        call = self.channel.stream_stream(
            f"/{SERVICE}/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )(metadata=metadata)
        try:
            yield Stream(call)
        finally:
            call.cancel()

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await asyncio.sleep(0.001)


class Stream:
    def __init__(self, call: Any) -> None:
        self.call = call

    async def create(self, key: bytes, range_end: bytes = b"", **more: Any) -> pb.WatchResponse:
        """Ask for a watch; the first answer."""
        request = pb.WatchCreateRequest(key=key, range_end=range_end, **more)
        await self.call.write(pb.WatchRequest(create_request=request))
        return await self.next()

    async def cancel(self, watch_id: int) -> None:
        request = pb.WatchCancelRequest(watch_id=watch_id)
        await self.call.write(pb.WatchRequest(cancel_request=request))

    async def ask_progress(self) -> None:
        await self.call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def next(self) -> pb.WatchResponse:
        response = await self.call.read()
        assert response is not grpc.aio.EOF, (await self.call.code(), await self.call.details())
        return response

    async def ends(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert await self.call.read() is grpc.aio.EOF
        return await self.call.code(), await self.call.details()


Play = Callable[[Stage], Awaitable[None]]


async def _serve(server: Any, port: int, play: Play) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stage = Stage(channel)
        register(server, SERVICE, stage.handlers, stage.entrance)
        await server.start()
        try:
            async with asyncio.timeout(60):
                await play(stage)
        finally:
            await server.stop(None)
        # grpcio's handlers end some passes of the loop after their calls.
        async with asyncio.timeout(60):
            while stage.hub.figures().streams:
                await asyncio.sleep(0)
        assert len(stage.hub.index) == 0


async def _on_grpcio(play: Play) -> None:
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    await _serve(server, server.add_insecure_port("127.0.0.1:0"), play)


async def _on_native(play: Play) -> None:
    from kvstore.wire.server import Server, ServerLimits

    server = Server(ServerLimits(connections_max=100))
    await _serve(server, server.bind("127.0.0.1", 0), play)


FRONTS = [
    pytest.param(_on_grpcio, id="grpcio"),
    pytest.param(
        _on_native,
        id="native",
        marks=pytest.mark.skipif(not available(), reason="the native wire isn't built"),
    ),
]


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> Callable[[Play], None]:
    """Plays a scene on a front."""
    return lambda play: asyncio.run(request.param(play))


def shape(response: pb.WatchResponse) -> dict[str, Any]:
    """What stands in a response, but for who sent it."""
    assert (response.header.cluster_id, response.header.member_id) == (11, 22)
    assert response.header.raft_term == 3
    fields = {descriptor.name: value for descriptor, value in response.ListFields()}
    del fields["header"]
    fields.pop("events", None)
    return {"revision": response.header.revision, **fields}


def test_creation_is_answered_first_and_ids_begin_at_0(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        stage.put((b"a", b"1"))
        async with stage.watch() as stream:
            assert shape(await stream.create(b"a")) == {"revision": 2, "created": True}
            second = await stream.create(b"a", watch_id=7)
            assert shape(second) == {"revision": 2, "created": True, "watch_id": 7}
            third = await stream.create(b"a", b"b")
            assert shape(third) == {"revision": 2, "created": True, "watch_id": 1}

    front(play)


def test_what_is_no_watch_is_created_and_canceled_at_once_and_the_stream_goes_on(
    front: Callable[[Play], None],
) -> None:
    async def play(stage: Stage) -> None:
        stage.put((b"a", b"1"))
        no_watch = {"revision": 2, "watch_id": NO_ID, "created": True, "canceled": True}
        async with stage.watch() as stream:
            await stream.create(b"a", watch_id=3)
            for request, reason in (
                ({"key": b"x", "watch_id": 3}, "mvcc: duplicate watch ID provided on the "),
                ({"key": b"b", "range_end": b"b"}, "mvcc: watcher range is empty"),
                ({"key": b"b", "range_end": b"a"}, "mvcc: watcher range is empty"),
                ({"key": b"b", "start_revision": -1}, COMPACTED),
            ):
                answer = shape(await stream.create(**request))
                assert answer.pop("cancel_reason").startswith(reason)
                assert answer == no_watch
            stage.put((b"a", b"2"))
            assert (await stream.next()).events[0].kv.value == b"2"

    front(play)


DENIED = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
NOBODY_ASKS = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"

READER = users_of({"ann": ["reader"]}, {"reader": [(PermissionKind.READ, b"a", b"c")]})


@pytest.mark.parametrize(
    ("key", "range_end"),
    [(b"c", b""), (b"a", b"d"), (b"a", b"\0"), (b"", b"\0"), (b"", b""), (b"\0", b"\0")],
)
def test_what_its_user_may_not_read_is_no_watch_and_the_stream_goes_on(
    front: Callable[[Play], None], key: bytes, range_end: bytes
) -> None:
    """A range's end of one zero byte is judged as it came (GHSA-xg4h-6gfc-h4m8)."""

    async def play(stage: Stage) -> None:
        stage.users.become(READER)
        async with stage.watch((("token", stage.users.token("ann")),)) as stream:
            refused = await stream.create(key, range_end)
            assert (refused.watch_id, refused.created, refused.canceled) == (NO_ID, True, True)
            assert refused.cancel_reason == DENIED
            assert not (await stream.create(b"a", b"c")).canceled
            stage.put((b"b", b"2"))
            assert (await stream.next()).events[0].kv.value == b"2"

    front(play)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), NOBODY_ASKS),
        (
            (("token", "forged"),),
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ),
    ],
)
def test_nobody_watches_anything(front: Callable[[Play], None], metadata: Any, reason: str) -> None:
    async def play(stage: Stage) -> None:
        stage.users.become(READER)
        async with stage.watch(metadata) as stream:
            assert (await stream.create(b"a")).cancel_reason == reason

    front(play)


def test_a_watch_ends_when_its_user_may_not_read_its_range_any_more(
    front: Callable[[Play], None],
) -> None:
    async def play(stage: Stage) -> None:
        stage.users.become(READER)
        async with stage.watch((("token", stage.users.token("ann")),)) as stream:
            await stream.create(b"a", watch_id=1)
            await stream.create(b"b", watch_id=2)
            await stream.create(b"a", b"c", watch_id=3)
            # Somebody else's role changes, and then ann's.
            stage.users.become(users_of({"ann": ["reader"]}, dict(READER.roles), revision=8))
            less = {"reader": [(PermissionKind.READ, b"b", b"")]}
            stage.users.become(users_of({"ann": ["reader"]}, less, revision=9))
            stage.put((b"a", b"1"), (b"b", b"1"))
            came = [await stream.next() for _ in range(3)]
            ended = {one.watch_id: one.cancel_reason for one in came if one.canceled}
            assert ended == {1: DENIED, 3: DENIED}
            assert [one.watch_id for one in came if one.events] == [2]

    front(play)


def test_watches_of_nobody_end_once_users_are_asked_for(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a", watch_id=1)
            stage.users.become(READER)
            ended = await stream.next()
            assert (ended.canceled, ended.cancel_reason) == (True, NOBODY_ASKS)

    front(play)


def test_a_stream_is_its_users_for_as_long_as_it_lasts(
    front: Callable[[Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(stage: Stage) -> None:
        stage.users.become(READER)
        async with stage.watch((("token", stage.users.token("ann")),)) as stream:
            await stream.create(b"a")
            monkeypatch.setattr(auth_tokens, "TOKEN_TTL_S", 0.0)
            assert not (await stream.create(b"b")).canceled
        async with stage.watch((("token", stage.users.token("ann")),)) as stream:
            assert (await stream.create(b"a")).canceled, "a new one has a token that has run out"

    front(play)


def test_events_look_as_etcds_do(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a", b"c", prev_kv=True)
            stage.put((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
            response = await stream.next()
            assert shape(response) == {"revision": 2}
            assert list(response.events) == [
                pb.Event(
                    kv=pb.KeyValue(
                        key=b"a", create_revision=2, mod_revision=2, version=1, value=b"1"
                    )
                ),
                pb.Event(
                    kv=pb.KeyValue(
                        key=b"b", create_revision=2, mod_revision=2, version=1, value=b"2"
                    )
                ),
            ]
            stage.delete(b"a")
            (event,) = (await stream.next()).events
            assert event == pb.Event(
                type=pb.Event.DELETE,
                kv=pb.KeyValue(key=b"a", mod_revision=3),
                prev_kv=pb.KeyValue(
                    key=b"a", create_revision=2, mod_revision=2, version=1, value=b"1"
                ),
            )

    front(play)


def test_filters_and_an_empty_key(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"", b"\0", filters=[pb.WatchCreateRequest.NOPUT])
            stage.put((b"a", b"1"))
            stage.delete(b"a")
            assert [event.type for event in (await stream.next()).events] == [pb.Event.DELETE]

    front(play)


def test_a_backlog_comes_in_one_message_and_says_where_the_store_is(
    front: Callable[[Play], None],
) -> None:
    async def play(stage: Stage) -> None:
        for number in range(5):
            stage.put((b"a", b"%d" % number))
        async with stage.watch() as stream:
            await stream.create(b"a", start_revision=3)
            response = await stream.next()
            assert shape(response) == {"revision": 6}
            assert [event.kv.mod_revision for event in response.events] == [3, 4, 5, 6]

    front(play)


def test_a_compacted_start_is_two_messages(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        for number in range(5):
            stage.put((b"a", b"%d" % number))
        stage.source.compacted = 4
        async with stage.watch() as stream:
            created = await stream.create(b"a", start_revision=3)
            assert shape(created) == {"revision": 6, "created": True}
            assert shape(await stream.next()) == {
                "revision": 0,
                "canceled": True,
                "compact_revision": 4,
            }
            # Once more under the id, which is free again; from the bound itself it works.
            assert shape(await stream.create(b"a", start_revision=4))["watch_id"] == 1
            assert [event.kv.mod_revision for event in (await stream.next()).events] == [4, 5, 6]

    front(play)


def test_cancel_and_what_nobody_knows(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a")
            await stream.create(b"a", watch_id=5)
            await stream.cancel(17)
            await stream.call.write(pb.WatchRequest())
            await stream.cancel(5)
            assert shape(await stream.next()) == {
                "revision": 1,
                "watch_id": 5,
                "canceled": True,
            }
            stage.put((b"a", b"1"))
            assert (await stream.next()).watch_id == 0

    front(play)


def test_progress_comes_after_the_events_that_it_speaks_of(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a")
            await stream.ask_progress()
            assert shape(await stream.next()) == {"revision": 1, "watch_id": NO_ID}
            stage.put((b"a", b"1"))
            await stream.ask_progress()
            assert (await stream.next()).events[0].kv.mod_revision == 2
            assert shape(await stream.next()) == {"revision": 2, "watch_id": NO_ID}

    front(play)


def test_the_clients_half_close_ends_nothing(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a")
            await stream.call.done_writing()
            await stage.until(lambda: bool(stage.hub.figures().watches))
            stage.put((b"a", b"1"))
            assert (await stream.next()).events[0].kv.mod_revision == 2

    front(play)


def test_a_client_that_goes_leaves_nothing_behind(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a")
            await stream.create(b"a", b"b")
            assert stage.hub.figures().watches == 2
        await stage.until(lambda: not stage.hub.figures().streams)
        assert stage.hub.figures().watches == 0

    front(play)


def test_every_end_is_one_after_which_clients_resume(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch([("hasleader", "true")]) as marked, stage.watch() as other:
            await marked.create(b"a")
            await other.create(b"a")
            stage.member.has_leader = False
            stage.entrance.tick()
            unavailable = grpc.StatusCode.UNAVAILABLE
            assert await marked.ends() == (unavailable, "etcdserver: no leader")
            stage.hub.stop(EtcdError(Reason.TIMED_OUT))
            assert await other.ends() == (unavailable, "etcdserver: request timed out")
        async with stage.watch() as last:
            await last.create(b"a")
            stage.entrance.close()
            assert await last.ends() == (unavailable, "etcdserver: server stopped")

    front(play)


def test_a_server_that_stops_ends_what_waits_for_an_event(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as silent:
            await silent.create(b"a")
            asyncio.get_running_loop().call_soon(stage.entrance.close)
            code, _ = await silent.ends()
            assert code is grpc.StatusCode.UNAVAILABLE

    front(play)


def values(count: int, size: int) -> Sequence[tuple[bytes, bytes]]:
    return [(b"k%06d" % number, random.Random(number).randbytes(size)) for number in range(count)]


@pytest.mark.parametrize("fragment", [True, False])
def test_a_large_revision_is_whole_or_in_parts_as_asked(
    front: Callable[[Play], None], fragment: bool
) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"k", b"l", fragment=fragment)
            pairs = values(100, 50_000)
            stage.put(*pairs)
            responses = [await stream.next()]
            while responses[-1].fragment:
                responses.append(await stream.next())
            assert len(responses) == (3 if fragment else 1)
            assert all(response.header.revision == 2 for response in responses)
            got = [
                (event.kv.key, event.kv.value)
                for response in responses
                for event in response.events
            ]
            assert got == pairs

    front(play)


def test_one_event_of_more_than_a_fragment_is_never_cut(front: Callable[[Play], None]) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a", fragment=True)
            stage.put((b"a", b"v" * (3 << 20)))
            (event,) = (await stream.next()).events
            assert len(event.kv.value) == 3 << 20

    front(play)


def test_whoever_never_reads_holds_nobody_up_and_gets_everything_when_they_do(
    front: Callable[[Play], None],
) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as lazy, stage.watch() as busy:
            await lazy.create(b"a")
            await busy.create(b"a")
            value = b"v" * 100_000
            most = 0
            for number in range(300):
                revision = stage.put((b"a", value))
                response = await busy.next()
                assert [event.kv.mod_revision for event in response.events] == [revision], number
                most = max(most, stage.hub.figures().held_bytes)
            assert most <= 5 << 20
            assert stage.hub.figures().behind == 1
            seen: list[int] = []
            while not seen or seen[-1] < revision:
                seen += [event.kv.mod_revision for event in (await lazy.next()).events]
            assert seen == [*range(2, revision + 1)]

    front(play)


def test_a_thousand_requests_that_nobody_hears_the_answers_of_are_not_all_taken(
    front: Callable[[Play], None],
) -> None:
    async def play(stage: Stage) -> None:
        async with stage.watch() as stream:
            await stream.create(b"a")
            for _ in range(5000):
                await stream.call.write(
                    pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"b", range_end=b"a"))
                )
            for _ in range(5000):
                assert (await stream.next()).canceled

    front(play)
