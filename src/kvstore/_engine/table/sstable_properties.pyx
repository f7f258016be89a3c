"""Properties as tags, lengths and values.

Each property is varint tag, varint bytes of the value, the value. Tags ascend, each at most once.
The value of a number is a varint. Bit 0x40 of a tag says that a reader that doesn't know it may skip
it; any other unknown tag is refused.

    1   entries                     9   bytes of the largest data block, uncompressed
    2   deletes among them          10  smallest internal key of the table's range
    3   lowest sequence             11  largest internal key of the table's range
    4   highest sequence            12  filter kind: 0 none, 1 blocked Bloom
    5   data blocks                 13  filter hash: 1 (filter.pyx)
    6   partitions                  14  filter bits a key
    7   bytes of all internal keys  15  range tombstones
    8   bytes of all values
    65  restart interval            66  block size asked for     67  compression asked for

1 to 11 must be there, the others are 0 where they are absent.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    INVALID_RECORD,
    MAX_VARINT64_BYTES,
    Slice,
    Status,
    TRAILER_BYTES,
    UNSUPPORTED_VERSION,
    buffer_append,
    buffer_reserve,
    get_varint64,
    put_varint64,
    slice_of,
    status_set,
    varint_bytes,
)


cdef enum:
    TAG_ENTRIES = 1
    TAG_TOMBSTONES = 2
    TAG_MIN_SEQUENCE = 3
    TAG_MAX_SEQUENCE = 4
    TAG_DATA_BLOCKS = 5
    TAG_PARTITIONS = 6
    TAG_RAW_KEY_BYTES = 7
    TAG_RAW_VALUE_BYTES = 8
    TAG_LARGEST_BLOCK_BYTES = 9
    TAG_SMALLEST = 10
    TAG_LARGEST = 11
    TAG_FILTER_KIND = 12
    TAG_FILTER_HASH = 13
    TAG_BLOOM_BITS = 14
    TAG_RANGE_DELETES = 15
    TAG_RESTART_INTERVAL = 65
    TAG_BLOCK_BYTES = 66
    TAG_COMPRESSION = 67
    TAG_SUPERSEDED = 68
    TAG_MAY_BE_SKIPPED = 0x40
    TAG_LAST_REQUIRED = 11
    TAG_LAST = TAG_SUPERSEDED


cdef uint64_t* number_of_tag(Properties* properties, uint64_t tag) noexcept nogil:
    """Where a number goes; NULL: the tag is no number of ours."""
    if tag == TAG_ENTRIES:
        return &properties.entries
    if tag == TAG_TOMBSTONES:
        return &properties.tombstones
    if tag == TAG_MIN_SEQUENCE:
        return &properties.min_sequence
    if tag == TAG_MAX_SEQUENCE:
        return &properties.max_sequence
    if tag == TAG_DATA_BLOCKS:
        return &properties.data_blocks
    if tag == TAG_PARTITIONS:
        return &properties.partitions
    if tag == TAG_RAW_KEY_BYTES:
        return &properties.raw_key_bytes
    if tag == TAG_RAW_VALUE_BYTES:
        return &properties.raw_value_bytes
    if tag == TAG_LARGEST_BLOCK_BYTES:
        return &properties.largest_block_bytes
    if tag == TAG_FILTER_KIND:
        return &properties.filter_kind
    if tag == TAG_FILTER_HASH:
        return &properties.filter_hash
    if tag == TAG_BLOOM_BITS:
        return &properties.bloom_bits
    if tag == TAG_RANGE_DELETES:
        return &properties.range_deletes
    if tag == TAG_RESTART_INTERVAL:
        return &properties.restart_interval
    if tag == TAG_BLOCK_BYTES:
        return &properties.block_bytes
    if tag == TAG_COMPRESSION:
        return &properties.compression
    if tag == TAG_SUPERSEDED:
        return &properties.superseded
    return NULL


cdef int put_bytes(Buffer* into, uint64_t tag, Slice value) noexcept nogil:
    cdef uint8_t* at
    if buffer_reserve(into, 2 * MAX_VARINT64_BYTES + value.size) < 0:
        return -1
    at = put_varint64(into.data + into.size, tag)
    at = put_varint64(at, value.size)
    into.size = <size_t> (at - into.data)
    return buffer_append(into, value.data, value.size)


cdef int properties_put(Buffer* into, const Properties* properties) noexcept nogil:
    cdef uint8_t[MAX_VARINT64_BYTES] number
    cdef uint64_t* value
    cdef uint64_t tag
    for tag in range(1, TAG_LAST + 1):
        if tag == TAG_SMALLEST or tag == TAG_LARGEST:
            if put_bytes(
                into, tag, properties.smallest if tag == TAG_SMALLEST else properties.largest
            ) < 0:
                return -1
            continue
        value = number_of_tag(<Properties*> properties, tag)
        if value == NULL or (tag > TAG_LAST_REQUIRED and value[0] == 0):
            continue
        put_varint64(number, value[0])
        if put_bytes(into, tag, slice_of(number, varint_bytes(value[0]))) < 0:
            return -1
    return 0


cdef int take(
    Properties* properties, uint64_t tag, Slice value, uint64_t offset, Status* status
) noexcept nogil:
    """One property."""
    cdef uint64_t* number
    if tag == TAG_SMALLEST or tag == TAG_LARGEST:
        if value.size < TRAILER_BYTES:
            return status_set(status, INVALID_RECORD, b"table bounds", offset)
        if tag == TAG_SMALLEST:
            properties.smallest = value
        else:
            properties.largest = value
        return 0
    number = number_of_tag(properties, tag)
    if number == NULL:
        if tag & TAG_MAY_BE_SKIPPED:
            return 0
        return status_set(
            status, UNSUPPORTED_VERSION, b"table with a property that this program doesn't know", offset
        )
    if get_varint64(value.data, value.data + value.size, number) != value.data + value.size:
        return status_set(status, INVALID_RECORD, b"table property", offset)
    return 0


cdef int properties_get(
    const uint8_t* data, size_t size, Properties* properties, uint64_t offset, Status* status
) noexcept nogil:
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + size
    cdef uint64_t tag, length
    cdef uint64_t before = 0
    cdef uint64_t required = 0      # how many of those that must be there were
    properties_clear(properties)
    while at < end:
        at = get_varint64(at, end, &tag)
        if at != NULL:
            at = get_varint64(at, end, &length)
        if at == NULL or tag <= before or length > <uint64_t> (end - at):
            return status_set(status, INVALID_RECORD, b"table properties", offset)
        if take(properties, tag, slice_of(at, length), offset, status) < 0:
            return -1
        required += tag <= TAG_LAST_REQUIRED
        before = tag
        at += length
    if required != TAG_LAST_REQUIRED:
        return status_set(status, INVALID_RECORD, b"table properties", offset)
    if properties.filter_kind > FILTER_BLOCKED_BLOOM or (
        properties.filter_kind != FILTER_NONE and properties.filter_hash != FILTER_HASH
    ):
        return status_set(status, UNSUPPORTED_VERSION, b"table with an unknown kind of filter", offset)
    return 0


cdef void properties_clear(Properties* properties) noexcept nogil:
    cdef uint64_t* number
    cdef uint64_t tag
    for tag in range(1, TAG_LAST + 1):
        number = number_of_tag(properties, tag)
        if number != NULL:
            number[0] = 0
