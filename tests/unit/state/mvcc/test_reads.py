"""Reads that go through no log, while others write and compact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from kvstore.errors import CorruptionError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import EventPage, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.hashing import hash_kv
from kvstore.state.mvcc.reads import read_events, read_events_cached, read_range, read_txn
from kvstore.state.mvcc.requests import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
)
from kvstore.state.mvcc.source import ColdError, Standing
from tests.unit.state.mvcc.harness import ColdStore, EngineStore, Model, enabled
from tests.unit.state.mvcc.reading import events

ALL = Range(b"\0", b"\0")


@pytest.fixture
def model() -> Model:
    return enabled()


class Racing:
    """How far the state is; at its second asking something has happened in between."""

    def __init__(self, model: Model, happens: Callable[[], object], times: int = 1) -> None:
        self.model = model
        self.happens = happens
        self.asked = 0
        self.times = times

    def __call__(self) -> Standing:
        self.asked += 1
        if self.asked % 2 == 0 and self.asked <= 2 * self.times:
            self.happens()
        return self.model.standing


def refusal(read: Callable[[], object]) -> Reason:
    with pytest.raises(EtcdError) as caught:
        read()
    return caught.value.reason


def test_an_answer_that_is_too_large_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        model.do(Put(b"key%d" % number, bytes(1000)))
    monkeypatch.setattr("kvstore.state.mvcc.reads.ANSWER_BYTES_MAX", 5000)

    def read(request: Range) -> RangeAnswer:
        return read_range(model.store, lambda: model.standing, request)

    for request in (ALL, Range(*ALL[:2], limit=5), Range(*ALL[:2], sort_target=SortTarget.MOD)):
        assert refusal(partial(read, request)) is Reason.REQUEST_TOO_LARGE
    assert len(read(Range(*ALL[:2], limit=3)).kvs) == 3
    assert len(read(Range(*ALL[:2], limit=3, sort_target=SortTarget.VERSION)).kvs) == 3
    assert len(read(Range(*ALL[:2], keys_only=True)).kvs) == 10
    assert read(Range(*ALL[:2], count_only=True)).count == 10
    # All of a transaction together.
    one = Range(b"key1")
    assert len(read_txn(model.store, lambda: model.standing, Txn((), (one,) * 4)).answers) == 4
    much = Txn((), (one,) * 5)
    refused = refusal(lambda: read_txn(model.store, lambda: model.standing, much))
    assert refused is Reason.REQUEST_TOO_LARGE


def pages(
    model: Model, bytes_max: int, wanted: Callable[[bytes], bool] | None = None
) -> list[EventPage]:
    told, first, sub = [], 1, 0
    while first <= model.standing.revision:
        page = read_events(
            model.store,
            lambda: model.standing,
            first,
            model.standing.revision,
            bytes_max,
            wanted=wanted,
            sub=sub,
        )
        told.append(page)
        first, sub = page.next_revision, page.next_sub
    return told


# Ranges


def test_nothing_is_read_before_the_model_is_enabled() -> None:
    model = Model()
    assert refusal(lambda: read_range(model.store, lambda: model.standing, ALL)) is (
        Reason.NOT_CAPABLE
    )


def test_keys_that_sort_alike_come_in_their_order(model: Model) -> None:
    model.apply(*(Put(key, b"same") for key in (b"c", b"a", b"b")))
    for order in SortOrder:
        for limit in (0, 2):
            request = ALL._replace(sort_order=order, sort_target=SortTarget.VALUE, limit=limit)
            kvs = read_range(model.store, lambda: model.standing, request).kvs
            assert [kv.key for kv in kvs] == [b"a", b"b", b"c"][: limit or 3]


def test_what_is_read_at_a_revision_that_is_compacted_meanwhile_is_refused(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"a", b"2"))
    compacting = Racing(model, lambda: model.do(Compact(3)))
    past = Range(b"a", revision=2)
    assert refusal(lambda: read_range(model.store, compacting, past)) is Reason.COMPACTED


def test_what_is_read_of_now_is_read_again_where_that_was_compacted(model: Model) -> None:
    model.do(Put(b"a", b"1"))

    def overtake() -> None:
        model.apply(Put(b"a", b"2"))
        model.do(Compact(model.standing.revision))
        model.db.compact_range()

    answer = read_range(model.store, Racing(model, overtake), ALL)
    assert (answer.revision, answer.kvs[0].value) == (3, b"2")
    again_and_again = Racing(model, overtake, 100)
    assert refusal(lambda: read_range(model.store, again_and_again, ALL)) is (
        Reason.TOO_MANY_REQUESTS
    )


def test_history_that_is_missing_without_compaction_is_corruption(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"a", b"2"))
    model.db.retain_from(3)
    with pytest.raises(CorruptionError):
        read_range(model.store, lambda: model.standing, Range(b"a", revision=2))


def test_a_txn_that_only_reads_is_of_one_revision(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"b", b"2"))
    condition = Compare(b"a", CompareTarget.VALUE, CompareResult.EQUAL, b"1")
    request = Txn((condition,), (Range(b"b"), Range(b"a", revision=2)), (Range(b"c"),))

    def overtake() -> None:
        model.apply(Put(b"a", b"3"), DeleteRange(b"b"))

    answer = read_txn(model.store, Racing(model, overtake), request)
    assert answer.revision == 3
    assert [one.kvs[0].value for one in answer.answers if isinstance(one, RangeAnswer)] == [
        b"2",
        b"1",
    ]
    assert read_txn(model.store, lambda: model.standing, request) == (
        TxnAnswer(5, False, (RangeAnswer(5, (), False, 0),))
    )


@pytest.mark.parametrize(
    ("revision", "reason"),
    [(-1, Reason.COMPACTED), (1, Reason.COMPACTED), (4, Reason.FUTURE_REVISION)],
)
def test_a_txn_that_only_reads_is_refused_as_one_that_writes(
    model: Model, revision: int, reason: Reason
) -> None:
    model.apply(Put(b"a"), Put(b"a"), Compact(2))
    request = Txn((), (Range(b"a", revision=revision),), (Range(b"a", revision=9),))
    assert refusal(lambda: read_txn(model.store, lambda: model.standing, request)) is reason


def test_one_key_can_be_read_from_memory(model: Model) -> None:
    model.do(Put(b"a", b"1"))
    cold = ColdStore(model.db)
    assert read_range(cold, lambda: model.standing, Range(b"a")).count == 1
    with pytest.raises(ColdError):
        read_range(cold, lambda: model.standing, ALL)


# Events


def test_pages_are_of_whole_revisions(model: Model) -> None:
    for number in range(6):
        model.apply(Put(b"%d" % number, bytes(100)))
    one = 100 + 64 + 1
    assert [[revision for revision, _ in page.revisions] for page in pages(model, 2 * one)] == [
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    # At least one revision, whatever its size, and whole if it is one event.
    assert [page.next_sub for page in pages(model, 1)] == [0] * 6


def test_only_a_revision_that_is_too_large_alone_is_cut(model: Model) -> None:
    model.do(Put(b"x"))
    model.do(Txn((), tuple(Put(b"%d" % number, bytes(100)) for number in range(5))))
    model.do(Put(b"y"))
    told = pages(model, 2 * (100 + 64 + 1))
    shapes = [[(revision, len(kvs)) for revision, kvs in page.revisions] for page in told]
    assert shapes == [[(2, 1)], [(3, 2)], [(3, 2)], [(3, 1), (4, 1)]]
    assert [(page.next_revision, page.next_sub) for page in told] == [
        (3, 0),
        (3, 2),
        (3, 4),
        (5, 0),
    ]


def test_values_are_looked_up_of_wanted_keys_alone(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"b", b"2"), DeleteRange(b"a", b"\0"))
    asked = []

    class Asked(EngineStore):
        def get_versioned(
            self, key: bytes, sequence: int | None = None
        ) -> tuple[bytes, int] | None:
            asked.append(key)
            return super().get_versioned(key, sequence)

    page = read_events(
        Asked(model.db), lambda: model.standing, 1, 4, 1 << 20, wanted=lambda key: key == b"a"
    )
    assert [(revision, len(told)) for revision, told in page.revisions] == [(2, 1), (3, 0), (4, 1)]
    assert asked == [b"\1a"]


def test_events_below_the_compacted_revision_are_refused_even_if_it_moves(model: Model) -> None:
    model.apply(Put(b"a"), Put(b"a"), Put(b"a"))

    def read(standing: Callable[[], Standing]) -> EventPage:
        return read_events(model.store, standing, 2, 4, 1 << 20)

    assert read(lambda: model.standing).next_revision == 5
    assert refusal(lambda: read(Racing(model, lambda: model.do(Compact(3))))) is Reason.COMPACTED
    assert refusal(lambda: read(lambda: model.standing)) is Reason.COMPACTED
    assert [revision for revision, _ in events(model, 3)] == [3, 4]


def test_new_events_are_told_from_memory(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"b"))
    model.do(Txn((), (Put(b"a", b"2"), DeleteRange(b"b"))))
    store = model.store

    def cached(first: int, bytes_max: int = 1 << 20, previous: bool = False) -> EventPage:
        return read_events_cached(
            store, lambda: model.standing, first, 4, bytes_max, previous=previous
        )

    for previous in (False, True):
        whole = read_events(store, lambda: model.standing, 2, 4, 1 << 20, previous=previous)
        assert cached(2, previous=previous) == whole
    with pytest.raises(ColdError):
        cached(4, 1)
    assert cached(2, 1).next_revision == 3


def test_a_previous_value_that_is_cold_is_left_out(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"a", b"2"))

    class PastIsCold(ColdStore):
        def get_versioned(
            self, key: bytes, sequence: int | None = None
        ) -> tuple[bytes, int] | None:
            if sequence is not None and sequence < 3:
                raise ColdError(key)
            return model.store.get_versioned(key, sequence)

    page = read_events_cached(
        PastIsCold(model.db), lambda: model.standing, 3, 3, 1 << 20, previous=True
    )
    ((_, (event,)),) = page.revisions
    assert (event.kv.value, event.previous_revision, event.previous) == (b"2", 2, None)


# Hashes


def test_the_hash_is_of_what_can_be_read_and_not_of_how_it_is_stored(model: Model) -> None:
    other = enabled()
    for one in (model, other):
        one.apply(Put(b"a", b"1"), Put(b"b", b"2"), DeleteRange(b"a"), Put(b"a", b"3"))
    model.do(Compact(4))
    model.db.compact_range()
    model.restart()
    here = hash_kv(model.store, lambda: model.standing, 0)
    assert here != hash_kv(other.store, lambda: other.standing, 0)
    other.do(Compact(4))
    assert here == hash_kv(other.store, lambda: other.standing, 0)
    assert (here.revision, here.compacted, here.hash_revision) == (5, 4, 5)
    model.do(Put(b"c"))
    past = hash_kv(model.store, lambda: model.standing, 5)
    assert (past.hash, past.revision, past.hash_revision) == (here.hash, 6, 5)
    assert refusal(lambda: hash_kv(model.store, lambda: model.standing, 3)) is Reason.COMPACTED
    assert refusal(lambda: hash_kv(model.store, lambda: model.standing, 7)) is (
        Reason.FUTURE_REVISION
    )


@pytest.mark.parametrize("change", [Put(b"a", b"2"), Put(b"b", b"1"), DeleteRange(b"a"), Put(b"a")])
def test_whatever_differs_changes_the_hash(change: Put | DeleteRange) -> None:
    hashes = set()
    for last in (Put(b"a", b"1"), change):
        model = enabled()
        model.apply(Put(b"a", b"1"), last)
        hashes.add(hash_kv(model.store, lambda: model.standing, 0).hash)  # noqa: B023
    assert len(hashes) == 2


def test_a_hash_is_taken_again_where_history_was_compacted_meanwhile(model: Model) -> None:
    model.apply(Put(b"a", b"1"), Put(b"a", b"2"))
    answer = hash_kv(model.store, Racing(model, lambda: model.do(Compact(3))), 0)
    assert answer.compacted == 3
    assert answer == hash_kv(model.store, lambda: model.standing, 0)


def test_a_damaged_file_is_named(model: Model) -> None:
    """Whoever reads events of it learns what is to be repaired."""
    for number in range(40):
        model.apply(Put(b"a", bytes([number]) * 200))
    model.db.flush()
    (table,) = (path for path in model.disk.files() if path.endswith(".sst"))
    model.restart()
    model.disk.flip_bit(table, len(model.disk.read_file(table)) // 3)
    with pytest.raises(CorruptionError) as caught:
        read_events(model.store, lambda: model.standing, 2, 30, 1 << 20)
    assert caught.value.path == table
