"""The log in memory against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore.errors import InternalError
from kvstore.raft import Entry, EntryKind, SnapshotMeta
from kvstore.raft.log import Log


def entries(first: int, *terms: int, size: int = 1) -> list[Entry]:
    return [Entry(term, first + i, EntryKind.COMMAND, b"x" * size) for i, term in enumerate(terms)]


class LogModel(RuleBasedStateMachine):
    """Every question has the answer that a scan over all entries gives."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(0, 0)
        self.model: list[Entry] = []
        self.offset = 0
        self.offset_term = 0
        self.term = 1

    def last(self) -> int:
        return self.offset + len(self.model)

    @rule(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), new_term=st.booleans())
    def append(self, sizes: list[int], new_term: bool) -> None:
        more = []
        for position, size in enumerate(sizes):
            if new_term and position == len(sizes) // 2:
                self.term += 1
            more.append(
                Entry(self.term, self.last() + 1 + position, EntryKind.COMMAND, b"d" * size)
            )
        self.log.append(more)
        self.model += more

    @rule(back=st.integers(0, 8))
    def truncate(self, back: int) -> None:
        index = max(self.log.commit, self.last() - back) + 1
        self.log.truncate(index)
        del self.model[index - self.offset - 1 :]
        self.term += 1

    @rule(ahead=st.integers(0, 5))
    def commit(self, ahead: int) -> None:
        self.log.commit = min(self.last(), self.log.commit + ahead)

    @rule()
    def write(self) -> None:
        before = self.log.handed
        given = self.log.take_unwritten()
        assert list(given) == self.model[before - self.offset :]
        assert self.log.take_unwritten() == ()

    @rule(ahead=st.integers(0, 5))
    def sync(self, ahead: int) -> None:
        self.log.stable = min(self.log.handed, self.log.stable + ahead)

    @rule(bytes_max=st.integers(1, 30))
    def apply(self, bytes_max: int) -> None:
        before = self.log.offered
        waiting = sum(len(e.data) for e in self.model if self.log.applied < e.index <= before)
        taken = list(self.log.take_committed(bytes_max))
        upto = min(self.log.commit, self.log.stable)
        assert taken == self.model[before - self.offset :][: len(taken)]
        assert self.log.offered <= upto
        if len(taken) > 1:
            assert waiting + sum(len(entry.data) for entry in taken) <= bytes_max
        if upto > before and waiting == 0:
            assert taken, "something can always be applied"

    @rule(back=st.integers(0, 3))
    def applied(self, back: int) -> None:
        self.log.applied = max(self.log.applied, self.log.offered - back)

    @precondition(lambda self: self.log.applied > self.offset)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.offset + 1, self.log.applied))
        self.log.compact(index)
        self.offset_term = self.model[index - self.offset - 1].term
        del self.model[: index - self.offset]
        self.offset = index

    @rule(ahead=st.integers(1, 5))
    def restore(self, ahead: int) -> None:
        self.term += 1
        self.offset, self.offset_term = self.last() + ahead, self.term
        self.model = []
        self.log.restore(SnapshotMeta(self.offset, self.offset_term))

    @invariant()
    def same_entries_and_terms(self) -> None:
        log = self.log
        assert (log.last, log.offset) == (self.last(), self.offset)
        assert log.entries == self.model
        assert log.size == sum(len(entry.data) for entry in self.model)
        assert log.term(self.offset) == self.offset_term
        assert log.term(self.offset - 1) == -1
        assert log.term(self.last() + 1) == -1
        for entry in self.model:
            assert log.term(entry.index) == entry.term
        assert log.last_term == (self.model[-1].term if self.model else self.offset_term)

    @invariant()
    def marks_are_in_order(self) -> None:
        log = self.log
        assert log.offset <= log.applied <= log.offered <= min(log.commit, log.stable)
        assert log.stable <= log.handed <= log.last
        assert log.commit <= log.last

    @invariant()
    def common_place_is_the_last_with_a_term_not_above(self) -> None:
        for term in range(self.term + 2):
            for index in (self.last() + 3, self.last(), (self.last() + self.offset) // 2 + 1):
                places = [e.index for e in self.model if e.term <= term and e.index <= index]
                if places:
                    assert self.log.common(index, term) == places[-1]
                elif self.offset_term <= term:
                    assert self.log.common(index, term) == min(index, self.offset)
                else:
                    assert self.log.common(index, term) == 0


LogModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLogModel = LogModel.TestCase


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20), st.integers(0, 60), st.data())
def test_slice_stops_where_its_bytes_are_passed(
    sizes: list[int], bytes_max: int, data: st.DataObject
) -> None:
    log = Log(0, 0)
    every = [Entry(1, i + 1, EntryKind.COMMAND, b"x" * size) for i, size in enumerate(sizes)]
    log.append(every)
    first = data.draw(st.integers(1, len(sizes)))
    upto = data.draw(st.integers(first, len(sizes)))
    part = log.slice(first, upto, bytes_max)
    assert list(part) == every[first - 1 : first - 1 + len(part)]
    assert len(part) >= 1
    assert len(part) == 1 or sum(len(e.data) for e in part) <= bytes_max
    if first - 1 + len(part) < upto:
        following = every[first - 1 + len(part)]
        assert sum(len(e.data) for e in part) + len(following.data) > bytes_max


@pytest.mark.parametrize(
    ("terms", "index", "term", "covers"),
    [
        ((1, 1, 2), 3, 2, True),
        ((1, 1, 2), 2, 2, False),
        ((1, 1, 2), 9, 1, False),
        ((1, 1, 2), 1, 3, True),
        ((1, 1, 1000), 3, int("1000"), True),
        ((), 0, 0, True),
    ],
)
def test_more_up_to_date_log_has_the_later_last_term_then_the_larger_index(
    terms: tuple[int, ...], index: int, term: int, covers: bool
) -> None:
    """Raft §5.4.1."""
    log = Log(0, 0)
    if terms:
        log.append(entries(1, *terms))
    assert log.covers(index, term) is covers


def test_news_are_what_is_missing_or_of_another_term() -> None:
    log = Log(0, 0)
    log.append(entries(1, 1, 1, 2, 2))
    assert log.news(entries(5, 2)) == 0
    assert log.news(entries(4, 2)) == 1
    assert log.news(entries(2, 1, 2, 2)) == 3
    assert log.news(entries(2, 1, 2, 2, 2)) == 3
    assert log.news(entries(3, 3, 3)) == 0
    log.commit = 3
    assert log.news(entries(2, 1, 2, 2, 2)) == 3


def test_committed_entries_are_never_dropped() -> None:
    log = Log(0, 0)
    log.append(entries(1, 1, 1))
    log.commit = 1
    with pytest.raises(InternalError, match="never dropped"):
        log.truncate(1)


@pytest.mark.parametrize("bad", [entries(4, 1), entries(2, 1), entries(3, 1)[:0] + entries(9, 2)])
def test_holes_are_refused(bad: list[Entry]) -> None:
    log = Log(0, 0)
    log.append(entries(1, 1, 1))
    with pytest.raises(InternalError, match="hole"):
        log.append(bad)


def test_terms_never_fall() -> None:
    log = Log(0, 0)
    log.append(entries(1, 2))
    with pytest.raises(InternalError, match="never fall"):
        log.append(entries(2, 1))


def test_tail_keeps_the_lesser_of_entries_and_bytes() -> None:
    log = Log(0, 0)
    log.append(entries(1, *([1] * 100), size=10))
    assert log.tail_start(entries_kept=20, bytes_kept=10_000) == 80
    assert log.tail_start(entries_kept=1000, bytes_kept=100) == 90
    assert log.tail_start(entries_kept=1000, bytes_kept=10_000) == 0
    assert log.tail_start(entries_kept=0, bytes_kept=0) == 100


def test_what_is_kept_has_its_terms_after_compaction() -> None:
    log = Log(0, 0)
    log.append(entries(1, 1, 1, 2, 2, 3))
    log.commit = log.stable = log.handed = log.applied = log.offered = 5
    log.compact(3)
    log.append(entries(6, 3, 5))
    assert [log.common(7, term) for term in range(1, 6)] == [0, 4, 6, 6, 7]
    log.compact(4)
    assert [log.common(7, term) for term in range(1, 6)] == [0, 4, 6, 6, 7]


def test_of_what_is_on_the_disk_alone_the_last_entry_is_never_common() -> None:
    """Its term is known, and is too high; those before it may be equal."""
    log = Log(0, 0)
    log.append(entries(1, 1, 1, 2, 2, 3))
    log.commit = log.stable = log.handed = log.applied = log.offered = 5
    log.oldest = 2
    log.compact(4)
    assert log.common(5, 2) == 4
    assert log.common(5, 1) == 3
    assert log.common(2, 1) == 2
    assert log.common(1, 1) == 0, "not even on the disk"
    log.oldest = 0
    assert log.common(5, 1) == 0
