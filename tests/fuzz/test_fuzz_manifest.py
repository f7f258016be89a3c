"""Damaged manifests, CURRENT, IDENTITY and batches: an error with a code, never a wrong answer.

Of a manifest's bytes only the last edit may go, and only as a whole: what a crash leaves of an edit
that nothing relied on yet can't be told from damage to it.
"""

from __future__ import annotations

import functools
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.version.native import (
    Edit,
    TableEntry,
    decode_edit,
    encode_edit,
    file_header,
    frame_edit,
    parse_manifest,
)
from kvstore.engine import DB
from kvstore.errors import CorruptionError, IntegrityCode, StorageError

LIMIT = (1 << 64) - 1
LOG_KIND_BATCH = 1
OPTIONS: dict[str, Any] = {"background": False, "write_buffer_size": 64 << 10}

numbers = st.integers(0, LIMIT)
levels = st.integers(0, 6)
bounds = st.binary(min_size=8, max_size=40)
entries = st.builds(
    TableEntry, levels, numbers, numbers, numbers, numbers, numbers, numbers, bounds, bounds
)
edits = st.builds(
    Edit,
    last_sequence=st.none() | numbers,
    flushed_sequence=st.none() | numbers,
    applied_index=st.none() | numbers,
    retain_from=st.none() | numbers,
    next_number=st.none() | numbers,
    removed=st.lists(st.tuples(levels, numbers), max_size=4),
    added=st.lists(entries, max_size=4),
)


def manifest_of(number: int, story: list[Edit]) -> bytes:
    framed = [frame_edit(place, encode_edit(edit)) for place, edit in enumerate(story, 1)]
    return file_header(number) + b"".join(framed)


STORY = [
    Edit(
        last_sequence=40,
        flushed_sequence=40,
        applied_index=7,
        next_number=5,
        added=[TableEntry(0, 4, 900, 40, 2, 1, 40, b"a" + bytes(8), b"m" + bytes(8))],
    ),
    Edit(
        last_sequence=90,
        flushed_sequence=90,
        added=[TableEntry(0, 6, 800, 50, 0, 41, 90, b"b" + bytes(8), b"z" + bytes(8))],
    ),
    Edit(
        next_number=9,
        retain_from=30,
        removed=[(0, 4), (0, 6)],
        added=[TableEntry(1, 8, 1500, 70, 0, 1, 90, b"a" + bytes(8), b"z" + bytes(8))],
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
    for content in (data, file_header(3) + data):
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
    framed = [frame_edit(place, encode_edit(edit)) for place, edit in enumerate(STORY, 1)]
    for order in ([0, 2], [1, 0, 2], [0, 2, 1], [0, 0, 1], [1, 2]):
        content = file_header(3) + b"".join(framed[place] for place in order)
        with pytest.raises(CorruptionError):
            parse_manifest(content, 3, "m")


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
        assert error.code in IntegrityCode
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
    assert refused >= size - 100


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
    assert found is None or found == expected


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


def replay(payload: bytes) -> dict[bytes, bytes] | None:
    """What a database says whose log holds the batch, whole and with a good checksum."""
    disk = MemoryFileSystem()
    DB("/db", filesystem=disk, **OPTIONS).close()
    log = Log("/db/wal", filesystem=disk, segment_bytes=4096)
    log.append(LOG_KIND_BATCH, 1, 0, payload)
    log.sync()
    log.close()
    return open_damaged(disk)


def operation(kind: int, *parts: bytes) -> bytes:
    return bytes([kind]) + b"".join(bytes([len(part)]) + part for part in parts)


BATCH = (3).to_bytes(4, "little") + (
    operation(1, b"key", b"value") + operation(0, b"gone") + operation(1, b"other", b"")
)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_random_bytes_are_no_batch_or_a_whole_one(payload: bytes) -> None:
    replay(payload)


def test_a_batch_with_any_byte_changed_or_cut_is_refused_or_whole() -> None:
    for place in range(len(BATCH)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(BATCH)
            damaged[place] ^= change
            found = replay(bytes(damaged))
            assert found is None or len(found) <= 3
        assert replay(BATCH[:place]) is None
    assert replay(BATCH + b"\0") is None
