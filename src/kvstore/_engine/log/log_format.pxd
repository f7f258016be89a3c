"""The bytes of a log segment: its header, and the header of each record. All little-endian.

Segment, `%06d.wal`: one segment header at 0, then records, each at a multiple of 8, then 8 zero bytes
(where room is left), then zeros (a fresh file) or the stale bytes of an older segment (a recycled one).

Segment header, 128 bytes:

| offset | size | field |
|---|---|---|
| 0 | 4 | magic "KVWL" |
| 4 | 4 | format version, 2 |
| 8 | 8 | segment number |
| 16 | 8 | offset at which the records of the segment before it end, all of them durable; 0: none |
| 24 | 4 | chain: header checksum of the last record of the segment before it; 0: none |
| 28 | 4 | compatible features |
| 32 | 4 | read-only compatible features |
| 36 | 4 | incompatible features |
| 40 | 16 | id of the log, random, the same in all of its segments |
| 56 | 16 | id of the database that the log belongs to; zero: of none |
| 72 | 4 | key id, 0: not encrypted |
| 76 | 16 | nonce, zero where the key id is 0 |
| 92 | 1 | kind of the checksums, 1: CRC-32C |
| 93 | 31 | zero |
| 124 | 4 | CRC-32C of bytes 0 to 123; also the seed of the segment's record headers |

Record header, 48 bytes, then the payload, then zeros up to a multiple of 8:

| offset | size | field |
|---|---|---|
| 0 | 2 | magic "KR" |
| 2 | 1 | format version, 2 |
| 3 | 1 | kind |
| 4 | 4 | payload size in bytes |
| 8 | 4 | low 32 bits of the segment number |
| 12 | 4 | chain: header checksum of the record before it |
| 16 | 8 | index |
| 24 | 8 | term |
| 32 | 8 | synced: all of this segment below this offset was durable when the record was made |
| 40 | 4 | CRC-32C of the payload |
| 44 | 4 | CRC-32C of bytes 0 to 43, continued from the segment's seed |

The header has a checksum of its own, so a damaged size is known as damage and never taken for the
end of the file ("Protocol-Aware Recovery", FAST'18 section 3.3). The seed differs from segment to
segment and from log to log, so neither the stale bytes in a recycled file nor another log's bytes, kept
in a value or left on the disk, pass for our records.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kvstore._engine.primitives.native cimport (
    crc32c_extend,
    get_fixed32,
    get_fixed64,
    put_fixed32,
    put_fixed64,
)


cdef enum:
    SEGMENT_MAGIC = 0x4C57564B          # "KVWL"
    SEGMENT_HEADER_BYTES = 128
    SEGMENT_CRC_OFFSET = 124
    FORMAT_1_HEADER_BYTES = 64
    RECORD_MAGIC = 0x524B               # "KR"
    RECORD_HEADER_BYTES = 48
    TERMINATOR_BYTES = 8                # zeros after the last record
    LOG_VERSION = 2
    ID_BYTES = 16
    CHECKSUM_CRC32C = 1
    # Features that this program knows.
    READ_ONLY_COMPATIBLE = 0
    INCOMPATIBLE = 0
    # Kinds of the log itself; users have 1 to 0xEF.
    KIND_USER_MAX = 0xEF
    KIND_SYNC_MARK = 0xF0               # only carries `synced`
    KIND_CLEAN_CLOSE = 0xF1             # the log was closed after a sync of all before it
    MAX_PAYLOAD_BYTES = 1073741824
    # No segment that was ever written is that long: it ends with the record that passes its size.
    LARGEST_SEGMENT_BYTES = 2147483648


cdef struct SegmentHeader:
    uint64_t number
    uint64_t previous_end
    uint32_t chain
    uint8_t log_id[ID_BYTES]
    uint8_t database_id[ID_BYTES]
    uint32_t read_only_compatible


cdef struct RecordHeader:
    int kind
    uint32_t payload_bytes
    uint32_t segment
    uint32_t chain
    uint64_t index
    uint64_t term
    uint64_t synced
    uint32_t payload_crc
    uint32_t header_crc


cdef inline uint64_t padded(uint64_t size) noexcept nogil:
    return (size + 7) & ~<uint64_t> 7


cdef inline uint64_t record_bytes(uint64_t payload_bytes) noexcept nogil:
    return RECORD_HEADER_BYTES + padded(payload_bytes)


cdef inline uint32_t encode_segment_header(uint8_t* at, const SegmentHeader* header) noexcept nogil:
    """Returns the seed."""
    cdef uint32_t seed
    memset(at, 0, SEGMENT_HEADER_BYTES)
    put_fixed32(at, SEGMENT_MAGIC)
    put_fixed32(at + 4, LOG_VERSION)
    put_fixed64(at + 8, header.number)
    put_fixed64(at + 16, header.previous_end)
    put_fixed32(at + 24, header.chain)
    memcpy(at + 40, header.log_id, ID_BYTES)
    memcpy(at + 56, header.database_id, ID_BYTES)
    at[92] = CHECKSUM_CRC32C
    seed = crc32c_extend(0, at, SEGMENT_CRC_OFFSET)
    put_fixed32(at + SEGMENT_CRC_OFFSET, seed)
    return seed


cdef inline void decode_segment_header(const uint8_t* at, SegmentHeader* header) noexcept nogil:
    """Of a header that was found right."""
    header.number = get_fixed64(at + 8)
    header.previous_end = get_fixed64(at + 16)
    header.chain = get_fixed32(at + 24)
    header.read_only_compatible = get_fixed32(at + 32)
    memcpy(header.log_id, at + 40, ID_BYTES)
    memcpy(header.database_id, at + 56, ID_BYTES)


cdef inline void encode_record_header(uint8_t* at, RecordHeader* header, uint32_t seed) noexcept nogil:
    """Fills in `header.header_crc` too: it is the chain of the next record."""
    put_fixed32(at, RECORD_MAGIC | (LOG_VERSION << 16) | (<uint32_t> header.kind << 24))
    put_fixed32(at + 4, header.payload_bytes)
    put_fixed32(at + 8, header.segment)
    put_fixed32(at + 12, header.chain)
    put_fixed64(at + 16, header.index)
    put_fixed64(at + 24, header.term)
    put_fixed64(at + 32, header.synced)
    put_fixed32(at + 40, header.payload_crc)
    header.header_crc = crc32c_extend(seed, at, 44)
    put_fixed32(at + 44, header.header_crc)


cdef inline bint record_header_intact(const uint8_t* at, uint32_t seed) noexcept nogil:
    return crc32c_extend(seed, at, 44) == get_fixed32(at + 44)


cdef inline void decode_record_header(const uint8_t* at, RecordHeader* header) noexcept nogil:
    """Of a header whose checksum was found right."""
    header.kind = at[3]
    header.payload_bytes = get_fixed32(at + 4)
    header.segment = get_fixed32(at + 8)
    header.chain = get_fixed32(at + 12)
    header.index = get_fixed64(at + 16)
    header.term = get_fixed64(at + 24)
    header.synced = get_fixed64(at + 32)
    header.payload_crc = get_fixed32(at + 40)
    header.header_crc = get_fixed32(at + 44)
