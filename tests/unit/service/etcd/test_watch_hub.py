"""The hub in the cases that a random play seldom meets."""

from __future__ import annotations

import errno

import pytest

from kvstore.errors import ClosedError, IntegrityCode, StorageError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import hub as hub_module
from kvstore.service.etcd.hub import WatchBounds
from kvstore.service.etcd.watch_source import Wanted
from kvstore.service.etcd.watch_words import (
    NO_WATCH,
    Canceled,
    Created,
    Events,
    Progress,
    WatchRequest,
)
from kvstore.state.mvcc.answers import Event
from tests.unit.service.etcd.fake_source import FakeSource
from tests.unit.service.etcd.hub_stage import Client, Stage, encode
from tests.watch_validator import violations


def revisions(client: Client, watch_id: int = 0) -> list[int]:
    return [event.kv.mod_revision for event in client.events(watch_id)]


def check(stage: Stage, client: Client, watch_id: int = 0) -> None:
    watched = client.watched[watch_id]
    assert violations(watched, stage.source.history, applied=stage.source.revision) == []


# --- live ------------------------------------------------------------------------------------


def test_live_events_ask_no_disk_and_are_there_in_the_turn_that_applied_them() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    client.take_all()
    assert stage.put((b"a", b"1"), (b"b", b"2")) == 2
    assert client.woken == 2
    (message,) = client.take()
    assert isinstance(message, Events)
    assert revisions(client) == [2]
    assert not stage.jobs


def test_what_happens_while_a_write_is_pending_is_one_message() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    client.take_all()
    for _ in range(10):
        stage.put((b"a", b""))
    (message,) = client.take()
    assert (message.revision, revisions(client)) == (11, [*range(2, 12)])


def test_an_event_is_encoded_once_for_all_who_get_it_alike() -> None:
    stage = Stage()
    calls: list[bool] = []

    def counted(event: Event, prev_kv: bool) -> Event:
        calls.append(prev_kv)
        return encode(event, prev_kv)

    streams = [stage.hub.open(counted, lambda: None, lambda error: None) for _ in range(50)]
    for number, stream in enumerate(streams):
        client_request = [b"a", b""] if number % 2 else [b"a", b"b"]
        for prev_kv in (False, True):
            stream.create(WatchRequest(*client_request, prev_kv=prev_kv))
    stage.put((b"a", b"1"))
    assert sorted(calls) == [False, True]


def test_only_who_wants_what_a_key_was_waits_for_the_disk_to_tell_it() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a", prev_kv=True)
    client.create(b"a")
    client.create(b"b", prev_kv=True)
    stage.put((b"a", b"1"), (b"b", b"1"))
    stage.source.forgets_previous = lambda event: event.kv.key == b"a"
    stage.put((b"a", b"2"), (b"b", b"2"))
    client.take_all()
    assert [revisions(client, watch_id) for watch_id in range(3)] == [[2], [2, 3], [2, 3]]
    stage.settle(client)
    for watch_id in range(3):
        check(stage, client, watch_id)
    stage.put((b"b", b"3"))
    assert stage.hub.figures().behind == 0


def test_when_memory_knows_nothing_events_come_from_the_disk_in_order() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    stage.source.is_cold = lambda revision: revision == 3
    for _ in range(5):
        stage.put((b"a", b""))
    client.take_all()
    assert revisions(client) == [2]
    stage.settle(client)
    check(stage, client)
    assert stage.source.reads == [(3, 3, 0)]


def test_a_watch_that_begins_while_the_disk_is_asked_gets_what_is_later_and_no_more() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    stage.source.is_cold = lambda revision: revision == 3
    for _ in range(3):
        stage.put((b"a", b""))
    client.create(b"\0", b"\0")
    stage.put((b"a", b""))
    stage.settle(client)
    check(stage, client, 0)
    check(stage, client, 1)
    assert revisions(client, 1) == [5]


# --- history ---------------------------------------------------------------------------------


def test_watches_from_the_past_share_the_pages() -> None:
    stage = Stage()
    for number in range(50):
        stage.put((b"a", b"%d" % number))
    clients = [Client(stage) for _ in range(10)]
    for client in clients:
        for start in range(2, 12):
            client.create(b"a", start=start)
    stage.settle(*clients)
    assert len(stage.source.reads) == 1
    for client in clients:
        for watch_id in range(10):
            check(stage, client, watch_id)


def test_what_a_page_is_read_for_alone_is_read() -> None:
    stage = Stage()
    wanted: list[bytes] = []
    for key in (b"a", b"b", b"c"):
        stage.put((key, b""))
    events = stage.source.events

    def spying(first: int, last: int, size: int, previous: bool, wants: Wanted, sub: int) -> object:
        wanted.extend(key for key in (b"a", b"b", b"c") if wants(key))
        return events(first, last, size, previous, None, sub)

    stage.source.events = spying  # type: ignore[method-assign, assignment]
    client = Client(stage)
    client.create(b"b", b"c", 2)
    stage.settle(client)
    assert wanted == [b"b"]
    assert revisions(client) == [3]


def test_who_reads_slowly_falls_behind_and_gets_everything_all_the_same() -> None:
    stage = Stage(bounds=WatchBounds(stream=1000))
    client = Client(stage)
    client.create(b"a")
    client.take_all()
    for number in range(100):
        stage.put((b"a", b"%d" % number))
    assert stage.hub.figures().behind == 1
    assert stage.hub.figures().held_bytes <= 1000
    assert not stage.jobs  # nobody has come for what is there
    stage.settle(client)
    check(stage, client)
    assert stage.hub.figures().behind == 0


def test_a_watch_from_the_compact_revision_itself_sees_the_delete_there() -> None:
    stage = Stage()
    stage.put((b"a", b"1"))
    stage.put((b"a", b"2"))
    stage.delete(b"a")
    stage.compact(4)
    client = Client(stage)
    client.create(b"a", start=4, prev_kv=True)
    stage.settle(client)
    (event,) = client.events()
    assert event.is_delete
    assert event.previous is not None
    assert event.previous.value == b"2"


def test_a_start_before_the_compact_revision_is_created_and_then_canceled() -> None:
    stage = Stage()
    for _ in range(5):
        stage.put((b"a", b""))
    stage.compact(4)
    client = Client(stage)
    client.create(b"a", start=3)
    assert client.take_all() == [Created(0, 6), Canceled(0, 0, compact_revision=4)]
    assert not stage.hub.figures().watches
    client.stream.cancel(0)  # is nobody any more
    assert client.take_all() == []


def test_a_slow_watch_that_compaction_overtakes_is_told_and_never_skipped_over() -> None:
    stage = Stage(bounds=WatchBounds(stream=1000))
    client = Client(stage)
    client.create(b"a")
    client.take_all()
    for _ in range(50):
        stage.put((b"a", b""))
    queued = client.stream.watches[0].next - 1
    stage.compact(40)
    stage.settle(client)
    assert revisions(client) == [*range(2, queued + 1)]
    assert client.messages[-1] == Canceled(0, 0, compact_revision=40)
    assert violations(client.watched[0], stage.source.history) == []


@pytest.mark.parametrize(("beyond", "ends"), [(-1, False), (0, False), (1, True)])
def test_a_watch_that_is_behind_ends_if_compaction_went_beyond_its_next_revision(
    beyond: int, ends: bool
) -> None:
    stage = Stage(bounds=WatchBounds(stream=1000))
    client = Client(stage)
    client.create(b"a")
    client.take_all()
    for _ in range(50):
        stage.put((b"a", b""))
    stage.compact(client.stream.watches[0].next + beyond)
    stage.settle(client)
    assert (not client.stream.watches) is ends
    if not ends:
        check(stage, client)


def test_a_page_that_compaction_overtakes_while_it_is_read_cancels_who_needs_it() -> None:
    stage = Stage()
    for _ in range(10):
        stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=2)
    client.create(b"a", start=9)
    stage.turn()
    stage.compact(9)
    stage.settle(client)
    assert Canceled(0, 0, compact_revision=9) in client.messages
    assert client.events(0) == []
    check(stage, client, 1)


def test_a_page_that_was_read_in_time_counts_though_compaction_has_passed() -> None:
    stage = Stage()
    for _ in range(10):
        stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=2)
    stage.turn()
    job, then = stage.jobs.popleft()
    job()
    stage.compact(9)
    then()
    stage.settle(client)
    check(stage, client)


def test_watches_that_are_up_to_date_are_never_canceled_by_a_compaction() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    client.create(b"b")
    for _ in range(20):
        stage.compact(stage.put((b"a", b"")))
    stage.settle(client)
    check(stage, client, 0)
    assert len(client.stream.watches) == 2


def test_live_watches_whose_events_are_gone_are_told() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    stage.source.is_cold = lambda revision: True
    stage.put((b"a", b""))
    stage.put((b"a", b""))
    stage.compact(3)
    stage.settle(client)
    assert client.messages[-1] == Canceled(0, 0, compact_revision=3)


# --- the future ------------------------------------------------------------------------------


def test_a_watch_on_a_future_revision_hears_of_nothing_before_it() -> None:
    stage = Stage(notify_s=1.0)
    client = Client(stage)
    client.create(b"a", start=5, progress_notify=True)
    client.stream.request_progress()
    for expected in ([], [], [], [5], [5, 6]):
        stage.put((b"a", b""))
        stage.clock += 5
        stage.hub.tick()
        stage.settle(client)
        assert revisions(client) == expected
    progress = [message for message in client.messages if isinstance(message, Progress)]
    assert progress
    assert all(message.revision >= 5 for message in progress)


# --- other members ---------------------------------------------------------------------------


def test_after_an_install_each_watch_goes_on_where_it_was() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a", prev_kv=True)
    stage.put((b"a", b"1"))
    client.take_all()
    installed = FakeSource(stage.source.history)
    installed.is_cold = lambda revision: True
    for _ in range(30):
        stage.source.put((b"a", b""))
    installed.revision = stage.source.revision
    stage.source.trouble = ClosedError("replaced")
    stage.hub.applied()
    stage.hub.follow(installed)
    stage.settle(client)
    check(stage, client)


def test_after_an_install_beyond_what_is_kept_they_are_told_so() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    client.create(b"a", start=50)
    for _ in range(30):
        stage.source.put((b"a", b""))
    installed = FakeSource(stage.source.history)
    installed.revision, installed.compacted = 31, 20
    stage.hub.follow(installed)
    stage.settle(client)
    assert client.messages[-1] == Canceled(0, 0, compact_revision=20)
    assert [*client.stream.watches] == [1]


def test_a_member_that_is_behind_repeats_nothing_and_shows_nothing_that_it_lacks() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    for _ in range(10):
        stage.put((b"a", b""))
    stage.settle(client)
    behind = FakeSource(stage.source.history)
    behind.revision = 5
    stage.hub.follow(behind)
    client.create(b"a")
    assert client.take_all() == [Created(1, 5)]
    client.stream.request_progress()
    client.take_all()
    for behind.revision in range(6, 12):
        stage.hub.applied()
        stage.hub.tick()
        stage.settle(client)
    stage.hub.tick()
    stage.settle(client)
    assert revisions(client, 0) == [*range(2, 12)]
    assert revisions(client, 1) == [*range(6, 12)]
    assert [message for message in client.messages if isinstance(message, Progress)] == [
        Progress(NO_WATCH, 11)
    ]


def test_a_page_of_the_member_before_is_not_used() -> None:
    stage = Stage()
    for _ in range(5):
        stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=2)
    stage.turn()
    (late,) = stage.jobs
    stage.jobs.clear()
    other = FakeSource(stage.source.history)
    other.revision = 6
    stage.hub.follow(other)
    late[0]()
    late[1]()
    assert revisions(client) == []
    stage.settle(client)
    check(stage, client)


# --- trouble ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 2])
def test_damage_is_reported_and_watches_go_on_elsewhere(start: int) -> None:
    stage = Stage()
    stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=start)
    damage = StorageError("bad block", code=IntegrityCode.INVALID_RECORD)
    stage.source.trouble = damage
    stage.put((b"a", b""))
    stage.settle(client)
    assert stage.damages == [damage]
    stage.put((b"a", b""))
    stage.settle(client)
    other = FakeSource(stage.source.history)
    other.revision = stage.source.revision
    stage.hub.follow(other)
    stage.settle(client)
    check(stage, client)
    assert stage.damages == [damage]


@pytest.mark.parametrize("start", [0, 2])
def test_what_the_system_lacked_is_asked_for_again_at_the_next_tick(start: int) -> None:
    stage = Stage()
    stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=start)
    stage.source.trouble = StorageError("no descriptors", errno=errno.EMFILE)
    stage.put((b"a", b""))
    stage.settle(client)
    stage.source.trouble = None
    stage.put((b"a", b""))
    stage.settle(client)
    assert revisions(client) == []
    stage.hub.tick()
    stage.settle(client)
    check(stage, client)
    assert not stage.damages


def test_a_disk_that_hangs_holds_up_those_who_need_it_and_ends_their_streams() -> None:
    stage = Stage(bounds=WatchBounds(stuck_ticks=10))
    stage.put((b"a", b""))
    late, live = Client(stage), Client(stage)
    late.create(b"a", start=2)
    live.create(b"a")
    stage.turn()
    assert len(stage.jobs) == 1
    for _ in range(9):
        stage.hub.tick()
        stage.put((b"a", b""))
        live.take_all()
    assert late.ended is None
    stage.hub.tick()
    stage.hub.tick()
    assert isinstance(late.ended, EtcdError)
    assert late.ended.reason is Reason.TIMED_OUT
    assert live.ended is None
    check(stage, live)
    # Whoever comes meanwhile isn't kept waiting; then the disk comes back.
    another = Client(stage)
    another.create(b"a", start=2)
    stage.turn()
    assert len(stage.jobs) == 1
    stage.hub.tick()
    assert another.ended is not None
    last = Client(stage)
    last.create(b"a", start=2)
    stage.settle(last)
    check(stage, last)


def test_a_disk_that_is_slow_but_gets_on_is_waited_for() -> None:
    stage = Stage(bounds=WatchBounds(stuck_ticks=10))
    stage.put((b"a", b""))
    events = stage.source.events

    def slow(first: int, last: int, size: int, previous: bool, wants: Wanted, sub: int) -> object:
        for _ in range(50):
            wants(b"a")
            stage.hub.tick()
        return events(first, last, size, previous, wants, sub)

    stage.source.events = slow  # type: ignore[method-assign, assignment]
    client = Client(stage)
    client.create(b"a", start=2)
    stage.settle(client)
    assert client.ended is None
    check(stage, client)


def test_when_what_just_happened_hangs_on_the_disk_all_are_sent_elsewhere() -> None:
    stage = Stage(bounds=WatchBounds(stuck_ticks=10))
    client = Client(stage)
    client.create(b"a")
    stage.source.is_cold = lambda revision: True
    stage.put((b"a", b""))
    for _ in range(12):
        stage.hub.tick()
    assert client.ended is not None
    assert stage.hub.figures().streams == 0


def test_before_a_member_can_be_followed_there_is_no_stream() -> None:
    stage = Stage()
    stage.hub._source = None
    with pytest.raises(EtcdError, match="no leader"):
        Client(stage)


# --- bounds ----------------------------------------------------------------------------------


def test_streams_that_nobody_reads_hold_no_more_than_their_bound() -> None:
    stage = Stage(bounds=WatchBounds(stream=50_000, held=200_000))
    clients = [Client(stage) for _ in range(200)]
    for number, client in enumerate(clients):
        client.create(b"%04d" % number)
        client.take_all()
    reader = Client(stage)
    reader.create(b"\0", b"\0")
    reader.take_all()
    value = b"v" * 3000
    for _ in range(5):
        for number in range(200):
            stage.put((b"%04d" % number, value))
            reader.take_all()
            assert stage.hub.figures().held_bytes <= 210_000
    check(stage, reader)
    assert stage.hub.figures().parked > 0
    stage.settle(*clients)
    for client in clients:
        check(stage, client)


def test_ten_thousand_watches_cost_an_event_only_what_is_theirs() -> None:
    stage = Stage()
    clients = [Client(stage) for _ in range(10)]
    for number in range(10_000):
        client = clients[number % 10]
        client.create(b"/%05d/" % number, b"/%05d0" % number)
    asked: list[bytes] = []
    find = stage.hub.index.find
    stage.hub.index.find = lambda key: asked.append(key) or find(key)  # type: ignore[func-returns-value, method-assign]
    stage.put((b"/04711/x", b""))
    assert len(asked) <= 2
    (client,) = [client for client in clients if client.woken and client.stream.queued_weight]
    assert revisions_after_take(client) == [2]
    for client in clients:
        client.stream.close()
    assert len(stage.hub.index) > 9000  # it takes its time
    stage.put((b"/04712/x", b""))
    stage.settle()
    assert len(stage.hub.index) == 0
    assert stage.hub.figures().held_bytes == 0


def revisions_after_take(client: Client) -> list[int]:
    client.take_all()
    return [
        event.kv.mod_revision
        for watched in client.watched.values()
        for seen in watched.seen
        for event in seen.events
    ]


def test_watches_beyond_their_memory_are_refused() -> None:
    stage = Stage(bounds=WatchBounds(watches=11_000))
    client = Client(stage)
    for _ in range(20):
        client.create(b"a" * 500)
    refused = [message for message in client.take_all() if isinstance(message, Canceled)]
    assert refused == [
        Canceled(NO_WATCH, 1, reason="etcdserver: too many requests", created=True)
    ] * (20 - len(client.stream.watches))
    assert len(client.stream.watches) == 4
    client.stream.cancel(0)
    client.create(b"b")
    client.take_all()
    assert len(client.stream.watches) == 4


def test_events_of_a_megabyte_and_a_half_go_one_by_one() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a", prev_kv=True)
    client.take_all()
    for number in range(30):
        stage.put((b"a", b"%d" % number * (3 << 19)))
    assert stage.hub.figures().held_bytes <= WatchBounds().stream + (4 << 20)
    stage.settle(client)
    check(stage, client)
    assert all(len(seen.events) == 1 for seen in client.watched[0].seen)


def test_one_revision_may_be_more_than_a_stream_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(bounds=WatchBounds(stream=1000, held=1000))
    client, other = Client(stage), Client(stage)
    client.create(b"a", b"b")
    other.create(b"a", b"b")
    stage.put(*[(b"a%05d" % number, b"") for number in range(1000)])
    stage.put((b"a", b""))
    stage.settle(client, other)
    check(stage, client)
    check(stage, other)


@pytest.mark.parametrize("fragment", [True, False])
@pytest.mark.parametrize("start", [0, 3])
def test_a_delete_of_many_keys_is_read_in_pages_and_sent_at_one_revision(
    monkeypatch: pytest.MonkeyPatch, fragment: bool, start: int
) -> None:
    monkeypatch.setattr(hub_module, "LIVE_BYTES", 100_000)
    stage = Stage()
    client = Client(stage)
    keys = [b"a%06d" % number for number in range(20_000)]
    stage.put(*[(key, b"") for key in keys])
    if not start:
        client.create(b"a", b"b", start, fragment=fragment, prev_kv=True)
    stage.delete(*keys)
    if start:
        client.create(b"a", b"b", start, fragment=fragment, prev_kv=True)
    # What begins and what happens meanwhile doesn't mix with it.
    client.create(b"\0", b"\0")
    stage.put((b"a", b"later"))
    stage.settle(client)
    check(stage, client, 0)
    check(stage, client, 1)
    (of_delete,) = {
        message.fragment or len(message.chunks[0].pieces) < 20_000
        for message in client.messages
        if isinstance(message, Events) and message.chunks[0].revisions[0] == 3
    }
    assert of_delete is fragment


# --- ends ------------------------------------------------------------------------------------


def test_a_stream_that_is_gone_between_created_and_the_first_event_can_be_resumed() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    (created,) = client.take_all()
    stage.put((b"a", b"1"))
    client.stream.close()
    stage.put((b"a", b"2"))
    again = Client(stage)
    again.create(b"a", start=created.revision + 1)
    stage.settle(again)
    check(stage, again)
    assert revisions(again) == [2, 3]


def test_nothing_of_a_watch_follows_its_cancel() -> None:
    stage = Stage()
    client = Client(stage)
    client.create(b"a")
    client.create(b"a")
    client.take_all()
    stage.put((b"a", b""))
    client.stream.cancel(0)
    stage.put((b"a", b""))
    assert [type(message) for message in client.take_all()] == [Events, Canceled]
    assert revisions(client, 0) == []
    assert revisions(client, 1) == [2, 3]
    assert stage.hub.figures().held_bytes == 0


def test_a_watch_canceled_while_its_page_is_read_gets_none_of_it() -> None:
    stage = Stage()
    stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=2)
    client.create(b"a", start=2)
    stage.turn()
    client.stream.cancel(0)
    stage.settle(client)
    assert revisions(client, 0) == []
    check(stage, client, 1)


# --- progress --------------------------------------------------------------------------------


def test_progress_is_told_to_who_asked_for_it_once_a_while_and_only_if_nothing_came() -> None:
    stage = Stage(notify_s=10.0)
    client = Client(stage)
    client.create(b"a", progress_notify=True)
    client.create(b"a")
    client.take_all()
    told: list[tuple[float, int]] = []
    for tick in range(60):
        stage.clock += 1
        stage.put((b"b", b""))
        if tick == 20:
            stage.put((b"a", b""))
        stage.hub.tick()
        told += [
            (stage.clock, message.watch_id)
            for message in client.take_all()
            if isinstance(message, Progress)
        ]
    assert {watch_id for _, watch_id in told} == {0}
    times = [when for when, _ in told]
    assert 3 <= len(times) <= 6
    assert not any(20 < when < 31 for when in times)
    check(stage, client)


def test_who_is_behind_hears_of_no_progress_before_it_has_caught_up() -> None:
    stage = Stage(notify_s=1.0)
    for _ in range(5):
        stage.put((b"a", b""))
    client = Client(stage)
    client.create(b"a", start=2, progress_notify=True)
    client.create(b"b")
    client.stream.request_progress()
    for _ in range(5):
        stage.clock += 2
        stage.hub.tick()
    assert all(isinstance(message, Created) for message in client.take_all())
    stage.settle(client)
    assert [type(message) for message in client.messages[2:]] == [Events, Progress]
    assert client.messages[-1] == Progress(NO_WATCH, 6)


def test_requests_for_progress_that_nobody_answers_don_t_pile_up() -> None:
    stage = Stage()
    client = Client(stage)
    client.stream.request_progress()
    assert client.take_all() == []  # there is no watch
    client.create(b"a")
    for _ in range(1000):
        client.stream.request_progress()
    assert [type(message) for message in client.take_all()] == [Created, Progress, Progress]
