"""Watches against a server that fails in every way there is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2
from kvstore.client import AsyncClient, Client, Event, RetryPolicy, channels, watch_stream
from kvstore.errors import (
    ClosedError,
    CompactedError,
    Error,
    InvalidArgumentError,
    PermissionDeniedError,
    RefusedError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.wire import available
from tests.unit.client.fake_etcd import FakeEtcd, Session, WatchSession, event

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture(params=["native", "grpcio"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native" and not available():
        pytest.skip("built without the native wire")
    monkeypatch.setattr(channels, "default_transport", lambda: request.param)
    return str(request.param)


def client_of(*servers: FakeEtcd, **options: Any) -> AsyncClient:
    return AsyncClient([server.address for server in servers], timeout=30, **options)


def keys(events: list[Event]) -> list[tuple[int, bytes]]:
    return [(one.revision, one.key) for one in events]


async def take(watch: Any, count: int) -> list[Event]:
    return [await anext(watch) for _ in range(count)]


async def lost_by_status(session: WatchSession, code: grpc.StatusCode, details: str) -> None:
    await session.fail(code, details)


async def lost_by_its_end(session: WatchSession) -> None:
    return


LOSSES: dict[str, Callable[[WatchSession], Awaitable[None]]] = {
    code.name: lambda session, code=code: lost_by_status(session, code, "oh")
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
}
LOSSES["no leader"] = lambda session: lost_by_status(
    session, grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader"
)
LOSSES["watch canceled"] = lambda session: lost_by_status(
    session, grpc.StatusCode.CANCELLED, "etcdserver: watch canceled"
)
LOSSES["OK"] = lost_by_its_end


@pytest.mark.parametrize("loss", LOSSES)
def test_a_watch_goes_on_where_its_stream_was_lost(loss: str) -> None:
    async def first(session: WatchSession) -> None:
        assert session.metadata["hasleader"] == "true"
        created = await session.create(revision=4)
        assert created.start_revision == 0
        assert created.fragment
        assert created.progress_notify
        await session.send(event(5, b"a"), event(6, b"a"), event(6, b"b"))
        await LOSSES[loss](session)

    async def before_it_began(session: WatchSession) -> None:
        await LOSSES[loss](session)

    async def second(session: WatchSession) -> None:
        created = await session.create(revision=9)
        assert created.start_revision == 7
        # What was had before is left out, whatever a server sends.
        await session.send(event(6, b"b"), event(7, b"a"))
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(first, before_it_began, second) as server,
            client_of(server) as client,
            client.watch(prefix=b"") as watch,
        ):
            assert watch.revision == 4
            assert keys(await take(watch, 4)) == [(5, b"a"), (6, b"a"), (6, b"b"), (7, b"a")]
            assert watch.revision == 7

    asyncio.run(test())


def test_a_watch_goes_to_another_member() -> None:
    async def dies(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.send(event(5, b"a"))
        await session.fail(grpc.StatusCode.UNAVAILABLE)

    async def lives(session: WatchSession) -> None:
        created = await session.create(revision=4)
        await session.send(*(event(n, b"a") for n in range(created.start_revision or 5, 8)))
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(dies, dies, dies) as one,
            FakeEtcd(lives) as other,
            client_of(one, other) as client,
            client.watch(b"a") as watch,
        ):
            assert keys(await take(watch, 3)) == [(5, b"a"), (6, b"a"), (7, b"a")]

    asyncio.run(test())


def test_a_revision_in_fragments_is_one_batch_over_two_streams() -> None:
    async def first(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.send(event(5, b"a"), event(5, b"b"), fragment=True)
        await session.fail(grpc.StatusCode.UNAVAILABLE)

    async def second(session: WatchSession) -> None:
        assert (await session.create(revision=9)).start_revision == 5
        await session.send(event(5, b"a"), fragment=True)
        await session.send(event(5, b"b"), event(5, b"c"))
        await session.stay()

    async def test() -> None:
        async with FakeEtcd(first, second) as server, client_of(server) as client:
            async for batch in client.watch(prefix=b"").batches():
                assert batch.revision == 5
                assert [one.key for one in batch.events] == [b"a", b"b", b"c"]
                break

    asyncio.run(test())


def test_what_came_is_read_before_it_is_told_that_history_is_gone() -> None:
    async def first(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.send(event(5, b"a"))
        await session.fail(grpc.StatusCode.UNAVAILABLE)

    async def second(session: WatchSession) -> None:
        created = await session.create(revision=99)
        await session.send(
            watch_id=created.watch_id, canceled=True, compact_revision=50, revision=99
        )
        await session.stay()

    async def test() -> None:
        async with FakeEtcd(first, second) as server, client_of(server) as client:
            watch = client.watch(b"a")
            assert keys(await take(watch, 1)) == [(5, b"a")]
            with pytest.raises(CompactedError, match="revision 6 is forgotten") as caught:
                await anext(watch)
            assert caught.value.oldest == 50

    asyncio.run(test())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
            PermissionDeniedError,
        ),
        ("etcdserver: permission denied", PermissionDeniedError),
        ("etcdserver: mvcc: required revision has been compacted", CompactedError),
        ("mvcc: duplicate watch ID provided on the WatchStream", RefusedError),
    ],
)
def test_a_watch_that_is_refused_says_why_and_ends_no_other(reason: str, kind: type[Error]) -> None:
    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.request()
        await session.send(watch_id=-1, created=True, canceled=True, cancel_reason=reason)
        await session.send(event(5, b"a"))
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(session) as server,
            client_of(server) as client,
            client.watch(b"a") as watch,
        ):
            with pytest.raises(kind):
                await client.watch(b"secret").start()
            assert keys(await take(watch, 1)) == [(5, b"a")]

    asyncio.run(test())


def test_a_watch_that_a_server_takes_back_without_a_reason_goes_on() -> None:
    async def first(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.send(canceled=True)
        await session.stay()

    async def second(session: WatchSession) -> None:
        assert (await session.create(revision=4)).start_revision == 5
        await session.send(event(5, b"a"))
        await session.stay()

    async def test() -> None:
        async with FakeEtcd(first, second) as server, client_of(server) as client:
            assert keys(await take(client.watch(b"a"), 1)) == [(5, b"a")]

    asyncio.run(test())


def test_a_server_that_does_not_know_watches_is_told_of() -> None:
    async def session(session: WatchSession) -> None:
        await session.fail(grpc.StatusCode.UNIMPLEMENTED, "unknown method")

    async def test() -> None:
        async with FakeEtcd(session) as server, client_of(server) as client:
            with pytest.raises(UnsupportedError):
                await client.watch(b"a").start()

    asyncio.run(test())


async def mute(session: WatchSession) -> None:
    """Takes everything and says nothing."""
    await session.request()
    await asyncio.Event().wait()


async def mute_later(session: WatchSession) -> None:
    await session.create(revision=4)
    await session.send(event(5, b"a"))
    assert (await session.request()).HasField("progress_request")
    await asyncio.Event().wait()


@pytest.mark.parametrize("silent", [mute, mute_later])
def test_a_silent_stream_is_left_for_another(
    silent: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "SILENCE_S", 0.05)

    async def lives(session: WatchSession) -> None:
        created = await session.create(revision=4)
        await session.send(*(event(n, b"a") for n in range(created.start_revision or 5, 7)))
        while (await session.request()).HasField("progress_request"):
            await session.send(watch_id=-1, revision=6)

    async def test() -> None:
        retry = RetryPolicy(attempt_timeout_s=0.05)
        async with (
            # On a loaded machine the one that lives can be late, and is left for another as well.
            FakeEtcd(silent, *[lives] * 1000) as server,
            client_of(server, retry=retry) as client,
            client.watch(b"a") as watch,
        ):
            assert keys(await take(watch, 2)) == [(5, b"a"), (6, b"a")]

    asyncio.run(test())


def test_a_stream_that_answers_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_stream, "SILENCE_S", 0.5)

    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        for _ in range(2):
            assert (await session.request()).HasField("progress_request")
            await session.send(watch_id=-1, revision=8)
        await session.send(event(9, b"a"))
        await asyncio.Event().wait()

    async def test() -> None:
        async with (
            FakeEtcd(session) as server,
            client_of(server) as client,
            client.watch(b"a") as watch,
        ):
            batches = watch.batches()
            found = [batch async for batch in first(batches, 2)]
            assert [(batch.revision, len(batch.events)) for batch in found] == [(8, 0), (9, 1)]

    asyncio.run(test())


async def first(items: Any, count: int) -> Any:
    async for item in items:
        yield item
        count -= 1
        if not count:
            return


def test_progress_can_be_asked_for() -> None:
    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        assert (await session.request()).HasField("progress_request")
        await session.send(event(5, b"a"))
        await session.send(watch_id=-1, revision=8)
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(session) as server,
            client_of(server) as client,
            client.watch(b"a") as watch,
        ):
            await watch.ask_progress()
            found = [batch async for batch in first(watch.batches(), 2)]
            assert [(batch.revision, len(batch.events)) for batch in found] == [(5, 1), (8, 0)]
            assert watch.revision == 8

    asyncio.run(test())


def test_a_watch_that_is_not_read_is_taken_off_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_stream, "QUEUE_BYTES_MAX", 1000)

    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        sent = 5
        await session.create(revision=4)  # of the other one, which is read
        while True:
            await session.send(event(sent, b"a", bytes(100)))
            sent += 1
            if sent == 30:
                break
        assert await session.cancelled() == 1
        # What is on its way still comes, and is nobody's.
        await session.send(event(sent, b"a"))
        await session.send(event(30, b"b"), watch_id=2)
        again = (await session.request()).create_request
        assert 5 < again.start_revision < 30
        watch_id = again.watch_id
        await session.send(watch_id=watch_id, created=True, revision=30)
        await session.send(
            *(event(n, b"a") for n in range(again.start_revision, 32)), watch_id=watch_id
        )
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(session) as server,
            client_of(server) as client,
            client.watch(b"a") as slow,
            client.watch(b"b") as quick,
        ):
            assert keys(await take(quick, 1)) == [(30, b"b")]
            found = await take(slow, 27)
            assert keys(found) == [(n, b"a") for n in range(5, 32)]

    asyncio.run(test())


def test_all_watches_share_a_stream_which_ends_with_the_last() -> None:
    ended = asyncio.Event()

    async def session(session: WatchSession) -> None:
        try:
            await session.create(revision=4)
            await session.create(revision=4)
            assert await session.cancelled() == 1
            await session.send(event(5, b"b"), watch_id=2)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def test() -> None:
        async with FakeEtcd(session) as server, client_of(server) as client:
            one = await client.watch(b"a").start()
            other = await client.watch(b"b").start()
            await one.close()
            assert keys(await take(other, 1)) == [(5, b"b")]
            await other.close()
            await ended.wait()
            with pytest.raises(StopAsyncIteration):
                await anext(one)
            with pytest.raises(ClosedError):
                await other.next()

    asyncio.run(test())


def test_a_watch_that_nobody_uses_any_more_is_taken_off() -> None:
    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.create(revision=4)
        assert await session.cancelled() == 1
        await session.send(event(5, b"b"), watch_id=2)
        await session.stay()

    async def test() -> None:
        async with FakeEtcd(session) as server, client_of(server) as client:
            forgotten = await client.watch(b"a").start()
            kept = await client.watch(b"b").start()
            del forgotten
            gc.collect()
            assert keys(await take(kept, 1)) == [(5, b"b")]

    asyncio.run(test())


def test_who_closes_the_client_ends_its_watches() -> None:
    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.stay()

    async def test() -> None:
        async with FakeEtcd(session) as server:
            client = client_of(server)
            watch = await client.watch(b"a").start()
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(ClosedError, match="client was closed"):
                await waiting
            with pytest.raises(ClosedError):
                await client.watch(b"a").start()

    asyncio.run(test())


def test_without_a_server_it_says_so_in_time_and_may_be_tried_again() -> None:
    async def test() -> None:
        async with FakeEtcd() as server:
            address = server.address
        async with AsyncClient(address, timeout=1) as client:
            with pytest.raises(UnavailableError, match="cannot connect"):
                await client.watch(b"a").start()

    asyncio.run(test())


def test_waiting_with_a_timeout_loses_nothing() -> None:
    go_on = asyncio.Event()

    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        await go_on.wait()
        await session.send(event(5, b"a"))
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(session) as server,
            client_of(server) as client,
            client.watch(b"a") as watch,
        ):
            assert await watch.next(timeout=0.01) is None
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.01)
            go_on.set()
            found = await watch.next()
            assert found is not None
            assert found.revision == 5

    asyncio.run(test())


def test_a_token_that_has_expired_is_renewed() -> None:
    tokens = iter(["one", "two"])

    async def authenticate(request: Any, context: Any) -> etcd_pb2.AuthenticateResponse:
        assert (request.name, request.password) == ("me", "secret")
        return etcd_pb2.AuthenticateResponse(token=next(tokens))

    async def first(session: WatchSession) -> None:
        assert session.metadata["token"] == "one"
        await session.create(revision=4)
        await session.fail(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")

    async def second(session: WatchSession) -> None:
        assert session.metadata["token"] == "two"
        await session.create(revision=4)
        await session.send(event(5, b"a"))
        await session.stay()

    async def test() -> None:
        async with (
            FakeEtcd(first, second, Authenticate=authenticate) as server,
            client_of(server, user="me", password="secret") as client,
        ):
            assert keys(await take(client.watch(b"a"), 1)) == [(5, b"a")]

    asyncio.run(test())


def test_threads_read_and_close_a_watch() -> None:
    begun = asyncio.Event()

    async def session(session: WatchSession) -> None:
        await session.create(revision=4)
        await session.send(event(5, b"a"), event(6, b"a"))
        begun.set()
        await session.stay()

    def blocking(address: str) -> tuple[Client, Any]:
        client = Client(address, timeout=30)
        return client, client.watch(b"a").start()

    async def test() -> None:
        async with FakeEtcd(session) as server:
            client, watch = await asyncio.to_thread(blocking, server.address)
            reading = asyncio.ensure_future(asyncio.to_thread(list, watch))
            await begun.wait()
            while watch.revision < 6:
                await asyncio.sleep(0)
            await asyncio.to_thread(watch.close)
            assert keys(await reading) == [(5, b"a"), (6, b"a")]
            await asyncio.to_thread(client.close)

    asyncio.run(test())


def test_watches_are_asked_for_something() -> None:
    client = AsyncClient()
    with pytest.raises(InvalidArgumentError, match="sees nothing"):
        client.watch(b"a", puts=False, deletes=False)
    with pytest.raises(InvalidArgumentError, match="0 or more"):
        client.watch(b"a", from_revision=-1)
