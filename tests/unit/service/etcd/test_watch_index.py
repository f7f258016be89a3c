"""The places that hold a key, against looking at all of them."""

from __future__ import annotations

import random
import sys

import pytest

from kvstore.service.etcd.watch_index import FOUND_MAX, Place, WatchIndex


def holds(place: Place, key: bytes) -> bool:
    return place.start <= key and (place.end is None or key < place.end)


def depth(index: WatchIndex) -> int:
    deepest, level = 0, [index._root]
    while level := [place for place in level if place is not None]:
        deepest += 1
        level = [child for place in level for child in (place.left, place.right)]
    return deepest


@pytest.mark.parametrize("seed", range(20))
def test_find_gives_every_place_that_holds_a_key_and_no_other(seed: int) -> None:
    rng = random.Random(seed)
    index = WatchIndex(rng)
    keys = [rng.randbytes(rng.choice([1, 1, 2, 3])) for _ in range(60)] + [b"\0"]
    places: dict[tuple[bytes, bytes], Place] = {}
    for _ in range(400):
        key, end = rng.choice(keys), rng.choice([b"", b"\0", *keys])
        if end not in (b"", b"\0") and end <= key:
            key, end = end, key + b"!"
        if rng.random() < 0.6:
            place = index.place(key, end)
            assert places.setdefault((key, end), place) is place
        elif places:
            gone = rng.choice([*places])
            index.remove(places.pop(gone))
        assert len(index) == len(places)
        for each in rng.sample(keys, 5):
            found = index.find(each)
            assert len(found) == len(set(found))
            assert set(found) == {place for place in places.values() if holds(place, each)}


def test_a_place_is_live_for_the_keys_in_it() -> None:
    index = WatchIndex(random.Random(1))
    place = index.place(b"a", b"c")
    assert not index.is_live(b"b")
    place.live += 1
    assert index.is_live(b"b")
    assert not index.is_live(b"c")


def test_ten_thousand_ranges_in_order_make_no_deep_tree() -> None:
    index = WatchIndex(random.Random(1))
    places = [index.place(b"%06d" % number, b"%06d~" % number) for number in range(10_000)]
    assert depth(index) < 60 < sys.getrecursionlimit()
    assert index.find(b"004711/x") == (places[4711],)
    for place in places:
        index.remove(place)
    assert len(index) == 0
    assert index._root is None


def test_what_is_remembered_is_bounded() -> None:
    index = WatchIndex(random.Random(1))
    for number in range(FOUND_MAX + 100):
        index.find(b"%d" % number)
    index.find(b"k" * 100_000)
    assert len(index._found) <= FOUND_MAX
    assert max(map(len, index._found)) < 10
