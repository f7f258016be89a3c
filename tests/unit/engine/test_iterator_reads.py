"""An iterator lets go of the GIL while it reads a block: what others do to it in that moment."""

import threading

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import ClosedError, InvalidArgumentError

COUNT = 2000


@pytest.fixture
def disk():
    return MemoryFileSystem()


@pytest.fixture
def db(disk):
    """All in tables, none of it cached, so that a scan reads block after block."""
    with DB("/db", filesystem=disk) as full:
        for number in range(COUNT):
            full.put(b"%06d" % number, b"value" * 10)
        full.compact_range()
    with DB("/db", filesystem=disk, lru_cache_size=0) as opened:
        yield opened
        disk.on_operation = None


def on_first_block(disk, action):
    def look(operation, path):
        if operation == "pread" and path.endswith(".sst"):
            disk.on_operation = None
            action()

    disk.on_operation = look


def repeat(move):
    for _ in range(COUNT):
        move()


@pytest.mark.parametrize("method", ["__next__", "prev"])
def test_closing_an_iterator_while_it_reads_ends_its_move(disk, db, method):
    iterator = db.iterator()
    next(iterator)
    iterator.seek_to_stop() if method == "prev" else iterator.seek_to_start()
    on_first_block(disk, iterator.close)
    with pytest.raises(ClosedError):
        repeat(getattr(iterator, method))
    with pytest.raises(ClosedError):
        next(iterator)


@pytest.mark.parametrize("move", ["seek_to_first", "seek_to_last", "next"])
def test_closing_a_raw_iterator_while_it_reads_ends_its_move(disk, db, move):
    iterator = db.raw_iterator()
    iterator.seek_to_last() if move == "seek_to_first" else iterator.seek_to_first()
    on_first_block(disk, iterator.close)
    with pytest.raises(ClosedError):
        repeat(getattr(iterator, move))
    with pytest.raises(ClosedError):
        iterator.valid()


def test_closing_the_database_while_an_iterator_reads_ends_its_move(disk, db):
    iterator = db.iterator(reverse=True)
    on_first_block(disk, db.close)
    with pytest.raises(ClosedError):
        list(iterator)
    assert db.closed


def test_an_iterator_that_is_being_moved_refuses_another_thread(disk, db):
    iterator = db.iterator()
    refused = []

    def move():
        with pytest.raises(InvalidArgumentError, match="another thread"):
            iterator.seek(b"000100")
        refused.append(True)

    def from_another_thread():
        # Can only run because the reading thread has let go of the GIL.
        thread = threading.Thread(target=move)
        thread.start()
        thread.join()

    on_first_block(disk, from_another_thread)
    assert len(list(iterator)) == COUNT
    assert refused == [True]
