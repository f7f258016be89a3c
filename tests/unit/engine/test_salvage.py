"""What is whole of a damaged table is kept, and what is lost is said."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives import native as memory
from kvstore._engine.table.native import Salvaged, TableFile, TableWriter, salvage_table
from kvstore.errors import CorruptionError, IntegrityCode
from tests.unit.engine.format2_reader import Version, crc32c, read_table

PUT = 1
VERSIONS: list[Version] = [
    (b"%05d" % k, s, PUT, b"%d" % (k * s) * 5) for k in range(1500) for s in (9, 4)
]


@pytest.fixture
def disk() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories("/db")
    return disk


def write(disk: MemoryFileSystem, versions: Sequence[Version] = VERSIONS, **options: Any) -> bytes:
    writer = TableWriter(disk, "/db/t", 7, block_bytes=500, **options)
    for version in versions:
        writer.add(*version)
    writer.finish()
    return disk.read_file("/db/t")


def frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, offset, size) of each."""
    at = 96
    while at < len(data) - 96:
        size = 16 + int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at], at, size
        at += size


def entries(disk: MemoryFileSystem, path: str, number: int) -> list[Version]:
    with TableFile(disk, path, number) as table:
        table.verify()
        cursor, found = table.cursor(), []
        entry = cursor.first()
        while entry is not None:
            found.append(entry)
            entry = cursor.next()
    return found


def salvage(disk: MemoryFileSystem, **given: Any) -> Salvaged:
    return salvage_table(disk, "/db/t", 7, "/db/fresh", 8, **given)


def test_a_whole_table_is_copied_whole(disk: MemoryFileSystem) -> None:
    write(disk)
    found = salvage(disk)
    assert (found.entries, found.lost, found.range_deletes_lost) == (3000, [], False)
    assert entries(disk, "/db/fresh", 8) == VERSIONS
    assert found.summary is not None
    assert found.summary["entries"] == 3000
    assert found.smallest == b"00000" + struct.pack("<Q", 9 << 8 | 1)
    assert found.largest == b"01499" + struct.pack("<Q", 4 << 8 | 1)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_damaged_blocks_are_all_that_is_lost(
    disk: MemoryFileSystem, compression: str | None
) -> None:
    data = write(disk, compression=compression)
    blocks = [(at, size) for kind, at, size in frames(data) if kind == 1]
    chance = random.Random(3)
    kept_before = entries(disk, "/db/t", 7)
    for _ in range(30):
        hurt = sorted(chance.sample(range(len(blocks)), 3))
        changed = bytearray(data)
        for number in hurt:
            at, size = blocks[number]
            changed[at + chance.randrange(size)] ^= 1 << chance.randrange(8)
        disk.write_file("/db/t", bytes(changed))
        found = salvage(disk)
        kept = entries(disk, "/db/fresh", 8)
        there = set(kept)
        disk.remove_file("/db/fresh")
        assert found.blocks == len(blocks) - 3
        assert sum(lost.size for lost in found.lost) == sum(blocks[n][1] for n in hurt)
        # What is gone lies between the keys that are named, and nothing else is gone.
        expected = [
            version
            for version in kept_before
            if version in there
            or not any(
                (lost.after is None or version[0] >= lost.after)
                and (lost.before is None or version[0] <= lost.before)
                for lost in found.lost
            )
        ]
        assert kept == expected
        assert len(kept) == found.entries < 3000


def test_without_index_and_both_ends_the_manifests_id_is_enough(disk: MemoryFileSystem) -> None:
    data = bytearray(write(disk, file_id=b"i" * 16))
    for kind, at, size in list(frames(bytes(data))):
        if kind != 1:
            data[at : at + size] = bytes(size)
    data[:96] = bytes(96)
    data[-96:] = bytes(96)
    disk.write_file("/db/t", bytes(data))
    with pytest.raises(CorruptionError) as caught:
        salvage(disk)
    assert caught.value.code is IntegrityCode.INVALID_MAGIC
    assert disk.names("/db") == ["t"]
    found = salvage(disk, file_id=b"i" * 16)
    assert entries(disk, "/db/fresh", 8) == VERSIONS
    assert found.range_deletes_lost


@pytest.mark.parametrize("end", ["header", "footer"])
def test_either_end_tells_the_id(disk: MemoryFileSystem, end: str) -> None:
    data = bytearray(write(disk))
    place = 50 if end == "header" else len(data) - 50
    data[place] ^= 1
    disk.write_file("/db/t", bytes(data))
    assert salvage(disk).entries == 3000


def test_a_table_that_was_cut_gives_what_came_before(disk: MemoryFileSystem) -> None:
    data = write(disk)
    blocks = [(at, size) for kind, at, size in frames(data) if kind == 1]
    disk.write_file("/db/t", data[: blocks[20][0] + 100])
    found = salvage(disk)
    assert found.blocks == 20
    kept = entries(disk, "/db/fresh", 8)
    assert kept == VERSIONS[: len(kept)]
    (lost,) = found.lost
    assert (lost.offset, lost.size) == (blocks[20][0], 100)
    assert (lost.after, lost.before) == (kept[-1][0], None)


def test_a_block_of_another_table_is_not_kept(disk: MemoryFileSystem) -> None:
    data = write(disk)
    disk.remove_file("/db/t")
    other = write(disk)
    _, at, size = next(frames(data))
    disk.write_file("/db/t", data[:at] + other[at : at + size] + data[at + size :])
    found = salvage(disk)
    assert [lost.offset for lost in found.lost] == [at]
    assert found.entries < 3000


def test_another_id_than_the_manifests_is_refused(disk: MemoryFileSystem) -> None:
    write(disk)
    with pytest.raises(CorruptionError, match="another table under this name"):
        salvage(disk, file_id=b"x" * 16)
    assert disk.names("/db") == ["t"]


def test_a_table_of_another_format_is_left_alone(disk: MemoryFileSystem) -> None:
    data = bytearray(write(disk))
    data[8] = 3
    struct.pack_into("<I", data, 92, crc32c(bytes(data[:92])))
    disk.write_file("/db/t", bytes(data))
    with pytest.raises(CorruptionError) as caught:
        salvage(disk)
    assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION


def test_nothing_whole_leaves_no_table(disk: MemoryFileSystem) -> None:
    data = write(disk)
    disk.write_file("/db/t", data[:96] + bytes(len(data) - 96))
    found = salvage(disk)
    assert (found.entries, found.summary, found.smallest) == (0, None, None)
    assert disk.names("/db") == ["t"]


def test_range_tombstones_come_along_or_are_said_to_be_lost(disk: MemoryFileSystem) -> None:
    low, high = b"a" + struct.pack("<Q", 9 << 8), b"z" + struct.pack("<Q", 3 << 8)
    writer = TableWriter(disk, "/db/t", 7)
    writer.add(b"k", 5, PUT, b"v")
    writer.cover(low, high, 3, 9, 1)
    ranges = b"\x01\0\0\0\x01a\x01z\x05"
    writer.add_meta("range-deletes", ranges)
    writer.finish()
    data = disk.read_file("/db/t")
    assert not salvage(disk).range_deletes_lost
    fresh = read_table(disk.read_file("/db/fresh"))
    assert fresh.metas["range-deletes"] == ranges
    assert fresh.ranges == [(b"a", b"z", 5)]
    assert fresh.properties[15] == 1
    disk.remove_file("/db/fresh")
    (place,) = (at for kind, at, _ in frames(data) if data[at + 16 :].startswith(ranges))
    disk.flip_bit("/db/t", place + 20)
    assert salvage(disk).range_deletes_lost


def test_memory_that_runs_short_is_no_damage(disk: MemoryFileSystem) -> None:
    """Each allocation refused in turn: an error that leaves no table, or all of it."""
    few = VERSIONS[:200]
    write(disk, few)
    nth = refused = 0
    reached = True
    while reached:
        nth += 1
        found = None
        memory.fail_allocation(nth, 1)
        try:
            found = salvage(disk)
        except MemoryError:
            refused += 1
        finally:
            reached = memory.refused() > 0
            memory.reset()
        if found is not None:
            assert (found.entries, found.lost) == (200, [])
            assert entries(disk, "/db/fresh", 8) == few
            disk.remove_file("/db/fresh")
        assert disk.names("/db") == ["t"]
    assert refused > 20


def test_what_the_device_cannot_read_is_lost_and_the_rest_is_kept(disk: MemoryFileSystem) -> None:
    write(disk)
    disk.fail("pread", errno.EIO, at=20)
    found = salvage(disk)
    disk.heal()
    assert len(found.lost) == 1
    assert 2900 < found.entries < 3000
