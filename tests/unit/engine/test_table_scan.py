"""A table read from end to end for a job: what a cursor shows, and what neighbouring keys share."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.table.native import TableFile, TableWriter, scan_table
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from tests.fuzz import resealing

DELETE, PUT = 0, 1
NEWEST = (1 << 56) - 1
TABLE = "/db/t"

Version = tuple[bytes, int, int, bytes]


def order(version: Version) -> tuple[bytes, int, int]:
    return version[0], -version[1], -version[2]


def disk_with(versions: Sequence[Version], **options: object) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories("/db")
    writer = TableWriter(disk, TABLE, 7, **options)  # type: ignore[arg-type]
    for version in versions:
        writer.add(*version)
    writer.finish()
    return disk


def in_common(a: bytes, b: bytes) -> int:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return sum(1 for _ in same)


def with_shared(versions: Sequence[Version]) -> list[tuple[bytes, int, int, bytes, int]]:
    shared = [0] + [in_common(a[0], b[0]) for a, b in itertools.pairwise(versions)]
    return [(*version, each) for version, each in zip(versions, shared, strict=True)]


VERSIONS = st.lists(
    st.tuples(
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from([b"", b"a" * 20, b"a" * 20 + b"\0", b"a" * 300, b"\xff" * 12]),
        ),
        st.integers(0, 30),
        st.sampled_from([PUT, DELETE]),
        st.one_of(st.binary(max_size=10), st.sampled_from([b"x" * 127, b"x" * 128, b"x" * 9000])),
    ),
    min_size=1,
    max_size=120,
    unique_by=lambda version: version[:3],
).map(lambda versions: sorted(versions, key=order))


@settings(max_examples=100, deadline=None)
@given(
    VERSIONS,
    st.integers(1, 20),
    st.sampled_from([64, 300, 4096]),
    st.sampled_from([1, 500, 1 << 18]),
    st.sampled_from([None, "zstd"]),
    st.binary(max_size=4),
    st.integers(0, 30),
)
def test_shows_what_was_written_and_what_keys_share(
    versions: list[Version],
    interval: int,
    block_bytes: int,
    window_bytes: int,
    compression: str | None,
    probe: bytes,
    at: int,
) -> None:
    disk = disk_with(
        versions, restart_interval=interval, block_bytes=block_bytes, compression=compression
    )
    with TableFile(disk, TABLE, 7) as table:
        expected = with_shared(versions)
        assert scan_table(table, window_bytes) == expected
        for target in {probe, *(version[0] for version in versions[::7])}:
            found = scan_table(table, window_bytes, (target, at))
            rest = [e for e in expected if order(e[:4]) >= (target, -at, -PUT)]
            assert [each[:4] for each in found] == [each[:4] for each in rest]
            # Of the entry that the seek landed on nothing is said.
            assert found[1:] == rest[1:]


def test_batches_that_hold_more_keys_than_they_have_room_for() -> None:
    chance = random.Random(5)
    versions = [
        (b"p" * chance.choice([10, 3000, 40_000]) + b"%06d" % k, 1, PUT, b"") for k in range(300)
    ]
    versions.sort()
    disk = disk_with(versions, block_bytes=1 << 16, restart_interval=64)
    with TableFile(disk, TABLE, 7) as table:
        assert scan_table(table, 1 << 18) == with_shared(versions)


def test_reads_many_blocks_at_a_time_and_each_once() -> None:
    disk = disk_with([(b"%06d" % k, 1, PUT, b"v" * 50) for k in range(20_000)])
    with TableFile(disk, TABLE, 7) as table:
        before = disk.counts["pread"]
        assert len(scan_table(table, 1 << 18)) == 20_000
        partitions = int(table.properties["partitions"])
        size = int(table.properties["file_bytes"])
        assert disk.counts["pread"] - before <= partitions + size // (1 << 18) + 2


def test_a_failed_read_ends_it_with_the_error() -> None:
    disk = disk_with([(b"%06d" % k, 1, PUT, b"v" * 50) for k in range(20_000)])
    with TableFile(disk, TABLE, 7) as table:
        disk.fail("pread", errno.EIO, at=4, always=True)
        with pytest.raises(StorageError) as caught:
            scan_table(table, 1 << 16)
        assert caught.value.code is IntegrityCode.IO_ERROR
        disk.heal()
        assert len(scan_table(table, 1 << 16)) == 20_000


def test_any_byte_of_a_block_that_is_wrong_is_found_also_behind_a_right_checksum() -> None:
    """What a changed block still may say is another table that is as good, and no crash."""
    versions = [(b"key%03d" % (k // 2), 9 - k % 2, PUT, b"v" * (k % 3)) for k in range(60)]
    disk = disk_with(versions, restart_interval=4, block_bytes=256, bloom_bits=0)
    content = disk.read(TABLE, 0, disk.size(TABLE))
    with TableFile(disk, TABLE, 7) as table:
        expected = scan_table(table, 1 << 16)
    chance = random.Random(3)
    found_wrong = 0
    for at in range(96, len(content) - 400):
        changed = bytearray(content)
        changed[at] ^= 1 << chance.randrange(8)
        for resealed in (bytes(changed), resealing.table(bytes(changed))):
            other = MemoryFileSystem()
            other.make_directories("/db")
            other.write(TABLE, 0, resealed)
            try:
                with TableFile(other, TABLE, 7) as table:
                    found = scan_table(table, 1 << 16)
            except CorruptionError:
                found_wrong += 1
                continue
            assert resealed != bytes(changed) or found == expected
            keys = [order(each[:4]) for each in found]
            assert keys == sorted(set(keys))
            assert found == with_shared([each[:4] for each in found])
    assert found_wrong > len(content) - 500
