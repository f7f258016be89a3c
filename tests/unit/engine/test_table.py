"""Tables on disk: what was written is read, in both directions, at every sequence."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import PosixFileSystem
from kvstore._engine.table.native import CacheFace, TableFile, TableWriter
from kvstore.errors import ClosedError, CorruptionError, IntegrityCode, StorageError

DELETE, PUT = 0, 1
NEWEST = (1 << 56) - 1
DISK = PosixFileSystem()

Version = tuple[bytes, int, int, bytes]


def order(version: Version) -> tuple[bytes, int, int]:
    key, sequence, kind, _ = version
    return key, -sequence, -kind


def write(path: Path, versions: Sequence[Version], **options: object) -> dict[str, int | bytes]:
    writer = TableWriter(DISK, str(path), 7, **options)  # type: ignore[arg-type]
    for version in versions:
        writer.add(*version)
    return writer.finish()


def lookup(
    versions: Sequence[Version], key: bytes, sequence: int
) -> tuple[int, bytes | None] | None:
    at = bisect.bisect_left(versions, (key, -sequence, -PUT), key=order)
    if at == len(versions) or versions[at][0] != key:
        return None
    _, found, kind, value = versions[at]
    return found, value if kind == PUT else None


def forwards(table: TableFile, *, fill_cache: bool = True, read_ahead: int = 0) -> list[Version]:
    cursor, found = table.cursor(fill_cache=fill_cache, read_ahead=read_ahead), []
    entry = cursor.first()
    while entry is not None:
        found.append(entry)
        entry = cursor.next()
    return found


def backwards(table: TableFile) -> list[Version]:
    cursor, found = table.cursor(), []
    entry = cursor.last()
    while entry is not None:
        found.append(entry)
        entry = cursor.prev()
    return found


def many_versions(chance: random.Random) -> list[Version]:
    return [
        (b"%02d" % k, s, chance.randrange(2), b"v" * 30)
        for k in range(5)
        for s in range(400, 0, -1)
    ]


def mixed_sizes(chance: random.Random) -> list[Version]:
    return [
        (b"%05d" % k, k, PUT, chance.randbytes(chance.choice([0, 1, 100, 5000, 70_000])))
        for k in range(300)
    ]


SHAPES: dict[str, Callable[[random.Random], list[Version]]] = {
    "one entry": lambda _: [(b"k", 1, PUT, b"v")],
    "one tombstone": lambda _: [(b"k", 1, DELETE, b"")],
    "empty key and value": lambda _: [
        (b"", 3, PUT, b""),
        (b"", 1, DELETE, b""),
        (b"\0", 2, PUT, b""),
    ],
    "sequential": lambda _: [(b"%016d" % k, k, PUT, b"v" * 100) for k in range(20_000)],
    "versions across blocks": many_versions,
    "value beyond a block": lambda c: [(b"a", 1, PUT, c.randbytes(1 << 20)), (b"b", 2, PUT, b"")],
    "mixed sizes": mixed_sizes,
    "long keys": lambda _: [(b"p" * 900 + b"%05d" % k, k, PUT, b"") for k in range(500)],
    "prefixes of each other": lambda _: [(b"a" * k, 5, PUT, b"%d" % k) for k in range(400)],
    "ends in high bytes": lambda _: [(b"\xff" * k, 5, PUT, b"%d" % k) for k in range(1, 100)],
}
OPTIONS: dict[str, dict[str, object]] = {
    "as usual": {},
    "tiny blocks": {"block_bytes": 64, "restart_interval": 1},
    "no filter": {"bloom_bits": 0, "restart_interval": 3},
    "large blocks": {"block_bytes": 1 << 16, "restart_interval": 64},
    "lz4": {"compression": "lz4"},
    "zstd": {"compression": "zstd", "block_bytes": 16_384},
    "snappy": {"compression": "snappy"},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_written_is_read(tmp_path: Path, shape: str, options: str) -> None:
    chance = random.Random(shape)
    versions = SHAPES[shape](chance)
    summary = write(tmp_path / "t", versions, **OPTIONS[options])
    cache = CacheFace(1 << 20)
    with TableFile(DISK, str(tmp_path / "t"), 7, cache) as table:
        table.verify()
        assert summary == {
            "file_bytes": (tmp_path / "t").stat().st_size,
            "entries": len(versions),
            "tombstones": sum(kind == DELETE for _, _, kind, _ in versions),
            "range_deletes": 0,
            "superseded": sum(
                newer[0] == older[0] and older[2] != DELETE
                for newer, older in itertools.pairwise(versions)
            ),
            "min_sequence": min(v[1] for v in versions),
            "max_sequence": max(v[1] for v in versions),
            "file_id": table.properties["file_id"],
        }
        assert summary.items() <= table.properties.items()
        assert forwards(table) == versions
        assert forwards(table, fill_cache=False, read_ahead=1 << 18) == versions
        assert backwards(table) == versions[::-1]
        for key, sequence, _, _ in chance.sample(versions, min(100, len(versions))):
            for at in (NEWEST, sequence, max(sequence - 1, 0)):
                assert table.get(key, at) == lookup(versions, key, at)
            for other in (key + b"\0", key[:-1], key + b"\xff"):
                assert table.get(other, NEWEST) == lookup(versions, other, NEWEST)
        assert cache.stats()["used_bytes"] <= 1 << 20


@pytest.mark.parametrize("options", ["as usual", "tiny blocks"])
@pytest.mark.parametrize("shape", ["sequential", "versions across blocks", "mixed sizes"])
def test_seek_lands_on_the_first_entry_at_or_after_its_target(
    tmp_path: Path, shape: str, options: str
) -> None:
    chance = random.Random(shape)
    versions = SHAPES[shape](chance)
    write(tmp_path / "t", versions, **OPTIONS[options])
    with TableFile(DISK, str(tmp_path / "t"), 7) as table:
        cursor = table.cursor()
        for _ in range(300):
            key, sequence, _, _ = chance.choice(versions)
            key = chance.choice([key, key + b"\0", key[:-1], b"", b"\xff" * 9])
            sequence = max(0, sequence + chance.randrange(-1, 2))
            at = bisect.bisect_left(versions, (key, -sequence, -PUT), key=order)
            expected = versions[at] if at < len(versions) else None
            assert cursor.seek(key, sequence) == expected
            if expected is None:
                continue
            # Either way on from there, and back again.
            after = versions[at + 1] if at + 1 < len(versions) else None
            assert cursor.next() == after
            if after is not None:
                assert cursor.prev() == expected
                assert cursor.prev() == (versions[at - 1] if at else None)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=6), st.sampled_from([b"aaaaaaaaa", b"aaaaaaaaab"])),
            st.integers(0, 40),
            st.sampled_from([PUT, DELETE]),
            st.binary(max_size=40),
        ),
        min_size=1,
        max_size=120,
        unique_by=lambda version: version[:3],
    ),
    st.integers(64, 300),
    st.integers(1, 5),
    st.sampled_from([0, 1, 10]),
    st.binary(max_size=6),
    st.integers(0, 40),
)
def test_agrees_with_a_sorted_list(
    tmp_path: Path,
    versions: list[Version],
    block: int,
    interval: int,
    bits: int,
    probe: bytes,
    at: int,
) -> None:
    versions = sorted(versions, key=order)
    path = tmp_path / "t"
    path.unlink(missing_ok=True)
    write(path, versions, block_bytes=block, restart_interval=interval, bloom_bits=bits)
    with TableFile(DISK, str(path), 7) as table:
        table.verify()
        assert forwards(table) == versions
        assert backwards(table) == versions[::-1]
        for key in {probe, *(v[0] for v in versions)}:
            assert table.get(key, at) == lookup(versions, key, at)


def test_a_large_table_has_many_partitions_and_offsets_that_grow(tmp_path: Path) -> None:
    versions = SHAPES["sequential"](random.Random(0))
    write(tmp_path / "t", versions, block_bytes=512)
    with TableFile(DISK, str(tmp_path / "t"), 7) as table:
        assert int(table.properties["partitions"]) > 10
        offsets = [table.offset_of(b"%016d" % k, NEWEST) for k in range(0, 20_000, 500)]
        assert offsets == sorted(offsets)
        assert offsets[0] == 96
        assert abs(offsets[20] - int(table.properties["file_bytes"]) // 2) < 40_000
        assert table.offset_of(b"~", NEWEST) <= int(table.properties["file_bytes"])


def test_compression_is_kept_only_where_it_pays(tmp_path: Path) -> None:
    chance = random.Random(1)
    noise = [(b"%05d" % k, k, PUT, chance.randbytes(200)) for k in range(500)]
    text = [(b"%05d" % k, k, PUT, b"the same words " * 13) for k in range(500)]
    for name in ("lz4", "zstd", "snappy"):
        sizes = {}
        for what, versions in (("noise", noise), ("text", text)):
            plain = int(write(tmp_path / "plain", versions)["file_bytes"])
            packed = int(write(tmp_path / "packed", versions, compression=name)["file_bytes"])
            # A word on the codec stands in the properties.
            sizes[what] = round(packed / plain, 3)
            (tmp_path / "plain").unlink()
            (tmp_path / "packed").unlink()
        assert sizes["noise"] == 1.0
        assert sizes["text"] < 0.5


def test_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    for wrong in ((b"b", 5), (b"b", 6), (b"a", 9)):
        writer = TableWriter(DISK, str(tmp_path / "t"), 7)
        writer.add(b"b", 5, PUT, b"")
        with pytest.raises(CorruptionError, match="out of order"):
            writer.add(*wrong, PUT, b"")
        assert not (tmp_path / "t").exists()


def test_an_empty_table_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    writer = TableWriter(DISK, str(tmp_path / "t"), 7)
    with pytest.raises(CorruptionError, match="without entries"):
        writer.finish()
    assert not (tmp_path / "t").exists()
    with pytest.raises(ClosedError):
        writer.finish()


def test_a_table_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"precious")
    with pytest.raises(StorageError) as caught:
        TableWriter(DISK, str(tmp_path / "t"), 7)
    assert caught.value.code is IntegrityCode.IO_ERROR
    assert (tmp_path / "t").read_bytes() == b"precious"


def test_a_missing_file_and_a_misplaced_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        TableFile(DISK, str(tmp_path / "t"), 7)
    assert caught.value.code is IntegrityCode.IO_ERROR
    write(tmp_path / "t", [(b"k", 1, PUT, b"v")])
    with pytest.raises(CorruptionError, match="another file number") as damaged:
        TableFile(DISK, str(tmp_path / "t"), 8)
    assert damaged.value.code is IntegrityCode.INVALID_RECORD


def test_a_cursor_outlives_the_table_it_came_from(tmp_path: Path) -> None:
    write(tmp_path / "t", SHAPES["sequential"](random.Random(0)))
    table = TableFile(DISK, str(tmp_path / "t"), 7)
    cursor = table.cursor()
    assert cursor.first() is not None
    table.close()
    for _ in range(1000):
        assert cursor.next() is not None
    with pytest.raises(ClosedError):
        table.get(b"k", 1)


def test_scans_without_fill_leave_the_cache_alone(tmp_path: Path) -> None:
    write(tmp_path / "t", SHAPES["sequential"](random.Random(0)))
    cache = CacheFace(8 << 20)
    with TableFile(DISK, str(tmp_path / "t"), 7, cache) as table:
        assert len(forwards(table, fill_cache=False, read_ahead=1 << 16)) == 20_000
        assert cache.stats()["blocks"] == 0
        assert len(forwards(table)) == 20_000
        assert cache.stats()["blocks"] > 100
    assert cache.stats()["blocks"] == 0


def test_a_seek_between_two_keys_finds_the_next_also_at_the_end_of_a_partition(
    tmp_path: Path,
) -> None:
    keys = [b"%06d" % number for number in range(30_000)]
    write(tmp_path / "t", [(key, 1, PUT, b"") for key in keys], block_bytes=256)
    with TableFile(DISK, str(tmp_path / "t"), 7) as table:
        assert table.properties["partitions"] >= 3
        cursor = table.cursor()
        for key, following in itertools.pairwise(keys):
            assert cursor.seek(key + b"\0", NEWEST) == (following, 1, PUT, b"")
        assert cursor.seek(keys[-1] + b"\0", NEWEST) is None
