"""The bytes of a log of format 2, and what is refused in them."""

from __future__ import annotations

import re
import struct
import uuid

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.primitives.native import crc32c
from kvstore.errors import CorruptionError, IntegrityCode, InvalidArgumentError

COMMAND = 1
SEGMENT = "/log/000001.wal"
LOG_ID, DATABASE_ID = bytes(range(16)), bytes(range(100, 116))


def log_of(*payloads: bytes, disk: MemoryFileSystem | None = None, **named: object) -> bytes:
    """The first segment of a log of these records, durable, after the loss of power."""
    disk = disk or MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096, **named)  # type: ignore[arg-type]
    log.append_many([(COMMAND, index, 7, payload) for index, payload in enumerate(payloads, 1)])
    log.sync()
    return disk.crash().read_file(SEGMENT)


def opened(segment: bytes, *, read_only: bool = False, **named: object) -> list[bytes]:
    disk = MemoryFileSystem()
    disk.write_file(SEGMENT, segment)
    with Log("/log", filesystem=disk, read_only=read_only, **named) as log:  # type: ignore[arg-type]
        return [payload for _, _, _, payload in log.replay()]


def sealed(segment: bytes, offset: int, field: bytes) -> bytes:
    """The segment's header with a field changed and its checksum made right."""
    header = segment[:offset] + field + segment[offset + len(field) : 124]
    return header + struct.pack("<I", crc32c(header)) + segment[128:]


def record_at(segment: bytes, index: int) -> int:
    """Where the record of this index starts: a checksum's last byte before zeros looks like one."""
    found = re.search(rb"KR.{14}" + re.escape(struct.pack("<QQ", index, 0)), segment, re.DOTALL)
    assert found is not None
    return found.start()


def test_a_segment_is_laid_out_as_documented():
    data = log_of(b"first", b"second!!", log_id=LOG_ID, database_id=DATABASE_ID)
    assert data[:4] == b"KVWL"
    version, number, previous_end, chain, *features = struct.unpack_from("<IQQIIII", data, 4)
    assert (version, number, previous_end, chain, features) == (2, 1, 0, 0, [0, 0, 0])
    assert data[40:56] == LOG_ID
    assert data[56:72] == DATABASE_ID
    assert data[72:92] == bytes(20)
    assert data[92] == 1
    assert data[93:124] == bytes(31)
    (seed,) = struct.unpack_from("<I", data, 124)
    assert seed == crc32c(data[:124])
    at, chain = 128, 0
    for index, payload in enumerate((b"first", b"second!!"), 1):
        fields = struct.unpack_from("<2sBBIIIQQQII", data, at)
        assert fields[:8] == (b"KR", 2, COMMAND, len(payload), 1, chain, index, 7)
        assert fields[8] == 0
        assert fields[9] == crc32c(payload)
        chain = fields[10]
        assert chain == crc32c(data[at : at + 44], seed)
        assert data[at + 48 : at + 48 + len(payload)] == payload
        at += 48 + (len(payload) + 7) // 8 * 8


def test_format_1_is_refused_by_name():
    header = struct.pack("<4sIQQI", b"KVWL", 1, 1, 0, 0) + bytes(32)
    segment = header + struct.pack("<I", crc32c(header)) + bytes(4096)
    with pytest.raises(CorruptionError, match="format 1, this program reads format 2") as caught:
        opened(segment)
    assert caught.value.code == IntegrityCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    ("offset", "field", "code"),
    [
        (4, b"\x03\0\0\0", IntegrityCode.UNSUPPORTED_VERSION),
        (36, b"\0\0\x01\0", IntegrityCode.UNSUPPORTED_VERSION),
        (72, b"\x01\0\0\0", IntegrityCode.UNSUPPORTED_VERSION),
        (91, b"\x01", IntegrityCode.UNSUPPORTED_VERSION),
        (92, b"\x02", IntegrityCode.UNSUPPORTED_VERSION),
        (93, b"\x01", IntegrityCode.INVALID_RECORD),
        (123, b"\x01", IntegrityCode.INVALID_RECORD),
    ],
)
def test_what_this_program_does_not_know_is_refused(offset, field, code):
    with pytest.raises(CorruptionError) as caught:
        opened(sealed(log_of(b""), offset, field))
    assert caught.value.code == code
    assert caught.value.path == SEGMENT


def test_an_unknown_feature_is_read_over_refused_to_writers_or_ignored():
    assert opened(sealed(log_of(b""), 28, b"\xff")) == []
    only_read = sealed(log_of(b""), 32, b"\x10")
    assert opened(only_read, read_only=True) == []
    with pytest.raises(CorruptionError, match="0x10") as caught:
        opened(only_read)
    assert caught.value.code == IntegrityCode.UNSUPPORTED_VERSION


def test_ids_are_random_kept_and_demanded():
    first, second = MemoryFileSystem(), MemoryFileSystem()
    log_of(b"x", disk=first)
    log_of(b"x", disk=second)
    with Log("/log", filesystem=first) as log, Log("/log", filesystem=second) as other:
        assert len(log.log_id) == 16
        assert log.log_id != other.log_id
        assert log.database_id == bytes(16)
        mine = log.log_id
    with Log("/log", filesystem=first, log_id=mine) as log:
        assert log.log_id == mine
    for wanted in ({"log_id": LOG_ID}, {"database_id": DATABASE_ID}):
        with pytest.raises(CorruptionError, match="another") as caught:
            Log("/log", filesystem=first, **wanted)
        assert caught.value.code == IntegrityCode.INVALID_RECORD
    with pytest.raises(InvalidArgumentError, match="15 bytes"):
        Log("/new", filesystem=first, log_id=bytes(15))


def test_a_segment_of_another_log_with_the_right_number_and_end_is_refused():
    disks = [MemoryFileSystem(), MemoryFileSystem()]
    for disk in disks:
        with Log("/log", filesystem=disk, segment_bytes=4096) as log:
            log.append_many([(COMMAND, index, 0, bytes(100)) for index in range(60)])
    disks[0].write_file("/log/000002.wal", disks[1].read_file("/log/000002.wal"))
    with pytest.raises(CorruptionError):
        Log("/log", filesystem=disks[0])


@pytest.mark.parametrize("shift", range(8))
def test_another_log_in_a_torn_unsynced_value_is_no_proof_of_anything(shift):
    """Its records are of a segment 1, too, and say that they were durable."""
    inner = MemoryFileSystem()
    log = Log("/log", filesystem=inner, segment_bytes=1 << 16)
    for index in range(1, 100):
        log.append(COMMAND, index, 0, uuid.uuid4().bytes)
        log.sync()
    segment = inner.read_file(SEGMENT)
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=1 << 20)
    log.append(COMMAND, 1, 0, b"durable")
    log.sync()
    log.append(COMMAND, 2, 0, bytes(shift) + segment)
    log.write()
    torn = bytearray(disk.read_file(SEGMENT))
    at = 128 + 48 + 8
    assert torn[at : at + 2] == b"KR"
    at += 48  # the mark of the sync
    torn[at : at + 48] = bytes(48)
    assert opened(bytes(torn)) == [b"durable"]


def test_a_record_that_was_written_over_another_one_of_the_segment_is_damage():
    """The device puts a whole, valid record where another one was to go."""
    data = bytearray(log_of(*(b"payload %d" % number for number in range(5))))
    size = 48 + 16
    third, fourth = 128 + 2 * size, 128 + 3 * size
    data[fourth : fourth + size] = data[third : third + size]
    with pytest.raises(CorruptionError, match="does not follow the one before it") as damage:
        opened(bytes(data))
    assert damage.value.offset == fourth


def test_what_is_written_while_a_sync_runs_does_not_count_as_durable():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    first = log.append(COMMAND, 1, 0, b"first")
    log.write()
    end = 128 + log.stats()["appended_bytes"]
    second = 0

    def write_more(op: str, path: str) -> None:
        nonlocal second
        if op == "datasync":
            disk.on_operation = None
            second = log.append(COMMAND, 2, 0, b"second")
            log.write()

    disk.on_operation = write_more
    log.sync()
    assert first <= log.durable_ticket < second
    log.append(COMMAND, 3, 0, b"third")
    log.write()
    data = disk.read_file(SEGMENT)
    (synced,) = struct.unpack_from("<Q", data, record_at(data, 3) + 32)
    assert synced == end


def test_zeros_follow_the_last_record_whatever_a_recycled_file_held():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    for index in range(1, 60):
        log.append(COMMAND, index, 0, bytes([index]) * 100)
    log.sync()
    log.remove_before(58)
    segment = log.stats()["segment"]
    while log.stats()["segment"] == segment:
        log.append(COMMAND, 100, 0, b"\xff" * 100)
    log.sync()
    log.append(COMMAND, 101, 0, b"\xff" * 92)
    log.write()
    data = disk.read_file(f"/log/{segment + 1:06d}.wal")
    end = record_at(data, 101) + 48 + 96
    assert data[end - 4 : end + 8] == bytes(12)
    assert any(data[end + 8 :])  # leavings


def test_what_is_cut_counts_own_records_alone_not_the_leavings_in_a_recycled_file():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    for index in range(1, 60):
        log.append(COMMAND, index, 0, bytes([index]) * 100)
    log.sync()
    log.remove_before(58)
    segment = log.stats()["segment"]
    while log.stats()["segment"] == segment:
        log.append(COMMAND, 100, 0, bytes(100))
    log.sync()
    log.append(COMMAND, 101, 0, bytes(100))
    log.write()
    name = f"/log/{segment + 1:06d}.wal"
    data = bytearray(disk.read_file(name))
    assert len(bytes(data).rstrip(b"\0")) > 2000  # leavings
    last = record_at(data, 101)
    data[last + 48] ^= 1
    left = disk.crash(keep="all")
    left.write_file(name, bytes(data))
    with Log("/log", filesystem=left, read_only=True) as log:
        assert log.recovery.cut_path == name
        assert log.recovery.cut_offset == last
        assert log.recovery.cut_bytes == 48 + 104
