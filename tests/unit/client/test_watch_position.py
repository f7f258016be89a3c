"""Where a watch is, over streams that are lost between any two messages."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.etcd import etcd_pb2
from kvstore.client.watch_position import Batch, Delivery, Position, Unpacking


def event(revision: int, key: bytes) -> etcd_pb2.Event:
    return etcd_pb2.Event(kv=etcd_pb2.KeyValue(key=key, mod_revision=revision, version=1))


def response(
    *events: etcd_pb2.Event, fragment: bool = False, revision: int = 0
) -> etcd_pb2.WatchResponse:
    header = etcd_pb2.ResponseHeader(revision=revision)
    return etcd_pb2.WatchResponse(header=header, events=events, fragment=fragment)


def seen(delivery: Delivery) -> list[tuple[int, bytes]]:
    return [(one.revision, one.key) for one in delivery.events]


def test_from_now_on_is_after_what_the_server_said() -> None:
    position = Position(0)
    position.began(7)
    assert position.next == 8
    assert seen(position.take(response(event(8, b"a")))) == [(8, b"a")]
    assert position.next == 9


def test_a_new_stream_of_an_older_member_repeats_nothing() -> None:
    position = Position(5)
    position.began(9)
    position.take(response(event(5, b"a"), event(6, b"a"), event(6, b"b")))
    position.began(4)
    assert position.next == 7
    assert seen(position.take(response(event(6, b"b"), event(7, b"a")))) == [(7, b"a")]


def test_a_fragmented_revision_is_resumed_in_its_middle() -> None:
    position = Position(5)
    position.began(9)
    first = position.take(response(event(5, b"a"), event(6, b"a"), event(6, b"b"), fragment=True))
    assert seen(first) == [(5, b"a"), (6, b"a"), (6, b"b")]
    assert first.revision == 5
    # Lost between two fragments; the other member cuts them elsewhere.
    position.began(9)
    assert position.next == 6
    again = position.take(response(event(6, b"a"), fragment=True))
    assert seen(again) == []
    last = position.take(response(event(6, b"b"), event(6, b"c")))
    assert seen(last) == [(6, b"c")]
    assert last.revision == 6


def test_progress_moves_on_and_never_back() -> None:
    position = Position(5)
    position.began(9)
    assert position.take(response(revision=8)).revision == 8
    assert position.take(response(revision=3)).revision == 8
    assert position.next == 9


def test_a_watch_of_the_future_stays_there() -> None:
    position = Position(100)
    position.began(9)
    position.take(response(revision=20))
    assert position.next == 100


@given(st.data())
def test_whatever_is_lost_each_event_comes_once_and_in_order(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=8), label="events of each revision")
    events = [
        event(revision, b"%d" % sub)
        for revision, size in enumerate(sizes, start=2)
        for sub in range(size)
    ]
    position, unpacking = Position(2), Unpacking()
    came: list[tuple[int, bytes]] = []
    batches: list[Batch] = []
    by_batch = data.draw(st.booleans(), label="by batch")
    while position.next < 2 + len(sizes):
        position.began(data.draw(st.integers(1, 2 + len(sizes)), label="header"))
        left = [one for one in events if one.kv.mod_revision >= position.next]
        streamed = 0
        lost = data.draw(st.integers(0, 3), label="messages until the stream is lost")
        for _ in range(lost + 1):
            size = data.draw(st.integers(1, 5), label="events of a message")
            part = left[streamed : streamed + size]
            streamed += size
            if not part:
                break
            following = left[streamed : streamed + 1]
            fragment = bool(following) and following[0].kv.mod_revision == part[-1].kv.mod_revision
            unpacking.add(position.take(response(*part, fragment=fragment)))
        if by_batch:
            while (batch := unpacking.batch()) is not None:
                batches.append(batch)
        else:
            while (one := unpacking.event()) is not None:
                came.append((one.revision, one.key))
    wanted = [(one.kv.mod_revision, one.kv.key) for one in events]
    if by_batch:
        whole = [(batch.revision, batch.events) for batch in batches if batch.events]
        assert [(r, [e.key for e in found]) for r, found in whole] == [
            (revision, [key for _, key in pairs])
            for revision, pairs in groupby(wanted, key=lambda pair: pair[0])
        ]
    else:
        assert came == wanted
        assert unpacking.revision == 1 + len(sizes) or not sizes


def test_what_was_handed_out_is_known_by_its_revision() -> None:
    taken = Position(2).take(response(event(2, b"a"), event(3, b"a"), event(3, b"b")))
    unpacking = Unpacking()
    unpacking.add(taken)
    assert unpacking.revision == 0
    revisions = []
    while unpacking.event() is not None:
        revisions.append(unpacking.revision)
    assert revisions == [2, 2, 3]
    unpacking.add(Delivery((), 9))
    assert unpacking.revision == 9
    assert unpacking.batch() == Batch(9, ())
    assert unpacking.batch() is None
