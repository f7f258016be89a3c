"""A move over much that isn't shown: others go on meanwhile, and it can be given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import ClosedError, InvalidArgumentError

GONE = 50_000
LEFT = [b"a", b"z"]


@pytest.fixture(params=["memory", "tables", "covered", "versions"])
def db(request: pytest.FixtureRequest) -> Any:
    """``a``, tens of thousands of entries that nobody sees, and ``z``."""
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, background=False, wal=False) as opened:
        for key in LEFT:
            opened.put(key, b"value")
        if request.param == "versions":
            moment = opened.last_sequence
            opened.retain_from(moment)
            for number in range(GONE):
                opened.put(b"k%06d" % number, b"newer than what is read")
            yield opened, moment
            return
        for number in range(GONE):
            opened.put(b"k%06d" % number, b"value")
        # So that nothing of it goes by compaction.
        opened.retain_from(opened.last_sequence)
        for number in range(GONE):
            if request.param == "covered" and number % 2:
                opened.delete_range(b"k%06d" % number, b"k%06d\0" % number)
            else:
                opened.delete(b"k%06d" % number)
        if request.param == "tables":
            opened.flush()
        yield opened, opened.last_sequence


class Interrupting:
    """Counts how often it was asked; gives up at the ``last`` time."""

    def __init__(self, last: int = 0) -> None:
        self.asked = 0
        self.last = last

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == self.last:
            raise TimeoutError


@pytest.mark.parametrize("reverse", [False, True])
def test_a_walk_over_what_is_gone_finds_the_same_and_asks_on_its_way(db, reverse: bool) -> None:
    opened, moment = db
    interrupting = Interrupting()
    walk = opened.iterator(
        sequence=moment, reverse=reverse, include_value=False, interrupt=interrupting
    )
    assert list(walk) == (LEFT[::-1] if reverse else LEFT)
    # Of the newer versions half are passed over by seeks, and a few tombstones lie together.
    assert 2 <= interrupting.asked <= 2 * GONE // 1000


@pytest.mark.parametrize("reverse", [False, True])
def test_a_walk_is_given_up_and_closed(db, reverse: bool) -> None:
    opened, moment = db
    walk = opened.iterator(sequence=moment, reverse=reverse, interrupt=Interrupting(last=2))
    next(walk)
    with pytest.raises(TimeoutError):
        next(walk)
    with pytest.raises(ClosedError):
        next(walk)
    # Nothing of it is left to the database, which is closed after this.
    assert next(opened.iterator(sequence=moment))[0] == LEFT[0]


def test_a_walk_there_and_back_over_what_is_gone(db) -> None:
    opened, moment = db
    walk = opened.iterator(sequence=moment, include_value=False)
    moves = [walk.next(), walk.next(), walk.prev(), walk.prev(), walk.next(), walk.next()]
    assert moves == [b"a", b"z", b"z", b"a", b"a", b"z"]
    walk.seek(b"b")
    assert walk.next() == b"z"
    if moment == opened.last_sequence:
        raw = opened.raw_iterator()
        raw.seek(b"b")
        assert raw.key() == b"z"
        raw.prev()
        assert raw.key() == b"a"
        raw.next()
        assert raw.key() == b"z"


def test_a_count_over_what_is_gone_finds_the_rest(db) -> None:
    opened, moment = db
    assert opened.count(sequence=moment) == len(LEFT)


def test_a_count_of_many_is_given_up() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), background=False, wal=False) as opened:
        for number in range(70_000):
            opened.put(b"k%06d" % number, b"value")
        interrupting = Interrupting()
        assert opened.count(interrupt=interrupting) == 70_000
        assert interrupting.asked >= 1
        with pytest.raises(TimeoutError):
            opened.count(interrupt=Interrupting(last=1))
        for number in range(70_000):
            opened.delete(b"k%06d" % number)
        opened.flush()
        interrupting = Interrupting()
        assert opened.count(interrupt=interrupting) == 0


@pytest.mark.parametrize("end", ["walk", "database"])
def test_a_walk_that_is_closed_on_its_way_ends(db, end: str) -> None:
    opened, moment = db
    closing: list[Callable[[], None]] = []

    def close() -> None:
        if closing:
            closing.pop()()

    walk = opened.iterator(sequence=moment, interrupt=close)
    next(walk)
    closing.append(walk.close if end == "walk" else opened.close)
    with pytest.raises(ClosedError):
        next(walk)
    with pytest.raises(ClosedError):
        next(walk)


def test_who_interrupts_may_not_move_the_walk(db) -> None:
    opened, moment = db
    walk = opened.iterator(sequence=moment, interrupt=lambda: next(walk))
    next(walk)
    with pytest.raises(InvalidArgumentError, match="another thread"):
        next(walk)


def test_others_write_while_a_walk_passes_over_much(db) -> None:
    """In the middle of its move: what they write is not of its moment."""
    opened, moment = db
    written = threading.Event()

    def write() -> None:
        if not written.is_set():
            writer = threading.Thread(target=lambda: opened.put(b"y", b"later"))
            writer.start()
            writer.join()
            opened.flush()
            written.set()

    walk = opened.iterator(sequence=moment, include_value=False, interrupt=write)
    assert list(walk) == LEFT
    assert written.is_set()
