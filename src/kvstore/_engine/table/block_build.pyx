"""The block builder.

    offset  size
    0       4           number of entries, at least 1
    4       4           number of restart points, at least 1
    8       4           prefix: bytes that all user keys of the block share
    12      4           K, bytes of the key area
    16      8 each      head of each restart's user key: 8 bytes after the prefix, big-endian value
    ...     4 each      offset of each restart in the key area
    ...     4 each      offset of each restart's value in the value area
    ...     K           key area, for each entry:
                            varint shared     user key bytes taken from the entry before
                            varint unshared   user key bytes that follow
                            varint value bytes
                            unshared bytes, then the 8 bytes of the trailer (key.pxd)
    ...     rest        value area: the values one after another

Numbers are little-endian. `shared` is 0 at a restart point and the longest possible elsewhere, so
that a search can order an entry without rebuilding its key. Values stand apart from the keys: a
search then touches the few cache lines of the keys and not the values between them. An index
block is the same thing with a restart at every entry.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Buffer,
    MAX_VARINT32_BYTES,
    Slice,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    common_prefix,
    get_varint32,
    key_head,
    put_varint64,
    slice_of,
)


cdef void block_builder_init(BlockBuilder* builder, uint32_t interval) noexcept nogil:
    builder.interval = interval
    buffer_init(&builder.keys)
    buffer_init(&builder.values)
    buffer_init(&builder.restarts)
    buffer_init(&builder.last_key)
    block_builder_reset(builder)


cdef void block_builder_free(BlockBuilder* builder) noexcept nogil:
    buffer_free(&builder.keys)
    buffer_free(&builder.values)
    buffer_free(&builder.restarts)
    buffer_free(&builder.last_key)


cdef void block_builder_reset(BlockBuilder* builder) noexcept nogil:
    builder.entries = 0
    builder.since_restart = 0
    builder.keys.size = 0
    builder.values.size = 0
    builder.restarts.size = 0


cdef size_t block_builder_bytes(BlockBuilder* builder) noexcept nogil:
    return (
        HEADER_BYTES + builder.restarts.size * (RESTART_BYTES // 8) + builder.keys.size
        + builder.values.size
    )


cdef size_t block_builder_shared(BlockBuilder* builder, Slice user_key) noexcept nogil:
    if builder.last_key.size == 0:
        return 0
    return common_prefix(
        builder.last_key.data, builder.last_key.size - TRAILER_BYTES, user_key.data, user_key.size
    )


cdef inline void copy_key(uint8_t* into, const uint8_t* data, size_t size) noexcept nogil:
    """The rest of an internal key, its trailer at least: mostly a short one, not worth a call."""
    cdef uint64_t head, tail
    if size > 16:
        memcpy(into, data, size)
        return
    memcpy(&head, data, 8)
    memcpy(&tail, data + size - 8, 8)
    memcpy(into, &head, 8)
    memcpy(into + size - 8, &tail, 8)


cdef int block_builder_add(
    BlockBuilder* builder, Slice internal_key, size_t shared, Slice value
) noexcept nogil:
    cdef size_t stored = shared
    cdef uint32_t[2] restart
    if builder.entries == 0 or builder.since_restart == builder.interval:
        stored = 0
        builder.since_restart = 0
        restart[0] = <uint32_t> builder.keys.size
        restart[1] = <uint32_t> builder.values.size
        if buffer_append(&builder.restarts, restart, sizeof(restart)) < 0:
            return -1
    cdef size_t rest = internal_key.size - stored
    if buffer_reserve(&builder.keys, 3 * MAX_VARINT32_BYTES + rest) < 0:
        return -1
    cdef uint8_t* at = builder.keys.data + builder.keys.size
    at = put_varint64(at, stored)
    at = put_varint64(at, rest - TRAILER_BYTES)
    at = put_varint64(at, value.size)
    copy_key(at, internal_key.data + stored, rest)
    builder.keys.size = <size_t> (at - builder.keys.data) + rest
    rest = internal_key.size - shared
    builder.last_key.size = shared
    if buffer_reserve(&builder.last_key, rest) < 0:
        return -1
    copy_key(builder.last_key.data + shared, internal_key.data + shared, rest)
    builder.last_key.size = internal_key.size
    if buffer_reserve(&builder.values, value.size) < 0:
        return -1
    if value.size:
        memcpy(builder.values.data + builder.values.size, value.data, value.size)
        builder.values.size += value.size
    builder.entries += 1
    builder.since_restart += 1
    return 0


cdef Slice restart_key(BlockBuilder* builder, uint32_t key_at) noexcept nogil:
    """The user key written at a restart point: shared is one zero byte there."""
    cdef const uint8_t* end = builder.keys.data + builder.keys.size
    cdef uint32_t size = 0
    cdef uint32_t value_size
    cdef const uint8_t* at = get_varint32(builder.keys.data + key_at + 1, end, &size)
    return slice_of(get_varint32(at, end, &value_size), size)


cdef int block_builder_finish(BlockBuilder* builder, Buffer* into) noexcept nogil:
    cdef uint32_t count = <uint32_t> (builder.restarts.size // 8)
    cdef const uint32_t* restarts = <const uint32_t*> builder.restarts.data
    cdef Slice key = restart_key(builder, 0)
    # Sorted keys: what the first and the last one share, all share.
    cdef uint32_t prefix = <uint32_t> common_prefix(
        key.data, key.size, builder.last_key.data, builder.last_key.size - TRAILER_BYTES
    )
    cdef uint32_t[4] header
    cdef uint32_t i
    cdef uint64_t head
    if buffer_reserve(into, block_builder_bytes(builder)) < 0:
        return -1
    header[0] = builder.entries
    header[1] = count
    header[2] = prefix
    header[3] = <uint32_t> builder.keys.size
    buffer_append(into, header, sizeof(header))
    for i in range(count):
        key = restart_key(builder, restarts[2 * i])
        head = key_head(key.data, key.size, prefix)
        buffer_append(into, &head, sizeof(head))
    for i in range(count):
        buffer_append(into, &restarts[2 * i], 4)
    for i in range(count):
        buffer_append(into, &restarts[2 * i + 1], 4)
    buffer_append(into, builder.keys.data, builder.keys.size)
    buffer_append(into, builder.values.data, builder.values.size)
    return 0
