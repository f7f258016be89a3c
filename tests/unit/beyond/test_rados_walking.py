"""All keys of a pool, and operations by a thread that waits for them."""

from __future__ import annotations

import errno
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from kvstore.beyond.rados import driven, walking, writing
from kvstore.beyond.rados.driven import DrivenPool
from kvstore.beyond.rados.layout import bucket_name, bucket_of, entry_key
from kvstore.beyond.rados.walking import walk
from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    NoSpaceError,
    UnavailableError,
)
from tests.unit.beyond.gateways import SALT
from tests.unit.beyond.live_pool import LiveClient, LiveNames, live_pool
from tests.unit.beyond.memory_pool import MemoryOperation, MemoryPool


@pytest.fixture
def memory() -> MemoryPool:
    return MemoryPool()


@pytest.fixture
def pool(memory: MemoryPool) -> Iterator[DrivenPool]:
    with live_pool(memory) as opened:
        yield opened


def seen(pool: DrivenPool, prefix: bytes = b"") -> dict[bytes, bytes]:
    """What a walk finds, each key once."""
    pairs = [pair for page in walk(pool, prefix) for pair in page.pairs]
    found = dict(pairs)
    assert len(found) == len(pairs)
    return found


def move_into_one_bucket(pool: DrivenPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are written from here on."""
    for module in ("reading", "writing", "walking"):
        monkeypatch.setattr(f"kvstore.beyond.rados.{module}.bucket_of", lambda key, salt: 7)


def test_a_walk_sees_each_key_once(pool: DrivenPool) -> None:
    rng = random.Random(1)
    pairs = {b"k%d" % n: rng.randbytes(rng.choice([0, 10, 5000])) for n in range(500)}
    pairs |= {b"\0\1\2": b"odd", b"\1\1": b"odder", b"p/\0": b"", b"p/\1\2": b"x"}
    assert pool.put(list(pairs.items())) == [False] * len(pairs)
    assert seen(pool) == pairs
    for prefix in (b"k1", b"\1", b"p/", b"p/\1", b"nothing"):
        assert seen(pool, prefix) == {k: v for k, v in pairs.items() if k.startswith(prefix)}


def test_a_bucket_of_many_keys_is_read_page_by_page(
    pool: DrivenPool, memory: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_into_one_bucket(pool, monkeypatch)
    pairs = {b"k%04d" % n: b"v%d" % n for n in range(1000)}
    pool.put(list(pairs.items()))
    memory.log.clear()
    assert seen(pool) == pairs
    assert memory.log.count("list_pairs b.00007") == -(-len(pairs) // walking.PAIRS)


def test_a_write_whose_turn_was_cut_short_has_another_while_its_time_lasts(
    pool: DrivenPool, memory: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driven, "TURN_S_MAX", 0.0)
    monkeypatch.setattr(writing, "TURN_S_MAX", -1.0)
    reads: list[str] = []

    def trouble(operation: MemoryOperation) -> int | None:
        reads.append(operation.kind)
        if len(reads) == 4:
            monkeypatch.setattr(writing, "TURN_S_MAX", 60.0)
        return None

    memory.trouble = trouble
    assert pool.put([(b"k", b"v")]) == [False]
    assert seen(pool) == {b"k": b"v"}


def test_what_a_page_holds_is_bounded(pool: DrivenPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAGE_KEYS", 10)
    monkeypatch.setattr(walking, "BUCKETS", 4)
    monkeypatch.setattr(walking, "VALUE_BYTES", 20_000)
    pool.put([(b"k%d" % n, b"v") for n in range(100)])
    pool.put([(b"large%d" % n, bytes(9000)) for n in range(10)])
    pages = list(walk(pool))
    assert sum(len(page.pairs) for page in pages) == 110
    assert max(len(page.pairs) for page in pages) <= 14
    assert max(sum(len(value) for _, value in page.pairs) for page in pages) <= 20_000


def test_what_is_damaged_is_named_and_the_rest_is_seen(
    pool: DrivenPool, memory: MemoryPool
) -> None:
    keys = [b"flipped", b"cut", b"moved", b"large", b"unread", b"sound"]
    pool.put([(key, bytes(9000) if key == b"large" else b"value") for key in keys])

    def bucket(key: bytes) -> bytes:
        return bucket_name(bucket_of(key, SALT))

    pairs = memory.things[bucket(b"flipped")].pairs
    entry = bytearray(pairs[entry_key(b"flipped")])
    entry[-1] ^= 1
    pairs[entry_key(b"flipped")] = bytes(entry)
    memory.things[bucket(b"cut")].pairs[entry_key(b"cut")] = b"\0"
    # Sound by itself, and where no get looks for it.
    moved = memory.things[bucket(b"moved")].pairs.pop(entry_key(b"moved"))
    memory.things[bucket(b"sound")].pairs[entry_key(b"moved")] = moved
    (value,) = [name for name in memory.things if name.startswith(b"v.")]
    memory.things[value].data = bytes(8999) + b"\1"
    memory.trouble = lambda operation: -errno.EIO if operation.name == bucket(b"unread") else None
    pages = list(walk(pool))
    damaged = {key: error for page in pages for key, error in page.damaged.items()}
    assert set(damaged) == {b"flipped", b"cut", b"moved", b"large"}
    assert all(isinstance(error, CorruptionError) for error in damaged.values())
    assert [name for page in pages for name in page.unread] == [bucket(b"unread")]
    assert [key for page in pages for key, _ in page.pairs] == [b"sound"]


def test_once_one_write_has_failed_no_more_are_begun(pool: DrivenPool, memory: MemoryPool) -> None:
    memory.trouble = lambda operation: -errno.ENOSPC if operation.kind == "write" else None
    results = pool.put([(b"k%d" % n, b"v") for n in range(1000)])
    assert len(results) == 1000
    assert all(isinstance(result, NoSpaceError) for result in results)
    assert sum(line.startswith("write") for line in memory.log) < 300


def test_a_pool_that_is_away_ends_what_waits_by_its_time(memory: MemoryPool) -> None:
    def away(operation: MemoryOperation) -> int | None:
        return 0

    with live_pool(memory, timeout_s=0.2) as pool:
        pool.put([(b"k", b"v")])
        memory.trouble = away
        began = time.monotonic()
        (result,) = pool.get([b"k"])
        assert isinstance(result, DeadlineExceededError)
        with pytest.raises(UnavailableError, match="did not answer in time"):
            list(walk(pool))
        assert time.monotonic() - began < 10
    assert not memory.client().finished


def test_a_listing_that_hangs_ends_by_its_time(memory: MemoryPool) -> None:
    goes_on = threading.Event()

    class Hanging(LiveNames):
        def names(self, most: int) -> list[bytes]:
            goes_on.wait(20)
            return []

    with live_pool(memory, timeout_s=0.2) as pool:
        pool._listing = lambda: Hanging(memory)
        with pytest.raises(UnavailableError):
            list(walk(pool))
        goes_on.set()


def test_a_pool_is_not_closed_under_a_listing(
    memory: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Ctrl-C ended the waiting for it."""
    goes_on = threading.Event()
    main = threading.get_ident()

    class Interrupted(LiveNames):
        def names(self, most: int) -> list[bytes]:
            signal.pthread_kill(main, signal.SIGINT)
            goes_on.wait(20)
            return []

    monkeypatch.setattr(driven, "CLOSE_S", 0.1)
    closed: list[bool] = []
    monkeypatch.setattr(LiveClient, "close", lambda self: closed.append(True))
    pool = live_pool(memory)
    pool._listing = lambda: Interrupted(memory)
    with pytest.raises(KeyboardInterrupt):
        list(walk(pool))
    pool.close()
    assert closed == []
    goes_on.set()
    pool.close()
    assert closed == [True]


def test_a_listing_that_fails_is_told(memory: MemoryPool) -> None:
    class Failing(LiveNames):
        def names(self, most: int) -> list[bytes]:
            raise OSError(errno.EPERM, "rados_object_list")

    with live_pool(memory) as pool:
        pool._listing = lambda: Failing(memory)
        with pytest.raises(Error, match="may not do that"):
            list(walk(pool))
