"""Damaged manifests, CURRENT, IDENTITY and batches: an error with a code, never a wrong answer.

Of a manifest's bytes only the last edit may go, and only as a whole: what a crash leaves of an edit
that nothing relied on yet can't be told from damage to it.
"""

from __future__ import annotations

import functools
import random
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.primitives.native import crc32c
from kvstore._engine.version.native import (
    Edit,
    TableEntry,
    decode_edit,
    encode_edit,
    file_header,
    frame_edit,
    parse_manifest,
)
from kvstore.engine import DB, repair_db
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from tests.unit.engine.format2_database import RANGE_DELETE, operations
from tests.unit.engine.format2_reader import FormatError

LIMIT = (1 << 64) - 1
LOG_KIND_BATCH = 1
OPTIONS: dict[str, Any] = {"background": False, "write_buffer_size": 64 << 10}

numbers = st.integers(0, LIMIT)
levels = st.integers(0, 6)
bounds = st.binary(min_size=8, max_size=40)
ids = st.binary(min_size=16, max_size=16)
entries = st.builds(
    TableEntry,
    levels,
    *[numbers] * 6,
    bounds,
    bounds,
    ids,
    *[numbers] * 2,
)
edits = st.builds(
    Edit,
    last_sequence=st.none() | numbers,
    flushed_sequence=st.none() | numbers,
    applied_index=st.none() | numbers,
    retain_from=st.none() | numbers,
    next_number=st.none() | numbers,
    log_id=st.none() | st.just(b"") | ids,
    log_first=st.none() | numbers,
    log_segment=st.none() | numbers,
    log_end=st.none() | numbers,
    removed=st.lists(st.tuples(levels, numbers), max_size=4),
    added=st.lists(entries, max_size=4),
)


ID = bytes(range(16))


def framed(number: int, payloads: list[bytes], database_id: bytes = ID) -> bytes:
    header = file_header(number, database_id)
    seed = int.from_bytes(header[-4:], "little")
    return header + b"".join(
        frame_edit(place, payload, seed) for place, payload in enumerate(payloads, 1)
    )


def manifest_of(number: int, story: list[Edit], database_id: bytes = ID) -> bytes:
    return framed(number, [encode_edit(edit) for edit in story], database_id)


STORY = [
    Edit(
        last_sequence=40,
        flushed_sequence=40,
        applied_index=7,
        next_number=5,
        added=[TableEntry(0, 4, 900, 40, 2, 1, 40, b"a" + bytes(8), b"m" + bytes(8), b"i" * 16)],
    ),
    Edit(
        last_sequence=90,
        flushed_sequence=90,
        added=[TableEntry(0, 6, 800, 50, 0, 41, 90, b"b" + bytes(8), b"z" + bytes(8), b"i" * 16)],
    ),
    Edit(
        next_number=9,
        retain_from=30,
        removed=[(0, 4), (0, 6)],
        added=[TableEntry(1, 8, 1500, 70, 0, 1, 90, b"a" + bytes(8), b"z" + bytes(8), b"i" * 16)],
    ),
]


# --- edits and manifests -----------------------------------------------------------------------


@settings(max_examples=300)
@given(edits)
def test_an_edit_reads_back_as_it_was_written(edit: Edit) -> None:
    assert decode_edit(encode_edit(edit)) == edit


@settings(max_examples=500)
@given(st.binary(max_size=120))
def test_random_bytes_are_an_edit_or_refused(payload: bytes) -> None:
    with suppress(ValueError):
        edit = decode_edit(payload)
        assert decode_edit(encode_edit(edit)) == edit


@settings(max_examples=300)
@given(edits, st.data())
def test_a_changed_payload_is_an_edit_or_refused(edit: Edit, data: st.DataObject) -> None:
    payload = bytearray(encode_edit(edit) or b"\1\0")
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    with suppress(ValueError):
        changed = decode_edit(bytes(payload))
        assert decode_edit(encode_edit(changed)) == changed


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_are_no_manifest(data: bytes) -> None:
    for content in (data, file_header(3, ID) + data):
        with pytest.raises(CorruptionError) as caught:
            parse_manifest(content, 3, "/MANIFEST-000003")
        assert caught.value.code in IntegrityCode
        assert caught.value.path == "/MANIFEST-000003"


def test_a_manifest_with_any_bit_changed_says_less_by_the_last_edit_or_nothing() -> None:
    whole = manifest_of(3, STORY)
    last = len(manifest_of(3, STORY[:-1]))
    assert parse_manifest(whole, 3, "m") == (STORY, 0)
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            if place >= last:
                assert parse_manifest(bytes(damaged), 3, "m") == (STORY[:-1], len(whole) - last)
                continue
            with pytest.raises(CorruptionError) as caught:
                parse_manifest(bytes(damaged), 3, "m")
            assert caught.value.offset is not None
            assert caught.value.offset <= place


def test_a_manifest_cut_anywhere_says_what_its_whole_edits_say() -> None:
    whole = manifest_of(3, STORY)
    ends = [len(manifest_of(3, STORY[:count])) for count in range(len(STORY) + 1)]
    for size in range(len(whole)):
        complete = sum(end <= size for end in ends[1:])
        if not complete:
            with pytest.raises(CorruptionError):
                parse_manifest(whole[:size], 3, "m")
            continue
        expected = STORY[:complete], size - ends[complete]
        assert parse_manifest(whole[:size], 3, "m") == expected


def test_edits_left_out_swapped_or_said_twice_are_damage() -> None:
    header = file_header(3, ID)
    seed = int.from_bytes(header[-4:], "little")
    frames = [frame_edit(place, encode_edit(edit), seed) for place, edit in enumerate(STORY, 1)]
    for order in ([0, 2], [1, 0, 2], [0, 2, 1], [0, 0, 1], [1, 2]):
        content = header + b"".join(frames[place] for place in order)
        with pytest.raises(CorruptionError):
            parse_manifest(content, 3, "m")


# --- format 2: ids, features, what is to come ------------------------------------------------


def sealed(header: bytes) -> bytes:
    """A header with its checksum made right again."""
    return header[:-4] + crc32c(header[:-4]).to_bytes(4, "little")


def refusal(content: bytes, **how: Any) -> CorruptionError:
    with pytest.raises(CorruptionError) as caught:
        parse_manifest(content, 3, "m", **how)
    return caught.value


def test_an_edit_of_another_database_or_manifest_never_passes() -> None:
    other = bytes(16)
    whole = manifest_of(3, STORY)
    last = len(manifest_of(3, STORY[:-1]))
    for stranger in (manifest_of(3, STORY, other), manifest_of(4, STORY)):
        # In the very place where it would go on: a block that was written astray.
        mixed = whole[:last] + stranger[last:]
        assert parse_manifest(mixed, 3, "m") == (STORY[:-1], len(whole) - last)
    error = refusal(whole, database_id=other)
    assert (error.code, error.offset) == (IntegrityCode.INVALID_RECORD, 32)
    assert parse_manifest(whole, 3, "m", ID) == (STORY, 0)


def test_format_1_is_refused_with_a_clear_word() -> None:
    header = b"kvmanif\0" + struct.pack("<IQ", 1, 3)
    error = refusal(header + crc32c(header).to_bytes(4, "little") + bytes(200))
    assert error.code is IntegrityCode.UNSUPPORTED_VERSION
    assert "format 1, this program reads format 2" in str(error)


def header_with(offset: int, value: bytes) -> bytes:
    header = bytearray(file_header(3, ID))
    header[offset : offset + len(value)] = value
    return sealed(bytes(header))


@pytest.mark.parametrize(
    ("offset", "value", "code", "says"),
    [
        (8, b"\3", IntegrityCode.UNSUPPORTED_VERSION, "format 3, this program reads format 2"),
        (20, b"\4", IntegrityCode.UNSUPPORTED_VERSION, "incompatible feature 0x4"),
        (16, b"\0\1", IntegrityCode.UNSUPPORTED_VERSION, "read-only compatible feature 0x100"),
        (48, b"\2", IntegrityCode.UNSUPPORTED_VERSION, "checksums of kind 2"),
        (49, b"\1", IntegrityCode.INVALID_RECORD, "reserved bytes"),
        (52, b"\7", IntegrityCode.UNSUPPORTED_VERSION, "encrypted with key 7"),
        (71, b"\1", IntegrityCode.UNSUPPORTED_VERSION, "encrypted"),
        (72, b"\1", IntegrityCode.INVALID_RECORD, "reserved bytes"),
        (91, b"\1", IntegrityCode.INVALID_RECORD, "reserved bytes"),
    ],
)
def test_what_a_later_header_says_is_refused_by_its_name(
    offset: int, value: bytes, code: IntegrityCode, says: str
) -> None:
    error = refusal(header_with(offset, value))
    assert error.code is code
    assert says in str(error)


def with_first_edit(header: bytes, payload: bytes) -> bytes:
    return header + frame_edit(1, payload, int.from_bytes(header[-4:], "little"))


def test_compatible_features_are_ignored_and_read_only_ones_let_one_read() -> None:
    payload = encode_edit(STORY[0])
    assert parse_manifest(with_first_edit(header_with(12, b"\xff"), payload), 3, "m")[0] == [
        STORY[0]
    ]
    content = with_first_edit(header_with(16, b"\2"), payload)
    assert refusal(content).code is IntegrityCode.UNSUPPORTED_VERSION
    assert parse_manifest(content, 3, "m", read_only=True)[0] == [STORY[0]]


def field(tag: int, content: bytes) -> bytes:
    assert tag < 128
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


@pytest.mark.parametrize("inside_a_table", [False, True])
def test_an_unknown_field_is_skipped_if_it_says_so_and_else_refused(inside_a_table: bool) -> None:
    def manifest(tag: int) -> bytes:
        payload = encode_edit(STORY[0])
        if not inside_a_table:
            return framed(3, [field(tag, b"new") + payload + field(tag, b"newer")])
        # The table is the last field: its length is in the second byte of it.
        (entry,) = STORY[0].added
        start = payload.index(encode_edit(Edit(added=[entry])))
        table = payload[start + 2 :] + field(tag, b"new")
        return framed(3, [payload[:start] + field(7, table)])

    assert parse_manifest(manifest(64 + 20), 3, "m") == ([STORY[0]], 0)
    error = refusal(manifest(20))
    assert error.code is IntegrityCode.UNSUPPORTED_VERSION
    assert "field 20 is of a later program" in str(error)


@pytest.mark.parametrize(
    "payload",
    [
        field(1, b"\1") * 2,
        field(1, b"\1\0"),
        field(1, b""),
        field(8, bytes(15)),
        field(8, b"") * 2,
        field(6, b"\7\1"),
        field(7, b""),
        b"\1",
        b"\1\5\1",
    ],
)
def test_fields_that_are_none_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|integer|id of|missing|level"):
        decode_edit(payload)
    assert refusal(framed(3, [payload])).code is IntegrityCode.INVALID_RECORD


def identity_with(disk: MemoryFileSystem, old: bytes, new: bytes) -> None:
    body = disk.read_file("/db/IDENTITY").rpartition(b"crc ")[0].replace(old, new)
    disk.write_file("/db/IDENTITY", body + b"crc %08x\n" % crc32c(body))


def test_a_directory_says_which_features_its_reader_must_know() -> None:
    disk, expected = database()
    for name, says in (
        (b"incompatible", "incompatible feature 0x2"),
        (b"read-only-compatible", "read-only compatible feature 0x2"),
    ):
        changed = disk.crash(keep="all")
        identity_with(changed, b"\n" + name + b" 00000000", b"\n" + name + b" 00000002")
        with pytest.raises(CorruptionError, match=says) as caught:
            DB("/db", filesystem=changed, **OPTIONS)
        assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION
        assert caught.value.path == "/db/IDENTITY"
    with DB("/db", filesystem=changed, read_only=True, **OPTIONS) as db:
        assert dict(db) == expected
    changed = disk.crash(keep="all")
    identity_with(changed, b"\ncompatible 00000000", b"\ncompatible ffffffff")
    assert open_damaged(changed) == expected


def test_another_databases_manifest_is_refused_and_repair_keeps_the_id() -> None:
    disk, expected = database()
    changed = disk.crash(keep="all")
    identity = changed.read_file("/db/IDENTITY")
    identity_with(changed, identity.splitlines()[2], b"id " + b"ab" * 16)
    with pytest.raises(CorruptionError, match="of another"):
        DB("/db", filesystem=changed, **OPTIONS)
    damaged = disk.crash(keep="all")
    damaged.write_file("/db/IDENTITY", b"kvstore engine\nnonsense")
    repair_db("/db", filesystem=damaged)
    assert damaged.read_file("/db/IDENTITY") == identity
    assert open_damaged(damaged) == expected


# --- a whole database --------------------------------------------------------------------------


@functools.cache
def database() -> tuple[MemoryFileSystem, dict[bytes, bytes]]:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **OPTIONS) as db:
        for number in range(200):
            db.put(b"%04d" % (number * 7 % 100), b"value %d" % number)
        db.delete(b"0003")
        db.flush()
        for number in range(50):
            db.put(b"%04d" % number, b"later %d" % number)
        db.compact_range()
        db.put(b"in the log", b"alone", sync=True)
        db.delete(b"0005", sync=True)
        return disk, dict(db)


def named(disk: MemoryFileSystem, start: str) -> str:
    (path,) = (path for path in disk.files("/db") if path.startswith(start))
    return path


def open_damaged(disk: MemoryFileSystem) -> dict[bytes, bytes] | None:
    """All that the database says; None where it refuses to say anything."""
    try:
        with DB("/db", filesystem=disk, create_if_missing=False, **OPTIONS) as db:
            db.verify()
            return dict(db)
    except StorageError as error:
        assert str(error.code) in str(error)
        assert error.path is not None
        return None


@pytest.mark.parametrize("start", ["/db/MANIFEST-", "/db/CURRENT", "/db/IDENTITY"])
def test_a_database_with_any_byte_of_its_small_files_changed_is_refused_or_right(
    start: str,
) -> None:
    disk, expected = database()
    rng = random.Random(start)
    size = len(disk.read_file(named(disk, start)))
    refused = 0
    for place in range(size):
        damaged = disk.crash(keep="all")
        damaged.flip_bit(named(damaged, start), place, rng.randrange(8))
        found = open_damaged(damaged)
        refused += found is None
        assert found is None or found == expected
    # Of a manifest the last edit may go.
    assert refused >= size - (100 if start == "/db/MANIFEST-" else 0)


@pytest.mark.parametrize("start", ["/db/MANIFEST-", "/db/CURRENT", "/db/IDENTITY"])
@settings(max_examples=60)
@given(content=st.binary(max_size=80), keeps=st.integers(0, 80))
def test_small_files_of_other_content_are_refused(start: str, content: bytes, keeps: int) -> None:
    disk, expected = database()
    damaged = disk.crash(keep="all")
    path = named(damaged, start)
    whole = damaged.read_file(path)
    damaged.write_file(path, whole[:keeps] + content)
    found = open_damaged(damaged)
    if start == "/db/MANIFEST-" or whole[:keeps] + content == whole:
        assert found is None or found == expected
    else:
        assert found is None


@pytest.mark.parametrize("start", ["/db/MANIFEST-", "/db/CURRENT", "/db/IDENTITY", "/db/0"])
def test_a_missing_file_is_refused(start: str) -> None:
    disk, _ = database()
    damaged = disk.crash(keep="all")
    damaged.remove_file(next(path for path in damaged.files("/db") if path.startswith(start)))
    assert open_damaged(damaged) is None


def test_tables_under_each_others_names_are_refused() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, compaction_trigger=8, **OPTIONS) as db:
        for number in range(2):
            db.put(b"k", b"%d" % number)
            db.flush()
    damaged = disk.crash(keep="all")
    one, other = (path for path in damaged.files("/db") if path.endswith(".sst"))
    content = damaged.read_file(one)
    damaged.write_file(one, damaged.read_file(other))
    damaged.write_file(other, content)
    assert open_damaged(damaged) is None


# --- batches in the log ------------------------------------------------------------------------


FIRST = (b"first", b"1")


def replay(payload: bytes) -> dict[bytes, bytes] | None:
    """What a database says whose log holds FIRST, then the batch, with a good checksum."""
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **OPTIONS) as db:
        db.put(*FIRST)
    log = Log("/db/wal", filesystem=disk, segment_bytes=4096)
    log.append(LOG_KIND_BATCH, 2, 0, payload)
    log.sync()
    log.close()
    return open_damaged(disk)


def operation(kind: int, *parts: bytes) -> bytes:
    return bytes([kind]) + b"".join(bytes([len(part)]) + part for part in parts)


BATCH = (3).to_bytes(4, "little") + (
    operation(1, b"key", b"value") + operation(0, b"gone") + operation(1, b"other", b"")
)


def meant(payload: bytes) -> dict[bytes, bytes] | None:
    """What the batch says by the plain reader; None for what is no batch."""
    newest = {FIRST[0]: (1, 1, FIRST[1])}
    ranges = []
    try:
        found = list(operations(2, payload))
    except (FormatError, IndexError, struct.error):
        return None
    if not found:
        return None
    for key, sequence, kind, value in found:
        if kind > RANGE_DELETE or (kind == RANGE_DELETE and key >= value):
            return None
        if kind == RANGE_DELETE:
            ranges.append((key, value, sequence))
        else:
            newest[key] = max(newest.get(key, (-1, 0, b"")), (sequence, kind, value))
    return {
        key: value
        for key, (sequence, kind, value) in newest.items()
        if kind and not any(low <= key < high and sequence < at for low, high, at in ranges)
    }


OWN_SEQUENCE = 0x80
pieces = st.binary(max_size=3)
batches = st.builds(
    lambda said, parts, rest: said.to_bytes(4, "little") + b"".join(parts) + rest,
    st.integers(0, 4),
    st.lists(
        st.builds(lambda key, value: operation(1, key, value), pieces, pieces)
        | st.builds(lambda key: operation(0, key), pieces)
        | st.builds(lambda start, stop: operation(2, start, stop), pieces, pieces),
        max_size=4,
    ),
    st.just(b"") | st.binary(max_size=3),
)


@settings(max_examples=200)
@given(st.binary(max_size=60) | batches)
def test_bytes_are_no_batch_or_taken_whole(payload: bytes) -> None:
    found = replay(payload)
    if OWN_SEQUENCE in payload and found is None:
        return  # those that are out of order are refused as well
    assert found == meant(payload)


def test_a_batch_with_any_byte_changed_or_cut_is_refused_or_whole() -> None:
    assert replay(BATCH) == dict([FIRST, (b"key", b"value"), (b"other", b"")])
    for place in range(len(BATCH)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(BATCH)
            damaged[place] ^= change
            found = replay(bytes(damaged))
            assert found is None or found == meant(bytes(damaged))
        assert replay(BATCH[:place]) is None
    assert replay(BATCH + b"\0") is None
