"""Reading of one log segment; see log_read.pxd."""

from libc.errno cimport EIO
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    CHECKSUM_MISMATCH,
    INVALID_MAGIC,
    INVALID_OPERATION,
    INVALID_RECORD,
    OK,
    Status,
    TRUNCATED_RECORD,
    UNSUPPORTED_VERSION,
    crc32c_extend,
    get_fixed32,
    get_fixed64,
    kv_free,
    kv_realloc,
    status_clear,
    status_no_memory,
    status_os_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystemOps, OPEN_READ


cdef enum:
    READ_BYTES = 262144         # what is read from the file at a time


cdef int fill(SegmentReader* reader, uint64_t offset, size_t size, Status* status) noexcept nogil:
    """Makes [offset, offset + size), which lies within the file, available in the buffer."""
    if offset >= reader.buffer_start and offset + size <= reader.buffer_start + reader.buffer_size:
        return 0
    cdef size_t wanted = size if size > READ_BYTES else READ_BYTES
    if offset + wanted > reader.file_bytes:
        wanted = <size_t> (reader.file_bytes - offset)
    cdef uint8_t* larger
    if wanted > reader.buffer_capacity:
        larger = <uint8_t*> kv_realloc(reader.buffer, wanted)
        if larger == NULL:
            return status_no_memory(status, b"memory to read a log record")
        reader.buffer = larger
        reader.buffer_capacity = wanted
    reader.buffer_size = 0
    cdef int64_t count = reader.ops.pread(reader.disk, reader.file, reader.buffer, wanted, offset)
    if count < 0:
        return status_os_error(status, <int> -count, b"reading a log segment", <int64_t> offset)
    if <size_t> count < size:
        # The size said that the bytes are there: a failing device, not the end of the log.
        return status_os_error(status, EIO, b"a log segment was read short", <int64_t> offset)
    reader.buffer_start = offset
    reader.buffer_size = <size_t> count
    return 0


cdef inline const uint8_t* at_offset(SegmentReader* reader, uint64_t offset) noexcept nogil:
    return reader.buffer + (offset - reader.buffer_start)


cdef int segment_open(
    SegmentReader* reader, const FileSystemOps* ops, void* disk, const char* path, Status* status
) noexcept nogil:
    memset(reader, 0, sizeof(SegmentReader))
    reader.ops = ops
    reader.disk = disk
    status_clear(&reader.stop)
    cdef int result = ops.open(disk, path, OPEN_READ, &reader.file)
    if result < 0:
        reader.file = NULL
        return status_os_error(status, -result, b"opening a log segment", -1)
    cdef int64_t size = ops.size(disk, reader.file)
    if size < 0:
        return status_os_error(status, <int> -size, b"reading the size of a log segment", -1)
    reader.file_bytes = <uint64_t> size
    if reader.file_bytes > LARGEST_SEGMENT_BYTES:
        # A sparse one of any size costs nobody anything but whoever reads it.
        reader.file_bytes = LARGEST_SEGMENT_BYTES
        return status_set(status, INVALID_RECORD, b"larger than any log segment", -1)
    if reader.file_bytes < FORMAT_1_HEADER_BYTES:
        return status_set(status, TRUNCATED_RECORD, b"log segment header cut short", 0)
    if fill(reader, 0, FORMAT_1_HEADER_BYTES, status):
        return -1
    cdef const uint8_t* at = at_offset(reader, 0)
    if get_fixed32(at) != SEGMENT_MAGIC:
        return status_set(status, INVALID_MAGIC, b"not a log segment", 0)
    if is_format_1(at):
        return status_set(
            status, UNSUPPORTED_VERSION, b"log segment of format 1, this program reads format 2", 4
        )
    if reader.file_bytes < SEGMENT_HEADER_BYTES:
        return status_set(status, TRUNCATED_RECORD, b"log segment header cut short", 0)
    if fill(reader, 0, SEGMENT_HEADER_BYTES, status):
        return -1
    at = at_offset(reader, 0)
    reader.seed = get_fixed32(at + SEGMENT_CRC_OFFSET)
    if crc32c_extend(0, at, SEGMENT_CRC_OFFSET) != reader.seed:
        return status_set(status, CHECKSUM_MISMATCH, b"log segment header checksum", 0)
    if check_understood(at, status):
        return -1
    decode_segment_header(at, &reader.header)
    reader.chain = reader.header.chain
    reader.position = SEGMENT_HEADER_BYTES
    return 0


cdef bint is_format_1(const uint8_t* at) noexcept nogil:
    """Its header is 64 bytes long, the checksum at the end of them."""
    return get_fixed32(at + 4) == 1 and (
        crc32c_extend(0, at, FORMAT_1_HEADER_BYTES - 4) == get_fixed32(at + FORMAT_1_HEADER_BYTES - 4)
    )


cdef int check_understood(const uint8_t* at, Status* status) noexcept nogil:
    """That this program understands all that an intact header says."""
    if get_fixed32(at + 4) != LOG_VERSION:
        return status_set(
            status, UNSUPPORTED_VERSION, b"log segment of a version other than 2", 4
        )
    if get_fixed32(at + 36) & ~<uint32_t> INCOMPATIBLE:
        return status_set(
            status, UNSUPPORTED_VERSION, b"log segment with incompatible features unknown here", 36
        )
    if get_fixed32(at + 72) or not all_zero(at + 76, 16):
        return status_set(
            status, UNSUPPORTED_VERSION, b"encrypted log segment: this program has no keys", 72
        )
    if at[92] != CHECKSUM_CRC32C:
        return status_set(
            status, UNSUPPORTED_VERSION, b"log segment with checksums of an unknown kind", 92
        )
    if not all_zero(at + 93, SEGMENT_CRC_OFFSET - 93):
        return status_set(status, INVALID_RECORD, b"log segment header: reserved bytes are set", 93)
    return 0


cdef bint all_zero(const uint8_t* at, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if at[i]:
            return False
    return True


cdef int stop_at(SegmentReader* reader, int code, const char* what) noexcept nogil:
    reader.stop.code = code
    reader.stop.what = what
    reader.stop.offset = <int64_t> reader.position
    return 0


cdef int segment_next(
    SegmentReader* reader, RecordHeader* record, const uint8_t** payload, Status* status
) noexcept nogil:
    cdef uint64_t left = reader.file_bytes - reader.position
    cdef size_t wanted = <size_t> min(left, <uint64_t> RECORD_HEADER_BYTES)
    cdef const uint8_t* at
    reader.hollow = False
    if left == 0:
        return 0
    if fill(reader, reader.position, wanted, status):
        return -1
    at = at_offset(reader, reader.position)
    if all_zero(at, min(wanted, <size_t> TERMINATOR_BYTES)):
        return 0
    if left < RECORD_HEADER_BYTES:
        return stop_at(reader, TRUNCATED_RECORD, b"log record header cut short")
    if not record_header_intact(at, reader.seed):
        if (at[0] | (<int> at[1] << 8)) != RECORD_MAGIC:
            return stop_at(reader, INVALID_MAGIC, b"no log record where one should begin")
        return stop_at(reader, CHECKSUM_MISMATCH, b"log record header checksum")
    if (at[0] | (<int> at[1] << 8)) != RECORD_MAGIC:
        return stop_at(reader, INVALID_MAGIC, b"no log record where one should begin")
    if at[2] != LOG_VERSION:
        return stop_at(reader, UNSUPPORTED_VERSION, b"log record of an unknown version")
    decode_record_header(at, record)
    if record.segment != <uint32_t> reader.header.number:
        return stop_at(reader, INVALID_RECORD, b"log record of another segment")
    if record.kind == 0 or (
        record.kind > KIND_USER_MAX and record.kind != KIND_SYNC_MARK and record.kind != KIND_CLEAN_CLOSE
    ):
        return stop_at(reader, INVALID_OPERATION, b"log record of an unknown kind")
    if record.payload_bytes > MAX_PAYLOAD_BYTES:
        return stop_at(reader, INVALID_RECORD, b"log record larger than the limit")
    if record.chain != reader.chain:
        return stop_at(reader, INVALID_RECORD, b"log record does not follow the one before it")
    if record_bytes(record.payload_bytes) > left:
        return stop_at(reader, TRUNCATED_RECORD, b"log record payload cut short")
    if fill(reader, reader.position, <size_t> record_bytes(record.payload_bytes), status):
        return -1
    payload[0] = at_offset(reader, reader.position) + RECORD_HEADER_BYTES
    if crc32c_extend(0, payload[0], record.payload_bytes) != record.payload_crc:
        reader.hollow = True
        return stop_at(reader, CHECKSUM_MISMATCH, b"log record payload checksum")
    reader.position += record_bytes(record.payload_bytes)
    reader.chain = record.header_crc
    reader.clean = record.kind == KIND_CLEAN_CLOSE
    return 1


cdef void segment_pass(SegmentReader* reader, const RecordHeader* record) noexcept nogil:
    reader.position += record_bytes(record.payload_bytes)
    reader.chain = record.header_crc
    reader.clean = reader.hollow = False
    status_clear(&reader.stop)


cdef uint64_t segment_durable_end(SegmentReader* reader, Status* status) noexcept nogil:
    cdef uint64_t offset = reader.position
    cdef uint64_t proven = SEGMENT_HEADER_BYTES
    cdef const uint8_t* at
    cdef RecordHeader record
    while offset + RECORD_HEADER_BYTES <= reader.file_bytes:
        if fill(reader, offset, RECORD_HEADER_BYTES, status):
            return 0
        at = at_offset(reader, offset)
        if (
            at[0] == (RECORD_MAGIC & 0xFF)
            and at[1] == RECORD_MAGIC >> 8
            and record_header_intact(at, reader.seed)
        ):
            decode_record_header(at, &record)
            proven = max(proven, record.synced)
            if (
                record.kind == KIND_CLEAN_CLOSE
                and offset + RECORD_HEADER_BYTES == reader.file_bytes
            ):
                proven = reader.file_bytes
        offset += 8
    return proven


cdef bint own_header(SegmentReader* reader, uint64_t offset, Status* status) noexcept nogil:
    """Whether what stands there was meant as a record of this segment, be it intact or not."""
    cdef const uint8_t* at
    if offset + 16 > reader.file_bytes:
        return False
    if fill(reader, offset, 16, status):
        return False
    at = at_offset(reader, offset)
    return (
        (at[0] | (<int> at[1] << 8)) == RECORD_MAGIC
        and get_fixed32(at + 8) == <uint32_t> reader.header.number
    )


cdef int segment_end_was_durable(
    SegmentReader* reader, uint64_t* tail_end, Status* status
) noexcept nogil:
    cdef uint64_t offset = reader.position
    cdef size_t size
    cdef const uint8_t* at
    cdef RecordHeader record
    tail_end[0] = offset
    if own_header(reader, offset, status):
        # Torn itself: its size can't be believed.
        tail_end[0] = min(offset + RECORD_HEADER_BYTES, reader.file_bytes)
    if status.code:
        return -1
    while offset < reader.file_bytes:
        size = <size_t> min(reader.file_bytes - offset, <uint64_t> RECORD_HEADER_BYTES)
        if fill(reader, offset, size, status):
            return -1
        at = at_offset(reader, offset)
        if (
            size == RECORD_HEADER_BYTES
            and at[0] == (RECORD_MAGIC & 0xFF)
            and at[1] == RECORD_MAGIC >> 8
            and record_header_intact(at, reader.seed)
        ):
            decode_record_header(at, &record)
            # Behind it there may be stale bytes of an older segment, which were never this log's.
            tail_end[0] = min(offset + record_bytes(record.payload_bytes), reader.file_bytes)
            if record.synced > reader.position:
                return 1
            # The file is cut to end with the mark of a clean close only after the sync of it all.
            if record.kind == KIND_CLEAN_CLOSE and offset + size == reader.file_bytes:
                return 1
        offset += 8
    return 0


cdef void segment_close(SegmentReader* reader) noexcept nogil:
    kv_free(reader.buffer)
    reader.buffer = NULL
    if reader.file != NULL:
        reader.ops.close(reader.disk, reader.file)
        reader.file = NULL
