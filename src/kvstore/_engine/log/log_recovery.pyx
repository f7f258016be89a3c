"""Opening of a log; see log_recovery.pxd.

The end of every segment but the newest is known exactly: the next one's header says where it is, and
was written after all before it was durable. In the newest, a record's `synced` field proves how far
the log had been durable when that record was made. What lies below is never cut; what lies beyond and
is not valid was never promised to anybody, and is cut off.
"""

import os
from typing import NamedTuple

from libc.errno cimport EDQUOT, EIO, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    CHECKSUM_MISMATCH,
    INVALID_MAGIC,
    INVALID_RECORD,
    OK,
    Status,
    TRUNCATED_RECORD,
    status_clear,
    status_error,
    status_set,
)
from kvstore._engine.files.native cimport (
    FileSystem,
    FileSystemOps,
    OPEN_CREATE,
    OPEN_READ,
    list_directory,
    os_failure,
)

from kvstore.errors import CorruptionError, IntegrityCode

cdef enum:
    COPY_BYTES = 1048576
    APPLIER_RESTS = 2


class Hollow(NamedTuple):
    """A record whose payload is damaged. Its docstring is in log.pyi."""

    path: str
    offset: int
    kind: int
    index: int
    term: int
    size: int
    checksum: int


class Recovery(NamedTuple):
    """What opening a log found. Its docstring is in log.pyi."""

    records: int
    segments: int
    cut_bytes: int
    cut_path: str | None
    cut_offset: int
    clean: bool
    short: str = ""
    hollows: tuple[Hollow, ...] = ()
    damaged: bool = False
    beyond: tuple[str, ...] = ()


cdef class Applier:
    def __init__(self):
        raise TypeError("only native code applies the records of a log")

    cdef int take(self, const RecordHeader* record, const uint8_t* payload, Status* status) noexcept nogil:
        return 0

    cdef int settle(self) except -1:
        return 0


cdef class Recovered:
    def __init__(self):
        self.spans = {}
        self.sticky = {}
        self.hollows = []


cdef str segment_name(str path, uint64_t number):
    return f"{path}/{number:06d}.wal"


cdef bint is_own_log_name(str name):
    stem, _, suffix = name.partition(".")
    return stem.isdecimal() and suffix in ("wal", "spare", "trusted", "aside")


cdef list segment_numbers(FileSystem disk, str path):
    cdef list numbers = []
    for name in list_directory(disk, path):
        stem, _, suffix = name.partition(".")
        if suffix == "wal" and stem.isdecimal():
            numbers.append(int(stem))
    numbers.sort()
    return numbers


cdef int remove_unused(FileSystem disk, str path) except -1:
    cdef bytes raw
    cdef const char* at
    cdef int result
    for name in list_directory(disk, path):
        if name.partition(".")[2] in ("spare", "trusted"):
            raw = os.fsencode(f"{path}/{name}")
            at = raw
            with nogil:
                result = disk.ops.unlink(disk.disk, at)
            if result < 0:
                raise os_failure(result, b"removing an unused log segment", f"{path}/{name}")
    return 0


cdef object missing_segment(list numbers, tuple noted, str path):
    """The error where a segment is gone that somebody else knows of; None."""
    first, last, _ = noted
    missing = 0
    if first and (not numbers or numbers[0] > first):
        missing = first
    elif last and (not numbers or numbers[len(numbers) - 1] < last):
        missing = last
    if not missing:
        return None
    return CorruptionError(
        "a durable segment of the log is missing", code=IntegrityCode.INVALID_RECORD,
        path=segment_name(path, missing),
    )


cdef object early_end(SegmentReader* reader, tuple noted, str where):
    """The error where a segment's records end before they did once, as somebody else knows; None."""
    cdef Status status = reader.stop
    if reader.header.number != noted[1] or reader.position >= noted[2]:
        return None
    if status.code == OK:
        status_set(
            &status, TRUNCATED_RECORD, b"durable log records are gone", <int64_t> reader.position
        )
    return status_error(&status, where)


cdef Recovered recover(
    FileSystem disk, str path, frozenset sticky_kinds, bint repair, tuple noted, bint report_short,
    bint hollow, bint report_damage, Applier applier
):
    cdef Recovered found = Recovered()
    cdef SegmentReader reader
    cdef Status status
    cdef uint64_t number, records = 0, cut = 0
    cdef bint clean = True
    cdef bytes raw
    cdef const char* at
    cdef int result
    cdef list numbers = segment_numbers(disk, path)
    short = None if noted is None else missing_segment(numbers, noted, path)
    damage = None
    if short is not None and not report_short:
        raise short
    if repair:
        remove_unused(disk, path)
    for number in numbers:
        where = segment_name(path, number)
        status_clear(&status)
        if found.number and number != found.number + 1:
            status_set(&status, INVALID_RECORD, b"the log segment before this one is missing", -1)
            damage = short = status_error(&status, where)
            if not report_damage:
                raise damage
            break
        raw = os.fsencode(where)
        at = raw
        try:
            with nogil:
                result = segment_open(&reader, disk.ops, disk.disk, at, &status)
            if result:
                raise status_error(&status, where)
            if reader.header.number != number:
                status_set(&status, INVALID_RECORD, b"log segment under another one's name", 8)
                raise status_error(&status, where)
            if found.number and (
                reader.header.previous_end != found.end or reader.header.chain != found.chain
            ):
                raise broken_end(disk, path, found, reader.header.previous_end)
            check_log(&reader, found, where, repair)
            records += read_segment(
                &reader, found, sticky_kinds, where, hollow, number == numbers[len(numbers) - 1],
                <uint64_t> noted[2] if noted is not None and noted[1] == number else 0, applier,
            )
            found.number = number
            found.end = reader.position
            found.chain = reader.chain
            if number == numbers[len(numbers) - 1]:
                cut = judge_end(&reader, where)
                # The mark of a clean close may be a cache's memory of a sync that failed; but the
                # file is cut to its length only after that sync went well.
                clean = reader.clean and reader.position == reader.file_bytes
            if short is None and noted is not None:
                short = early_end(&reader, noted, where)
                if short is not None and not report_short:
                    raise short
        except CorruptionError as error:
            if not report_damage or error.code is IntegrityCode.UNSUPPORTED_VERSION:
                raise
            # What was read before it stands; where that is all of a segment, up to its end.
            damage = short = error
            break
        finally:
            with nogil:
                segment_close(&reader)
    if short is not None:
        # What is left had all been durable, and what can't be read may be of use to somebody.
        cut = 0
    if found.number and not clean and repair and short is None:
        make_durable(disk, path, found.number, found.end)
    found.summary = Recovery(
        records=records, segments=len(numbers), cut_bytes=cut,
        cut_path=segment_name(path, found.number) if cut else None, cut_offset=found.end if cut else 0,
        clean=clean, short="" if short is None else str(short), hollows=tuple(found.hollows),
        damaged=damage is not None,
        beyond=() if damage is None else tuple(
            segment_name(path, number) for number in numbers if number > found.number
        ),
    )
    return found


cdef int check_log(SegmentReader* reader, Recovered found, str where, bint repair) except -1:
    """That the segment is of the same log as those before it, and may be written after."""
    cdef Status status
    cdef bytes log_id = <bytes> (<char*> reader.header.log_id)[:ID_BYTES]
    cdef bytes database_id = <bytes> (<char*> reader.header.database_id)[:ID_BYTES]
    cdef uint32_t unknown = reader.header.read_only_compatible & ~<uint32_t> READ_ONLY_COMPATIBLE
    status_clear(&status)
    if unknown and repair:
        raise CorruptionError(
            f"log segment with feature bits {unknown:#x}, unknown here: it can only be read",
            code=IntegrityCode.UNSUPPORTED_VERSION, path=where, offset=32,
        )
    if found.log_id is not None and (
        log_id != found.log_id or database_id != found.database_id
    ):
        status_set(&status, INVALID_RECORD, b"segment of another log", 40)
        raise status_error(&status, where)
    found.log_id = log_id
    found.database_id = database_id
    return 0


cdef uint64_t read_segment(
    SegmentReader* reader, Recovered found, frozenset sticky_kinds, str where, bint hollow,
    bint newest, uint64_t noted_end, Applier applier
) except? 0xFFFFFFFFFFFFFFFF:
    """Reads all records up to the end, wherever and whatever that is; returns how many of users.

    `hollow`: goes on behind a record whose payload is damaged and that had been durable. In the
    newest segment others may be torn: those that end beyond `noted_end`, and that no record behind
    them proves to have been durable.
    """
    cdef uint64_t durable = 0
    cdef Status status
    cdef RecordHeader record
    cdef const uint8_t* payload = NULL
    cdef uint64_t records = 0
    cdef Span span
    cdef int result = 1
    cdef bint[256] is_sticky
    cdef int kind
    cdef bint applies = applier is not None
    for kind in range(256):
        is_sticky[kind] = kind in sticky_kinds
    status_clear(&status)
    span_clear(&span)
    while result > 0:
        with nogil:
            result = next_sticky(
                reader, is_sticky, &record, &payload, &records, &span, applier, applies, &status
            )
        if result == 0 and hollow and reader.hollow:
            if newest and durable == 0:
                with nogil:
                    durable = segment_durable_end(reader, &status)
                if durable == 0:
                    raise status_error(&status, where)
                durable = max(durable, noted_end)
            if not newest or reader.position + record_bytes(record.payload_bytes) <= durable:
                found.hollows.append(Hollow(
                    where, reader.position, record.kind, record.index, record.term,
                    record.payload_bytes, record.payload_crc,
                ))
                records += 1
                if not is_sticky[record.kind]:
                    span_note(&span, record.index)
                segment_pass(reader, &record)
                result = 1
        elif result == APPLIER_RESTS:
            applier.settle()
        elif result > 0:
            found.sticky[record.kind] = (
                record.index, record.term, <bytes> payload[: record.payload_bytes]
            )
    if result < 0:
        raise status_error(&status, where)
    span.bytes = reader.position
    found.spans[reader.header.number] = span
    return records


cdef int next_sticky(
    SegmentReader* reader, const bint* is_sticky, RecordHeader* record, const uint8_t** payload,
    uint64_t* records, Span* span, Applier applier, bint applies, Status* status
) noexcept nogil:
    """Reads on to a record of a sticky kind (1) or the end (0), and counts. -1: unreadable.

    APPLIER_RESTS: the applier wants to settle() first.
    """
    cdef int result
    while True:
        result = segment_next(reader, record, payload, status)
        if result <= 0:
            return result
        if record.kind > KIND_USER_MAX:
            continue
        records[0] += 1
        if is_sticky[record.kind]:
            return 1
        span_note(span, record.index)
        if applies:
            result = applier.take(record, payload[0], status)
            if result:
                return result if result < 0 else APPLIER_RESTS


cdef object broken_end(FileSystem disk, str path, Recovered found, uint64_t promised):
    """The error for a segment whose records don't end where its successor says they did."""
    cdef SegmentReader reader
    cdef Status status
    cdef RecordHeader record
    cdef const uint8_t* payload = NULL
    where = segment_name(path, found.number)
    cdef bytes raw = os.fsencode(where)
    cdef const char* at = raw
    status_clear(&status)
    with nogil:
        if segment_open(&reader, disk.ops, disk.disk, at, &status) == 0:
            while segment_next(&reader, &record, &payload, &status) > 0:
                pass
            if status.code == OK:
                status = reader.stop
        segment_close(&reader)
    if status.code == OK:
        status_set(
            &status, TRUNCATED_RECORD if found.end < promised else INVALID_RECORD,
            b"log segment does not end where the next one says", <int64_t> found.end,
        )
    return status_error(&status, where)


cdef uint64_t judge_end(SegmentReader* reader, str where) except? 0xFFFFFFFFFFFFFFFF:
    """Bytes of a torn tail that may be cut from the newest segment; raises where it is damage."""
    cdef Status status
    cdef uint64_t tail_end
    cdef int durable
    status_clear(&status)
    if reader.stop.code not in (OK, CHECKSUM_MISMATCH, TRUNCATED_RECORD, INVALID_MAGIC):
        # The header is intact, so no torn write made it.
        raise status_error(&reader.stop, where)
    with nogil:
        durable = segment_end_was_durable(reader, &tail_end, &status)
    if durable < 0:
        raise status_error(&status, where)
    if durable:
        if reader.stop.code == OK:
            status_set(
                &reader.stop, TRUNCATED_RECORD, b"durable log records are gone",
                <int64_t> reader.position,
            )
        raise status_error(&reader.stop, where)
    return tail_end - reader.position if reader.stop.code != OK else 0


cdef int make_durable(FileSystem disk, str path, uint64_t number, uint64_t end) except -1:
    """Replaces the newest segment with a synced copy of its valid part.

    The pages that were read may be a cache's memory of a write that the device refused. On a full
    disk they are written once more where they are, which makes them durable as well: each byte on the
    device is then the one that was read or the one that was there before, as it was already. A copy
    is better only because it goes to other blocks than those that may have failed.
    """
    cdef bytes name = os.fsencode(segment_name(path, number))
    cdef bytes copy = os.fsencode(f"{path}/{number:06d}.trusted")
    cdef bytes folder = os.fsencode(path)
    cdef bytearray buffer = bytearray(min(<uint64_t> COPY_BYTES, end))
    cdef uint8_t* raw = <uint8_t*> (<char*> buffer)
    cdef const char* name_raw = name
    cdef const char* copy_raw = copy
    cdef const char* folder_raw = folder
    cdef int result
    with nogil:
        result = write_anew(disk.ops, disk.disk, name_raw, copy_raw, raw, end)
        if result == 0:
            result = disk.ops.rename(disk.disk, copy_raw, name_raw)
        elif result in (-ENOSPC, -EDQUOT):
            disk.ops.unlink(disk.disk, copy_raw)
            result = write_anew(disk.ops, disk.disk, name_raw, name_raw, raw, end)
        if result == 0:
            result = disk.ops.sync_directory(disk.disk, folder_raw)
    if result < 0:
        raise os_failure(result, b"making the log's tail durable", segment_name(path, number))
    return 0


cdef int write_anew(
    const FileSystemOps* ops, void* disk, const char* source_path, const char* target_path,
    uint8_t* buffer, uint64_t end
) noexcept nogil:
    """The first `end` bytes of a file into another, or into itself; nothing else, and synced."""
    cdef void* source = NULL
    cdef void* target = NULL
    cdef uint64_t offset = 0
    cdef int64_t count
    cdef int result = ops.open(disk, source_path, OPEN_READ, &source)
    if result < 0:
        return result
    result = ops.open(disk, target_path, OPEN_CREATE, &target)
    if result < 0:
        ops.close(disk, source)
        return result
    while result == 0 and offset < end:
        count = ops.pread(
            disk, source, buffer, <size_t> min(<uint64_t> COPY_BYTES, end - offset), offset
        )
        if count <= 0:
            result = <int> count if count < 0 else -EIO
            break
        result = ops.pwrite(disk, target, buffer, <size_t> count, offset)
        offset += <uint64_t> count
    if result == 0:
        result = ops.truncate(disk, target, end)
    if result == 0:
        result = ops.datasync(disk, target)
    ops.close(disk, source)
    ops.close(disk, target)
    return result
