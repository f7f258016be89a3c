"""Change feeds: from the past, live beside a writer, and what they cost the writer.

Run: pytest benchmarks/test_changes.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import threading

import pytest

import kvstore

ROWS = 100_000
KEYS = [b"%08d" % number for number in range(ROWS)]
VALUE = bytes(100)
PATIENCE_SECONDS = 600


def opened(path):
    return kvstore.open(path, write_buffer_size=1 << 30)


def write(db, batch_rows=1):
    for start in range(0, ROWS, batch_rows):
        if batch_rows == 1:
            db.put(KEYS[start], VALUE)
        else:
            db.update((key, VALUE) for key in KEYS[start : start + batch_rows])


@pytest.mark.benchmark(group="100,000 changes of the past")
@pytest.mark.parametrize("batch_rows", [1, 100])
@pytest.mark.parametrize("prefix", [b"", b"nothing"], ids=["all", "none of the range"])
def test_past(benchmark, tmp_path, batch_rows, prefix):
    with opened(tmp_path / "db") as db:
        write(db, batch_rows)
        db.sync()

        def read():
            with db.changes(0, prefix=prefix, timeout=0) as feed:
                return sum(1 for _ in feed)

        assert benchmark(read) == (0 if prefix else ROWS)


@pytest.mark.benchmark(group="100,000 puts, written and told")
@pytest.mark.parametrize("feeds", [0, 1, 4])
def test_live(benchmark, tmp_path, feeds):
    """Until the last put was told to each feed; without one, until it is written."""
    paths = iter(range(1_000))

    def setup():
        return (opened(tmp_path / str(next(paths))),), {}

    def follow(db):
        readers = [
            threading.Thread(target=read, args=(db.changes(timeout=PATIENCE_SECONDS),))
            for _ in range(feeds)
        ]
        for reader in readers:
            reader.start()
        write(db)
        for reader in readers:
            reader.join()
        db.close()

    def read(feed):
        for _ in range(ROWS):
            next(feed)

    benchmark.pedantic(follow, setup=setup, rounds=3)


@pytest.mark.benchmark(group="from a put to the feed that waits for it")
@pytest.mark.parametrize("sync", [False, True])
def test_delay(benchmark, tmp_path, sync):
    """One put at a time. Without ``sync`` the feed syncs."""
    with opened(tmp_path / "db") as db:
        feed = db.changes()
        told = threading.Semaphore(0)

        def read():
            for _ in feed:
                told.release()

        reader = threading.Thread(target=read)
        reader.start()

        def put():
            db.put(b"key", VALUE, sync=sync)
            told.acquire()

        benchmark(put)
        feed.close()
        reader.join()
