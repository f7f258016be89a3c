"""The model's records: kvstore.state.mvcc.records is the plain form."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice, get_varint64, put_varint64

cdef enum:
    EVENTS_PREFIX = 2
    ATTACHMENTS_PREFIX = 4


cdef const uint8_t* read_key_header(
    Slice record, uint64_t sequence, uint64_t model_from, KeyHeader* header
) noexcept nogil:
    cdef const uint8_t* end = record.data + record.size
    cdef const uint8_t* at
    cdef uint64_t lease
    header.changed = sequence
    if sequence <= model_from:
        header.created = sequence
        header.version = 1
        header.lease = 0
        return record.data
    at = get_varint64(record.data, end, &header.created)
    if at != NULL:
        at = get_varint64(at, end, &header.version)
    if at != NULL:
        at = get_varint64(at, end, &lease)
    if (
        at == NULL or header.created == 0 or header.created > sequence or header.version == 0
        or header.version >> 63
    ):
        return NULL
    header.lease = <int64_t> (lease >> 1) ^ -<int64_t> (lease & 1)
    return at


cdef uint8_t* write_key_header(uint8_t* at, const KeyHeader* header) noexcept nogil:
    cdef uint64_t lease = <uint64_t> header.lease
    at = put_varint64(at, header.created)
    at = put_varint64(at, header.version)
    return put_varint64(at, ~(lease << 1) if header.lease < 0 else lease << 1)


cdef uint8_t* write_event_key(uint8_t* at, uint64_t revision, uint32_t place) noexcept nogil:
    at[0] = EVENTS_PREFIX
    put_big_endian(at + 1, revision)
    at[9] = <uint8_t> (place >> 24)
    at[10] = <uint8_t> (place >> 16)
    at[11] = <uint8_t> (place >> 8)
    at[12] = <uint8_t> place
    return at + EVENT_KEY_BYTES


cdef uint8_t* write_event_head(
    uint8_t* at, bint is_delete, uint64_t previous_revision
) noexcept nogil:
    at[0] = is_delete
    return put_varint64(at + 1, previous_revision)


cdef uint8_t* write_attachment_head(uint8_t* at, int64_t lease) noexcept nogil:
    at[0] = ATTACHMENTS_PREFIX
    put_big_endian(at + 1, <uint64_t> lease ^ <uint64_t> 1 << 63)
    return at + ATTACHMENT_HEAD_BYTES


cdef inline void put_big_endian(uint8_t* at, uint64_t number) noexcept nogil:
    cdef int i
    for i in range(8):
        at[i] = <uint8_t> (number >> (56 - 8 * i))
