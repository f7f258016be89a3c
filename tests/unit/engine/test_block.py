"""One block: layout limits, point search and cursor against a sorted list."""

from __future__ import annotations

import bisect
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.table.native import BlockFace, build_block
from kvstore.errors import CorruptionError

DELETE, PUT = 0, 1
NEWEST = (1 << 56) - 1

Version = tuple[bytes, int, int, bytes]


def order(version: Version) -> tuple[bytes, int, int]:
    return version[0], -version[1], -version[2]


VERSIONS = st.lists(
    st.tuples(
        st.one_of(
            st.binary(max_size=5),
            st.sampled_from([b"", b"aaaaaaaa", b"aaaaaaaab", b"aaaaaaaa\0", b"\xff" * 12]),
        ),
        st.integers(0, 30),
        st.sampled_from([PUT, DELETE]),
        st.one_of(st.binary(max_size=10), st.sampled_from([b"x" * 127, b"x" * 128, b"x" * 20_000])),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda version: version[:3],
).map(lambda versions: sorted(versions, key=order))


@settings(max_examples=150)
@given(VERSIONS, st.integers(1, 20), st.binary(max_size=5), st.integers(0, 30), st.randoms())
def test_agrees_with_a_sorted_list(
    versions: list[Version], interval: int, probe: bytes, at: int, chance: random.Random
) -> None:
    block = BlockFace(build_block(versions, interval))
    block.check()
    for key in {probe, *(v[0] for v in versions)}:
        place = bisect.bisect_left(versions, (key, -at, -PUT), key=order)
        there = place < len(versions)
        assert block.seek(key, at) == (versions[place] if there else None)
        found = versions[place][1:] if there and versions[place][0] == key else None
        assert block.get(key, at) == found
    # A walk that turns wherever chance says.
    place = chance.randrange(len(versions))
    key, sequence, kind, _ = versions[place]
    assert block.seek(key, sequence, kind) == versions[place]
    for _ in range(2 * len(versions)):
        step = chance.choice([1, -1])
        place += step
        entry = block.next() if step == 1 else block.prev()
        if not 0 <= place < len(versions):
            assert entry is None
            break
        assert entry == versions[place]


@pytest.mark.parametrize("interval", [1, 2, 16, 1000])
def test_walks_end_at_both_ends(interval: int) -> None:
    versions = [(b"%04d" % k, 9, PUT, b"v" * (k % 300)) for k in range(500)]
    block = BlockFace(build_block(versions, interval))
    assert [block.first(), *(block.next() for _ in range(499))] == versions
    assert block.next() is None
    assert [block.last(), *(block.prev() for _ in range(499))] == versions[::-1]
    assert block.prev() is None


def test_keys_that_share_long_prefixes_take_little_room() -> None:
    versions = [(b"tenant/0001/users/%08d" % k, 9, PUT, b"") for k in range(256)]
    assert len(build_block(versions, 16)) < 256 * 16


def two(first: Version, second: Version, interval: int) -> bytes:
    return build_block([first, second], interval)


@pytest.mark.parametrize("interval", [1, 16])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((b"b", 1, PUT, b""), (b"a", 1, PUT, b"")),
        ((b"a", 1, PUT, b""), (b"a", 1, PUT, b"")),
        ((b"a", 1, PUT, b""), (b"a", 2, PUT, b"")),
        ((b"ab", 1, PUT, b""), (b"a", 1, PUT, b"")),
        ((b"a", 1, DELETE, b""), (b"a", 1, PUT, b"")),
    ],
)
def test_entries_out_of_order_are_found(first: Version, second: Version, interval: int) -> None:
    with pytest.raises(CorruptionError, match="order"):
        BlockFace(two(first, second, interval)).check()


def test_an_unknown_kind_is_found() -> None:
    with pytest.raises(CorruptionError, match="entry"):
        BlockFace(build_block([(b"a", 1, 2, b"")], 1)).check()
