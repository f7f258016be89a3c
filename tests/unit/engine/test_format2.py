"""Format 2 as docs/storage-format.md has it, read by a reader of its own, and what is refused."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.files.native import PosixFileSystem
from kvstore._engine.table.native import TableFile, TableWriter
from kvstore.errors import CorruptionError, IntegrityCode
from tests.unit.engine.format2_reader import FormatError, crc32c, read_table

DELETE, PUT = 0, 1
NEWEST = (1 << 56) - 1
DISK = PosixFileSystem()
FILE_ID = bytes(range(16))

Version = tuple[bytes, int, int, bytes]
chance = random.Random(2)
CONTENTS: dict[str, list[Version]] = {
    "one": [(b"", 1, PUT, b"")],
    "sequential": [(b"%016d" % k, k, PUT, b"v" * 50) for k in range(3000)],
    "versions over blocks": [
        (b"key%d" % k, s, s % 2, b"%d" % s) for k in range(4) for s in range(300, 0, -1)
    ],
    "prefixes": [(b"a" * k, 5, PUT, b"%d" % k) for k in range(300)],
    "zeros and ones": [(b"\0" * k + b"\xff", 3, PUT, b"x" * 30) for k in range(60, 0, -1)],
    "noise": [
        (key, 7, PUT, b"n" * 20)
        for key in sorted({chance.randbytes(chance.randrange(30)) for _ in range(2000)})
    ],
}


def write(path: Path, versions: list[Version], **options: object) -> bytes:
    writer = TableWriter(DISK, str(path), 7, file_id=FILE_ID, **options)  # type: ignore[arg-type]
    for version in versions:
        writer.add(*version)
    writer.finish()
    return path.read_bytes()


@pytest.mark.parametrize("block_bytes", [64, 400, 4096])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_reader_made_from_the_document_reads_tables(
    tmp_path: Path, content: str, block_bytes: int
) -> None:
    versions = CONTENTS[content]
    table = read_table(write(tmp_path / "t", versions, block_bytes=block_bytes))
    assert table.versions == versions
    assert table.file_id == FILE_ID
    assert table.file_number == 7
    with TableFile(DISK, str(tmp_path / "t"), 7) as opened:
        opened.verify()
        assert opened.properties["partitions"] == table.properties[6]
        assert opened.properties["file_id"] == FILE_ID


def test_a_reader_made_from_the_document_reads_what_a_database_flushed(tmp_path: Path) -> None:
    with kvstore.open(tmp_path / "db", bloom_filter_bits=3) as db:
        for k in range(500):
            db.put(b"%05d" % (k % 300), b"%d" % k)
        # Who sees what it hides has the tombstone written.
        with db.snapshot():
            db.delete(b"00007")
            db.flush()
    (path,) = (tmp_path / "db").glob("*.sst")
    newest = {}
    for key, _, kind, value in reversed(read_table(path.read_bytes()).versions):
        newest[key] = value if kind else None
    assert newest == {
        b"%05d" % k: b"%d" % (k + 300 if k < 200 else k) if k != 7 else None for k in range(300)
    }


def test_tables_have_random_ids(tmp_path: Path) -> None:
    ids = set()
    for number in range(3):
        writer = TableWriter(DISK, str(tmp_path / f"{number}"), number)
        writer.add(b"k", 1, PUT, b"v")
        ids.add(writer.finish()["file_id"])
    assert len(ids) == 3


def test_a_frame_of_another_table_is_never_taken_for_the_right_one(tmp_path: Path) -> None:
    """The same bytes at the same place of a file of the same number, but for the id."""
    versions = CONTENTS["sequential"]
    data = write(tmp_path / "t", versions)
    writer = TableWriter(DISK, str(tmp_path / "other"), 7)
    for version in versions:
        writer.add(*version)
    writer.finish()
    other = (tmp_path / "other").read_bytes()
    assert len(other) == len(data)
    size = 16 + struct.unpack_from("<I", data, 100)[0]
    (tmp_path / "t").write_bytes(data[:96] + other[96 : 96 + size] + data[96 + size :])
    with (
        TableFile(DISK, str(tmp_path / "t"), 7) as table,
        pytest.raises(CorruptionError) as caught,
    ):
        table.get(versions[0][0], NEWEST)
    assert caught.value.code is IntegrityCode.CHECKSUM_MISMATCH


def with_header(change: Callable[[bytearray], None]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        header = bytearray(data[:96])
        change(header)
        struct.pack_into("<I", header, 92, crc32c(bytes(header[:92])))
        return bytes(header) + data[96:]

    return apply


def put(place: int, value: bytes) -> Callable[[bytes], bytes]:
    def change(header: bytearray) -> None:
        header[place : place + len(value)] = value

    return with_header(change)


def format_1(data: bytes) -> bytes:
    """The header that version 1 of the format had."""
    header = struct.pack("<8sIIQI", data[:8], 1, 0, 7, 0)
    return header + struct.pack("<I", crc32c(header)) + data[32:]


U = IntegrityCode.UNSUPPORTED_VERSION
REFUSED: dict[str, tuple[Callable[[bytes], bytes], IntegrityCode, str]] = {
    "format 1": (format_1, U, "table of format 1, this program reads format 2"),
    "format 3": (put(8, b"\3\0\0\0"), U, "another format, this program reads format 2"),
    "incompatible bit": (put(20, b"\x20\0\0\0"), U, "incompatible feature bit 5"),
    "checksum kind": (put(24, b"\2"), U, "unknown kind of checksum"),
    "key order": (put(25, b"\2"), U, "unknown order of keys"),
    "key id": (put(28, b"\1\0\0\0"), U, "encrypted table"),
    "nonce": (put(32, b"\1"), U, "encrypted table"),
    "reserved 26": (put(26, b"\1"), IntegrityCode.INVALID_RECORD, "reserved bytes"),
    "reserved 90": (put(90, b"\1"), IntegrityCode.INVALID_RECORD, "reserved bytes"),
    "another id": (put(48, b"\xff"), IntegrityCode.INVALID_RECORD, "footer of another table"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_headers_that_say_something_else_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, code, what = REFUSED[case]
    path = tmp_path / "t"
    path.write_bytes(change(write(path, CONTENTS["sequential"])))
    with pytest.raises(CorruptionError, match=what) as caught:
        TableFile(DISK, str(path), 7)
    assert caught.value.code is code


@pytest.mark.parametrize("place", [12, 16])
def test_unknown_compatible_features_are_read(tmp_path: Path, place: int) -> None:
    path = tmp_path / "t"
    path.write_bytes(put(place, b"\1\0\0\0")(write(path, CONTENTS["one"])))
    with TableFile(DISK, str(path), 7) as table:
        assert table.get(b"", NEWEST) == (1, b"")


def footer_byte(data: bytes, place: int) -> bytes:
    footer = bytearray(data[-96:])
    footer[place] ^= 1
    struct.pack_into("<I", footer, 84, crc32c(bytes(footer[:84])))
    return data[:-96] + bytes(footer)


@pytest.mark.parametrize("place", [60, 83])
def test_reserved_bytes_of_the_footer_are_zero(tmp_path: Path, place: int) -> None:
    path = tmp_path / "t"
    path.write_bytes(footer_byte(write(path, CONTENTS["one"]), place))
    with pytest.raises(CorruptionError, match="reserved bytes") as caught:
        TableFile(DISK, str(path), 7)
    assert caught.value.code is IntegrityCode.INVALID_RECORD


def refit(data: bytes, payload: bytes, *, name: str = "properties") -> bytes:
    """The table with another payload in the one meta frame that it has, or another name for it."""
    footer = bytearray(data[-96:])
    root_at, _, root_bytes, _ = struct.unpack_from("<QQII", footer, 32)
    at = root_at + root_bytes

    def frame(kind: int, offset: int, payload: bytes) -> bytes:
        head = struct.pack("<BBHII", kind, 0, 0, len(payload), len(payload))
        check = crc32c(FILE_ID + struct.pack("<Q", offset) + head + payload)
        return head + struct.pack("<I", check) + payload

    meta = frame(4, at, payload)
    index = frame(
        5,
        at + len(meta),
        bytes([len(name)]) + name.encode() + struct.pack("<BQI", 0, at, len(meta)),
    )
    total = at + len(meta) + len(index) + 96
    struct.pack_into("<QQQII", footer, 24, total, root_at, at + len(meta), root_bytes, len(index))
    struct.pack_into("<I", footer, 84, crc32c(bytes(footer[:84])))
    return data[:at] + meta + index + bytes(footer)


def test_properties_that_may_be_skipped_are_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    data = write(path, CONTENTS["one"])
    payload = read_table(data).metas["properties"]
    assert refit(data, payload) == data
    path.write_bytes(refit(data, payload + b"\x7f\3abc"))
    with TableFile(DISK, str(path), 7) as table:
        table.verify()
    path.write_bytes(refit(data, payload + b"\xbf\1\1x"))
    with pytest.raises(CorruptionError, match="property that this program doesn't know") as caught:
        TableFile(DISK, str(path), 7)
    assert caught.value.code is U


def test_a_table_without_properties_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    data = write(path, CONTENTS["one"])
    path.write_bytes(refit(data, read_table(data).metas["properties"], name="blobs"))
    with pytest.raises(CorruptionError, match="meta frame that this program doesn't know"):
        TableFile(DISK, str(path), 7)


def test_meta_frames_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TableWriter(DISK, str(path), 7)
    writer.add(b"k", 5, PUT, b"v")
    writer.add_meta("zzz", b"last", may_be_skipped=True)
    writer.add_meta("comment", b"anything", may_be_skipped=True)
    writer.finish()
    table = read_table(path.read_bytes())
    assert list(table.metas) == ["comment", "properties", "zzz"]
    with TableFile(DISK, str(path), 7) as opened:
        opened.verify()
        assert opened.meta("comment") == table.metas["comment"] == b"anything"
        assert opened.meta("zzz") == b"last"
        assert opened.meta("nothing") is None


def test_an_unknown_meta_frame_that_must_be_understood_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TableWriter(DISK, str(path), 7)
    writer.add(b"k", 5, PUT, b"v")
    writer.add_meta("blobs", b"?")
    writer.finish()
    with pytest.raises(
        CorruptionError, match="meta frame that this program doesn't know"
    ) as caught:
        TableFile(DISK, str(path), 7)
    assert caught.value.code is U


def test_meta_frames_have_one_name_each(tmp_path: Path) -> None:
    for name in ("", "n" * 65):
        writer = TableWriter(DISK, str(tmp_path / "t"), 7)
        with pytest.raises(CorruptionError, match="meta frame"):
            writer.add_meta(name, b"")
    writer = TableWriter(DISK, str(tmp_path / "t"), 7)
    writer.add_meta("comment", b"1", may_be_skipped=True)
    with pytest.raises(CorruptionError, match="twice"):
        writer.add_meta("comment", b"2", may_be_skipped=True)
    assert not (tmp_path / "t").exists()


RANGES = [(b"a", b"c", 9), (b"b", b"z", 3)]
BOUNDS = (b"a" + struct.pack("<Q", 9 << 8), b"z" + struct.pack("<Q", 3 << 8))


def frame_of(ranges: list[tuple[bytes, bytes, int]]) -> bytes:
    found = struct.pack("<I", len(ranges))
    for start, stop, sequence in ranges:
        found += bytes([len(start)]) + start + bytes([len(stop)]) + stop + bytes([sequence])
    return found


def test_range_tombstones_widen_the_bounds_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TableWriter(DISK, str(path), 7)
    writer.add(b"b", 5, PUT, b"v")
    writer.add(b"k", 5, PUT, b"v")
    writer.cover(*BOUNDS, 3, 9, 2)
    writer.add_meta("range-deletes", frame_of(RANGES))
    assert writer.finish()["range_deletes"] == 2
    assert read_table(path.read_bytes()).ranges == RANGES
    with TableFile(DISK, str(path), 7) as table:
        table.verify()
        assert (table.properties["smallest"], table.properties["largest"]) == (b"a", b"z")
        assert (table.properties["min_sequence"], table.properties["max_sequence"]) == (3, 9)
        assert table.get(b"k", NEWEST) == (5, b"v")
        assert [table.get(b"b", at) for at in (2, 4, 5, 8, 9)] == [
            None,
            (3, None),
            (5, b"v"),
            (5, b"v"),
            (9, None),
        ]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (None, "without its range tombstones"),
        (b"", "number"),
        (frame_of(RANGES[:1]), "number"),
        (frame_of(RANGES)[:-1], "range tombstones"),
        (frame_of(RANGES) + b"\0", "range tombstones"),
        (frame_of(RANGES[::-1]), "range tombstones"),
        (frame_of([(b"b", b"b", 5), RANGES[1]]), "range tombstones"),
        (frame_of([(b"A", b"b", 5), RANGES[1]]), "beyond"),
        (frame_of([RANGES[0], (b"b", b"zz", 5)]), "beyond"),
        (frame_of([RANGES[0], (b"b", b"z", 10)]), "beyond"),
        (frame_of([RANGES[0], (b"b", b"z", 2)]), "beyond"),
        (frame_of([RANGES[0], (b"b", b"z", 0)]), "range tombstones"),
    ],
)
def test_range_tombstones_that_are_not_as_they_must_be_are_refused(
    tmp_path: Path, frame: bytes | None, why: str
) -> None:
    path = tmp_path / "t"
    writer = TableWriter(DISK, str(path), 7)
    writer.add(b"k", 5, PUT, b"v")
    writer.cover(*BOUNDS, 3, 9, 2)
    if frame is not None:
        writer.add_meta("range-deletes", frame)
    writer.finish()
    with pytest.raises(CorruptionError, match=why):
        TableFile(DISK, str(path), 7)


def test_a_table_may_have_range_tombstones_alone(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TableWriter(DISK, str(path), 7)
    writer.cover(*BOUNDS, 3, 9, 2)
    writer.add_meta("range-deletes", frame_of(RANGES))
    writer.finish()
    assert read_table(path.read_bytes()).versions == []
    with TableFile(DISK, str(path), 7) as table:
        table.verify()
        assert table.get(b"k", NEWEST) == (3, None)
        assert table.get(b"z", NEWEST) is None
        cursor = table.cursor()
        assert cursor.first() is None
        assert cursor.last() is None
        assert cursor.seek(b"k", 5) is None
        assert table.offset_of(b"k", 5) == 96


def test_separators_are_as_short_as_the_keys_allow(tmp_path: Path) -> None:
    versions = [(b"user%08d:%s" % (k * 7919, b"x" * 200), 1, PUT, b"v") for k in range(2000)]
    data = write(tmp_path / "t", versions, bloom_bits=0)
    with TableFile(DISK, str(tmp_path / "t"), 7) as table:
        blocks = int(table.properties["data_blocks"])
        beyond = len(data) - table.offset_of(versions[-1][0], NEWEST)
    assert blocks > 100
    # An index entry takes 17 bytes; the last block, header, meta frames and footer are the rest.
    assert beyond < 17 * blocks + 4096 + 2000


def test_a_bit_of_the_file_that_changed_is_seen_by_both_readers(tmp_path: Path) -> None:
    path = tmp_path / "t"
    data = write(path, CONTENTS["one"])
    for bit in range(0, len(data) * 8, 5):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises((FormatError, UnicodeDecodeError)):
            read_table(bytes(changed))
