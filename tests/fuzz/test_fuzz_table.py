"""Damaged blocks and tables: an error with a code, never a crash, never a wrong answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem, PosixFileSystem
from kvstore._engine.table.native import BlockFace, CacheFace, TableFile, TableWriter, build_block
from kvstore.errors import CorruptionError, IntegrityCode

PUT = 1
NEWEST = (1 << 56) - 1
DISK = PosixFileSystem()

Version = tuple[bytes, int, int, bytes]

VERSIONS: list[Version] = [
    (b"key%03d" % (k // 2), 100 - k % 2, (k % 7) != 0, b"value %d" % k * (k % 4)) for k in range(60)
]


def use_block(data: bytes) -> None:
    """Everything a reader does with a block, without the check that would keep it from doing so."""
    for step in (BlockFace.first, BlockFace.last):
        with suppress(CorruptionError):
            block = BlockFace(data)
            entry, moves = step(block), 0
            while entry is not None and moves < 5000:
                entry = block.next() if step is BlockFace.first else block.prev()
                moves += 1
            assert moves < 5000
    for key in (b"", b"key015", b"key015\0", b"zzz", data[:9]):
        with suppress(CorruptionError):
            BlockFace(data).get(key, NEWEST)
        with suppress(CorruptionError):
            block = BlockFace(data)
            block.seek(key, 50)
            block.prev()
            block.prev()
            block.next()


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_block(data: bytes) -> None:
    use_block(data)
    with suppress(CorruptionError):
        BlockFace(data).check()


@settings(max_examples=300)
@given(
    st.tuples(*[st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))] * 4),
    st.binary(max_size=200),
)
def test_plausible_headers_over_random_bytes(header: tuple[int, ...], rest: bytes) -> None:
    data = b"".join(number.to_bytes(4, "little") for number in header) + rest
    use_block(data)
    with suppress(CorruptionError):
        BlockFace(data).check()


@pytest.mark.parametrize("interval", [1, 4, 16])
def test_a_block_with_any_byte_changed_never_leads_outside(interval: int) -> None:
    chance = random.Random(interval)
    data = build_block(VERSIONS, interval)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= chance.choice([1, 0x80, 0xFF, chance.randrange(1, 256)])
        use_block(bytes(changed))
    for size in range(0, len(data), 7):
        use_block(data[:size])


def test_a_block_check_lets_only_consistent_blocks_through() -> None:
    """What passes the check after a change walks the same both ways, in order, to its end."""
    chance = random.Random(5)
    data = build_block(VERSIONS, 4)
    passed = 0
    for _ in range(4000):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with suppress(CorruptionError):
            block = BlockFace(bytes(changed))
            block.check()
            passed += 1
            entry, seen = block.first(), []
            while entry is not None:
                seen.append(entry)
                entry = block.next()
            assert seen == sorted(seen, key=lambda v: (v[0], -v[1], -v[2]))
            assert len(seen) == len(VERSIONS)
            for place in range(len(seen) - 1, -1, -1):
                at = block.last() if place == len(seen) - 1 else block.prev()
                assert at == seen[place]
            for key, sequence, kind, value in seen:
                assert block.get(key, sequence) == (sequence, kind, value) or kind == 0
    assert passed > 100


def small_table(path: Path, **options: object) -> bytes:
    writer = TableWriter(DISK, str(path), 7, block_bytes=200, **options)  # type: ignore[arg-type]
    for version in VERSIONS:
        writer.add(*version)
    writer.finish()
    return path.read_bytes()


def newest() -> dict[bytes, tuple[int, bytes | None]]:
    found: dict[bytes, tuple[int, bytes | None]] = {}
    for key, sequence, kind, value in VERSIONS:
        found.setdefault(key, (sequence, value if kind else None))
    return found


EXPECTED = newest()


def read_everything(content: bytes) -> int:
    """Every read is right or raises an error with a code; returns how many raised."""
    errors = 0
    disk = MemoryFileSystem()
    disk.write_file("/t", content)
    try:
        table = TableFile(disk, "/t", 7, CacheFace(1 << 20))
    except CorruptionError:
        return 1
    with table:
        for key, expected in EXPECTED.items():
            try:
                assert table.get(key, NEWEST) == expected
            except CorruptionError:
                errors += 1
        for missing in (b"", b"key", b"key0155", b"zzz"):
            with suppress(CorruptionError):
                assert table.get(missing, NEWEST) is None
        try:
            cursor, seen = table.cursor(read_ahead=1024), []
            entry = cursor.first()
            while entry is not None:
                seen.append(entry)
                entry = cursor.next()
            assert seen == VERSIONS
        except CorruptionError:
            errors += 1
        with pytest.raises(CorruptionError):
            table.verify()
    return errors


CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "lowest bit": lambda data, at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
    "highest bit": lambda data, at: data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :],
    "all bits": lambda data, at: data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :],
    "cut": lambda data, at: data[:at],
    "one byte gone": lambda data, at: data[:at] + data[at + 1 :],
    "one byte more": lambda data, at: data[:at] + b"\0" + data[at:],
}


@pytest.mark.parametrize("compression", [None, "zstd", "snappy"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_table_with_any_byte_changed_is_never_read_wrong(
    tmp_path: Path, change: str, compression: str | None
) -> None:
    path = tmp_path / "t"
    data = small_table(path, compression=compression)
    for at in range(0, len(data), 1 if compression is None else 5):
        assert read_everything(CHANGES[change](data, at)) > 0, at


def test_every_single_bit_of_a_table_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "t"
    data = small_table(path)
    disk = MemoryFileSystem()
    disk.write_file("/t", data)
    for bit in range(len(data) * 8):
        disk.flip_bit("/t", bit // 8, bit % 8)
        with pytest.raises(CorruptionError), TableFile(disk, "/t", 7) as table:
            table.verify()
        disk.flip_bit("/t", bit // 8, bit % 8)
    with TableFile(disk, "/t", 7) as table:
        table.verify()


def test_blocks_swapped_inside_a_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TableWriter(DISK, str(path), 7, block_bytes=64, restart_interval=1)
    for k in range(100):
        writer.add(b"%04d" % k, 1, PUT, b"v" * 60)
    writer.finish()
    data = path.read_bytes()
    # Entries are all of one size, and so are their frames: [96, 96 + size), and on.
    size = 16 + int.from_bytes(data[100:104], "little")
    first, second = data[96 : 96 + size], data[96 + size : 96 + 2 * size]
    assert first[:12] == second[:12]
    path.write_bytes(data[:96] + second + first + data[96 + 2 * size :])
    with TableFile(DISK, str(path), 7) as table:
        for key in (b"0000", b"0001"):
            with pytest.raises(CorruptionError) as caught:
                table.get(key, NEWEST)
            assert caught.value.code is IntegrityCode.CHECKSUM_MISMATCH
        assert table.get(b"0002", NEWEST) == (1, b"v" * 60)


RANGES = b"\x02\0\0\0" + b"\x01a\x01c\x09" + b"\x01b\x02zz\x03"


@settings(max_examples=150)
@given(
    frame=st.binary(max_size=60)
    | st.tuples(st.integers(0, len(RANGES) - 1), st.binary(max_size=6)).map(
        lambda drawn: RANGES[: drawn[0]] + drawn[1] + RANGES[drawn[0] + len(drawn[1]) :]
    )
)
def test_mistaken_range_tombstones_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, frame: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "ranges"
    path.unlink(missing_ok=True)
    writer = TableWriter(DISK, str(path), 7)
    writer.add(b"k", 5, PUT, b"v")
    writer.cover(b"a" + bytes(8), b"zz" + bytes(8), 3, 9, 2)
    writer.add_meta("range-deletes", frame)
    writer.finish()
    with suppress(CorruptionError), TableFile(DISK, str(path), 7) as table:
        for key in (b"", b"a", b"b", b"k", b"zz", b"\xff"):
            for at in (0, 3, 9, NEWEST):
                table.get(key, at)
        table.verify()


@settings(max_examples=200)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_no_table(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(data)
    with pytest.raises(CorruptionError):
        TableFile(DISK, str(path), 7)
