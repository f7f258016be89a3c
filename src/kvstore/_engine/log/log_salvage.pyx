"""Reading what still checks of a damaged log, for repair. Nothing is written and nothing is judged.

A record is taken where its header and payload check, whether those before it do or not: its
checksums begin with the segment's seed, so that neither stale bytes of an older use of the file nor a
log that is kept in a value is ever taken. The seed is the checksum in the segment's header; where that
header is damaged, both what is stored there and what its bytes give are tried.
"""

import os

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    IO_ERROR,
    OK,
    Status,
    TRUNCATED_RECORD,
    crc32c_extend,
    get_fixed32,
    status_clear,
    status_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystem


cdef class SegmentSalvage:
    """The records of one segment that check: iterate over (kind, index, payload).

    `damage` has a line for each place where something doesn't.
    """
    cdef FileSystem disk
    cdef str path
    cdef SegmentReader reader
    cdef bint opened
    cdef readonly list damage

    def __init__(self, FileSystem disk not None, str path, uint64_t number):
        cdef Status status
        cdef bytes raw = os.fsencode(path)
        if self.opened:
            raise TypeError("a segment is opened once")
        self.disk = disk
        self.path = path
        self.damage = []
        status_clear(&status)
        self.opened = True
        if segment_open(&self.reader, disk.ops, disk.disk, raw, &status):
            if status.code == IO_ERROR:
                raise status_error(&status, path)
            self.note(&status)
            self.guess_header(number)
        self.reader.header.number = number

    def __dealloc__(self):
        if self.opened:
            segment_close(&self.reader)

    cdef void note(self, Status* status):
        self.damage.append(str(status_error(status, self.path)))

    cdef int guess_header(self, uint64_t number) except -1:
        """Find the seed under which a record checks; none: the segment seems empty."""
        cdef Status status
        cdef RecordHeader record
        cdef uint64_t offset
        cdef uint32_t computed
        cdef int attempt
        self.reader.position = self.reader.file_bytes
        if self.reader.file_bytes < SEGMENT_HEADER_BYTES:
            return 0
        status_clear(&status)
        if fill(&self.reader, 0, SEGMENT_HEADER_BYTES, &status):
            raise status_error(&status, self.path)
        computed = crc32c_extend(0, at_offset(&self.reader, 0), SEGMENT_CRC_OFFSET)
        self.reader.seed = get_fixed32(at_offset(&self.reader, 0) + SEGMENT_CRC_OFFSET)
        for attempt in range(2):
            offset = self.next_intact(SEGMENT_HEADER_BYTES, &record)
            if offset < self.reader.file_bytes:
                self.reader.position = offset
                self.reader.chain = record.chain
                return 0
            self.reader.seed = computed
        return 0

    cdef uint64_t next_intact(self, uint64_t offset, RecordHeader* record) except? 0:
        """Where the next header from `offset` on stands that checks; the file's end if none does."""
        cdef Status status
        cdef const uint8_t* at
        cdef SegmentReader* reader = &self.reader
        cdef int result = 0
        status_clear(&status)
        with nogil:
            while offset + RECORD_HEADER_BYTES <= reader.file_bytes:
                result = fill(reader, offset, RECORD_HEADER_BYTES, &status)
                if result:
                    break
                at = at_offset(reader, offset)
                if (at[0] | (<int> at[1] << 8)) == RECORD_MAGIC and record_header_intact(
                    at, reader.seed
                ):
                    decode_record_header(at, record)
                    break
                offset += 8
        if result:
            raise status_error(&status, self.path)
        if offset + RECORD_HEADER_BYTES > reader.file_bytes:
            return reader.file_bytes
        return offset

    def __iter__(self):
        return self

    def __next__(self):
        cdef Status status
        cdef RecordHeader record
        cdef const uint8_t* payload = NULL
        cdef uint64_t offset
        cdef int result
        if not self.opened:
            raise TypeError("a segment that was not opened")
        status_clear(&status)
        while True:
            with nogil:
                result = segment_next(&self.reader, &record, &payload, &status)
            if result < 0:
                raise status_error(&status, self.path)
            if result > 0:
                if record.kind > KIND_USER_MAX:
                    continue
                return record.kind, record.index, <bytes> payload[: record.payload_bytes]
            if self.reader.position >= self.reader.file_bytes:
                raise StopIteration
            offset = self.next_intact(self.reader.position + 8, &record)
            if self.reader.stop.code != OK:
                # At the end there may be stale bytes of an older use of the file, which are no damage.
                if offset < self.reader.file_bytes or own_header(
                    &self.reader, self.reader.position, &status
                ):
                    self.note(&self.reader.stop)
                if status.code != OK:
                    raise status_error(&status, self.path)
            elif offset < self.reader.file_bytes:
                status_set(
                    &status, TRUNCATED_RECORD, b"log records are gone",
                    <int64_t> self.reader.position,
                )
                self.note(&status)
                status_clear(&status)
            status_clear(&self.reader.stop)
            self.reader.position = offset
            self.reader.chain = record.chain


def log_segments(FileSystem disk not None, str path):
    """The numbers of a log's segments, ascending; nothing is removed."""
    return segment_numbers(disk, path)


def salvage_segment(FileSystem disk not None, str path, uint64_t number):
    """A :class:`SegmentSalvage` of segment ``number`` of the log in ``path``."""
    return SegmentSalvage(disk, segment_name(path, number), number)
