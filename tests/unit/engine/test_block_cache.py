"""The block cache: bounds, pins, eviction, forgetting, threads."""

from __future__ import annotations

import random
import threading

from kvstore._engine.table.native import (
    CacheFace,
    Pin,
    cache_find,
    cache_forget,
    cache_put,
    cache_wants,
)

KIB = 1 << 10


def put(cache: CacheFace, table: int, offset: int, data: bytes) -> None:
    cache_put(cache, table, offset, data).release()


def test_what_is_put_is_found_and_nothing_else() -> None:
    cache = CacheFace(1 << 20)
    put(cache, 1, 10, b"one")
    put(cache, 2, 10, b"two")
    found = [
        cache_find(cache, table, offset) for table, offset in ((1, 10), (2, 10), (1, 11), (3, 10))
    ]
    assert [pin and pin.data for pin in found] == [b"one", b"two", None, None]
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["blocks"]) == (2, 2, 2)


def test_the_first_of_two_equal_insertions_wins() -> None:
    cache = CacheFace(1 << 20)
    first = cache_put(cache, 1, 0, b"first")
    assert cache_put(cache, 1, 0, b"second").data == b"first"
    assert first.data == b"first"
    assert cache.stats()["blocks"] == 1


def test_it_never_grows_past_its_capacity() -> None:
    cache = CacheFace(256 * KIB)
    for i in range(1000):
        put(cache, 1, i, b"x" * 4096)
        assert cache.stats()["used_bytes"] <= 256 * KIB
    assert cache.stats()["evictions"] == 1000 - cache.stats()["blocks"]
    assert 55 <= cache.stats()["blocks"] <= 64


def test_blocks_that_are_hit_outlive_those_that_are_not() -> None:
    cache = CacheFace(256 * KIB)
    for i in range(10):
        put(cache, 1, i, b"hot%d" % i + b"x" * 4096)
    for i in range(1000):
        put(cache, 2, i, b"x" * 4096)
        for hot in range(10):
            pin = cache_find(cache, 1, hot)
            assert pin is not None
            assert pin.data.startswith(b"hot%d" % hot)


def test_a_pinned_block_survives_anything() -> None:
    cache = CacheFace(64 * KIB)
    pins = [cache_put(cache, 1, i, b"%04d" % i * 256) for i in range(8)]
    for i in range(500):
        put(cache, 2, i, b"y" * 1024)
    assert [cache_find(cache, 1, i) is not None for i in range(8)] == [True] * 8
    cache_forget(cache, 1)
    assert cache_find(cache, 1, 0) is None
    del cache
    assert [pin.data for pin in pins] == [b"%04d" % i * 256 for i in range(8)]


def test_a_full_set_of_pins_stands_above_the_capacity_until_let_go() -> None:
    cache = CacheFace(64 * KIB)
    pins: list[Pin] = [cache_put(cache, 1, i, b"x" * 8192) for i in range(16)]
    assert cache.stats()["used_bytes"] > 128 * KIB
    for pin in pins:
        pin.release()
    put(cache, 1, 99, b"x" * 8192)
    assert cache.stats()["used_bytes"] <= 64 * KIB


def test_a_block_too_large_to_keep_belongs_to_its_pin_alone() -> None:
    cache = CacheFace(64 * KIB)
    pin = cache_put(cache, 1, 0, b"x" * (20 * KIB))
    assert cache_find(cache, 1, 0) is None
    assert len(pin.data) == 20 * KIB
    assert cache.stats()["used_bytes"] == 0
    empty = CacheFace(0)
    assert cache_put(empty, 1, 0, b"data").data == b"data"
    assert cache_find(empty, 1, 0) is None


def test_forgetting_a_table_leaves_the_others() -> None:
    cache = CacheFace(32 << 20)
    for i in range(3000):
        put(cache, i % 3, i, b"%d" % i)
    cache_forget(cache, 1)
    assert cache.stats()["blocks"] == 2000
    for i in range(3000):
        assert (cache_find(cache, i % 3, i) is None) == (i % 3 == 1)


def test_threads_see_only_whole_blocks() -> None:
    cache = CacheFace(256 * KIB)
    wrong: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(5000):
            i = chance.randrange(300)
            pin = cache_find(cache, 1, i) or cache_put(cache, 1, i, b"%05d" % i * 400)
            if pin.data != b"%05d" % i * 400:
                wrong.append(i)
            if chance.random() < 0.001:
                cache_forget(cache, 1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.stats()["used_bytes"] <= 256 * KIB


def test_a_cache_with_room_wants_all_and_a_full_one_what_is_asked_for_twice() -> None:
    cache = CacheFace(256 * KIB)
    offset = 0
    while cache_wants(cache, 1, offset, 4096):
        put(cache, 1, offset, b"x" * 4096)
        offset += 1
    assert 55 <= offset <= 64
    assert cache_wants(cache, 1, offset, 4096)
    put(cache, 1, offset, b"x" * 4096)
    assert cache.stats()["evictions"] == 1
    assert not cache_wants(cache, 1, offset + 1, 4096)


def test_what_was_asked_for_long_ago_is_forgotten() -> None:
    cache = CacheFace(64 * KIB)
    for offset in range(20):
        put(cache, 1, offset, b"x" * 4096)
    assert [cache_wants(cache, 2, offset, 4096) for offset in range(2000)].count(True) == 0
    assert [cache_wants(cache, 2, offset, 4096) for offset in range(2000)].count(True) < 100


def test_a_block_too_large_to_keep_is_never_wanted() -> None:
    cache = CacheFace(64 * KIB)
    assert [cache_wants(cache, 1, 0, 20 * KIB) for _ in range(3)] == [False] * 3
    assert [cache_wants(CacheFace(0), 1, 0, 100) for _ in range(3)] == [False] * 3
