"""The bytes of an index, its search and its builder. See table_index.pxd for what separators are.

    offset  size
    0       4           N, number of entries, at least 1
    4       4           P, bytes that all separators share
    8       4           K, bytes of the key area
    12      4           V, bytes of each value
    16      8 N         head of each separator: its 8 bytes after the first P, as a big-endian value,
                        zeros past its end
    ...     4 N         offset of each separator in the key area
    ...     V N         the values
    ...     P           the bytes that all separators share
    ...     K           key area, for each separator:
                            varint 2 * (bytes of its user key after the first P) + exact
                            those of these bytes that are not in the head: from the ninth on
                            the 8 bytes of the trailer, if exact is 1

Numbers are little-endian, but for the heads' order of bytes. Separators ascend strictly: by user
key, then one that is not exact (it stands before every version of its key) before those that are,
and these by descending trailer.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from kvstore._engine.primitives.native cimport (
    Buffer,
    INVALID_RECORD,
    MAX_VARINT64_BYTES,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    common_prefix,
    get_fixed32,
    get_varint64,
    head_at,
    heads_lower,
    key_head,
    put_varint64,
    slice_compare,
    slice_of,
    status_set,
    varint_bytes,
)


cdef enum:
    INDEX_HEADER_BYTES = 16
    HEAD_BYTES = 8
    SLOT_BYTES = 12                 # of an entry beside its value and its key: head, key offset


cdef struct Separator:
    # One decoded: what follows the shared prefix.
    uint64_t head
    uint64_t size                   # bytes of its user key after the prefix
    Slice tail                      # those that are not in the head
    bint exact
    uint64_t trailer                # if exact
    uint64_t end                    # of the entry, in the key area


cdef void index_empty(Index* index) noexcept nogil:
    index.entries = index.prefix = index.key_bytes = index.value_bytes = 0
    index.heads = NULL
    index.key_at = NULL
    index.values = index.shared = index.keys = NULL


cdef int index_view(Index* index, const uint8_t* data, size_t size, uint32_t value_bytes) noexcept nogil:
    cdef uint32_t[4] header
    if size < INDEX_HEADER_BYTES:
        return -1
    memcpy(header, data, INDEX_HEADER_BYTES)
    cdef uint64_t slots = header[0]
    cdef uint64_t fixed = INDEX_HEADER_BYTES + slots * (SLOT_BYTES + value_bytes) + header[1]
    if slots == 0 or header[3] != value_bytes or fixed + header[2] != size:
        return -1
    index.entries = header[0]
    index.prefix = header[1]
    index.key_bytes = header[2]
    index.value_bytes = value_bytes
    index.heads = data + INDEX_HEADER_BYTES
    index.key_at = index.heads + slots * HEAD_BYTES
    index.values = data + INDEX_HEADER_BYTES + slots * SLOT_BYTES
    index.shared = index.values + slots * value_bytes
    index.keys = index.shared + header[1]
    return 0


# --- separators -----------------------------------------------------------------------------

cdef inline uint32_t key_offset(Index* index, uint64_t slot) noexcept nogil:
    return get_fixed32(index.key_at + 4 * slot)


cdef inline int separator_at(Index* index, uint64_t slot, Separator* separator) noexcept nogil:
    """-1: it leads out of the index."""
    cdef uint64_t told
    cdef uint32_t offset
    cdef const uint8_t* end = index.keys + index.key_bytes
    if slot >= index.entries:
        return -1
    # Once: in a map it may be another the next time.
    offset = key_offset(index, slot)
    if offset >= index.key_bytes:
        return -1
    cdef const uint8_t* at = get_varint64(index.keys + offset, end, &told)
    if at == NULL:
        return -1
    separator.head = head_at(index.heads, slot)
    separator.exact = told & 1
    separator.size = told >> 1
    separator.tail = slice_of(at, separator.size - HEAD_BYTES if separator.size > HEAD_BYTES else 0)
    if separator.tail.size > <size_t> (end - at):
        return -1
    at += separator.tail.size
    separator.trailer = 0
    if separator.exact:
        if end - at < TRAILER_BYTES:
            return -1
        memcpy(&separator.trailer, at, TRAILER_BYTES)
        at += TRAILER_BYTES
    separator.end = <uint64_t> (at - index.keys)
    return 0


cdef inline int order_after_prefix(
    Separator* separator, uint64_t head, uint64_t size, Slice tail
) noexcept nogil:
    """The order of two user keys that share the prefix; `size` and `tail` of what follows it."""
    cdef uint64_t own = separator.size
    if separator.head != head:
        return -1 if separator.head < head else 1
    # Equal heads: a key that ends inside its head is the prefix of the other one.
    if own < HEAD_BYTES or size < HEAD_BYTES:
        return -1 if own < size else (1 if own > size else 0)
    return slice_compare(separator.tail, tail)


cdef inline int order_past_prefix(
    Separator* separator, uint64_t head, Slice user_key, uint32_t prefix, uint64_t trailer
) noexcept nogil:
    cdef size_t size = user_key.size - prefix
    cdef size_t headed = size if size < HEAD_BYTES else HEAD_BYTES
    cdef int order = order_after_prefix(
        separator, head, size,
        slice_of(user_key.data + prefix + headed, size - headed),
    )
    if order:
        return order
    if not separator.exact:
        return -1
    return -1 if separator.trailer > trailer else (1 if separator.trailer < trailer else 0)


cdef inline int prefix_order(Index* index, Slice user_key) noexcept nogil:
    """Of all separators against a key that lacks their prefix; 0: it has it."""
    cdef size_t shorter = user_key.size if user_key.size < index.prefix else index.prefix
    cdef int order = memcmp(index.shared, user_key.data, shorter) if shorter else 0
    if order == 0 and user_key.size < index.prefix:
        return 1
    return order


cdef int index_order(Index* index, uint64_t slot, Slice user_key, uint64_t trailer) noexcept nogil:
    cdef Separator separator
    if separator_at(index, slot, &separator) < 0:
        return INDEX_DAMAGED
    cdef int order = prefix_order(index, user_key)
    if order:
        return 1 if order > 0 else -1
    return order_past_prefix(
        &separator, key_head(user_key.data, user_key.size, index.prefix), user_key, index.prefix,
        trailer,
    )


cdef inline uint8_t byte_of(Index* index, Separator* separator, uint64_t at) noexcept nogil:
    """A byte of a whole separator."""
    if at < index.prefix:
        return index.shared[at]
    at -= index.prefix
    if at < HEAD_BYTES:
        return <uint8_t> (separator.head >> (56 - 8 * at))
    return separator.tail.data[at - HEAD_BYTES]


cdef int index_order_of(Index* a, uint64_t a_slot, Index* b, uint64_t b_slot) noexcept nogil:
    cdef Separator left, right
    cdef uint64_t at, a_size, b_size
    cdef int difference
    if separator_at(a, a_slot, &left) < 0 or separator_at(b, b_slot, &right) < 0:
        return INDEX_DAMAGED
    a_size = a.prefix + left.size
    b_size = b.prefix + right.size
    at = 0
    while at < a_size and at < b_size:
        difference = <int> byte_of(a, &left, at) - <int> byte_of(b, &right, at)
        if difference:
            return -1 if difference < 0 else 1
        at += 1
    if a_size != b_size:
        return -1 if a_size < b_size else 1
    if left.exact != right.exact:
        return 1 if left.exact else -1
    return -1 if left.trailer > right.trailer else (1 if left.trailer < right.trailer else 0)


# --- search ---------------------------------------------------------------------------------

cdef int64_t index_lower(Index* index, Slice user_key, uint64_t trailer) noexcept nogil:
    cdef Separator separator
    cdef int order
    if index.prefix:
        order = prefix_order(index, user_key)
        if order:
            return 0 if order > 0 else index.entries
    cdef uint64_t head = key_head(user_key.data, user_key.size, index.prefix)
    cdef int low = heads_lower(index.heads, <int> index.entries, head)
    if low == <int> index.entries or head_at(index.heads, low) != head:
        return low
    # Separators that differ past their heads, or one that the key begins with: compare in full.
    cdef int high = low + 1
    if high < <int> index.entries and head_at(index.heads, high) == head:
        high = <int> index.entries
        if head != <uint64_t> -1:
            high = heads_lower(index.heads, high, head + 1)
    cdef int middle
    while low < high:
        middle = (low + high) >> 1
        if separator_at(index, <uint64_t> middle, &separator) < 0:
            return -1
        if order_past_prefix(&separator, head, user_key, index.prefix, trailer) < 0:
            low = middle + 1
        else:
            high = middle
    return low


# --- check ----------------------------------------------------------------------------------

cdef int index_check(Index* index, int64_t offset, Status* status) noexcept nogil:
    cdef Separator before, separator
    cdef uint64_t at = 0
    cdef uint32_t slot
    cdef int order
    for slot in range(index.entries):
        if key_offset(index, slot) != at or separator_at(index, slot, &separator) < 0:
            return status_set(status, INVALID_RECORD, b"index entry", offset)
        if separator.size < HEAD_BYTES and separator.head << (8 * separator.size):
            return status_set(status, INVALID_RECORD, b"index head", offset)
        if slot:
            order = order_after_prefix(&before, separator.head, separator.size, separator.tail)
            if order > 0 or (order == 0 and (
                not separator.exact or (before.exact and before.trailer <= separator.trailer)
            )):
                return status_set(status, INVALID_RECORD, b"index order", offset)
        before = separator
        at = separator.end
    if at != index.key_bytes:
        return status_set(status, INVALID_RECORD, b"index size", offset)
    return 0


# --- builder --------------------------------------------------------------------------------

cdef struct Mark:
    uint64_t at                     # of the user key in `keys`
    uint64_t size
    uint64_t exact
    uint64_t trailer


cdef void index_builder_init(IndexBuilder* builder, uint32_t value_bytes) noexcept nogil:
    builder.value_bytes = value_bytes
    buffer_init(&builder.keys)
    buffer_init(&builder.marks)
    buffer_init(&builder.values)
    index_builder_reset(builder)


cdef void index_builder_free(IndexBuilder* builder) noexcept nogil:
    buffer_free(&builder.keys)
    buffer_free(&builder.marks)
    buffer_free(&builder.values)


cdef void index_builder_reset(IndexBuilder* builder) noexcept nogil:
    builder.entries = 0
    builder.most_bytes = INDEX_HEADER_BYTES
    builder.keys.size = 0
    builder.marks.size = 0
    builder.values.size = 0
    builder.counted = 0
    builder.counted_bytes = 0


cdef Slice index_separator(Slice last, Slice following) noexcept nogil:
    # The shortest prefix of `following` that is above `last`.
    return slice_of(
        following.data, common_prefix(last.data, last.size, following.data, following.size) + 1
    )


cdef int index_builder_add(
    IndexBuilder* builder, Slice user_key, bint exact, uint64_t trailer, const uint8_t* value
) noexcept nogil:
    cdef Mark mark
    mark.at = builder.keys.size
    mark.size = user_key.size
    mark.exact = exact
    mark.trailer = trailer if exact else 0
    if buffer_append(&builder.keys, user_key.data, user_key.size) < 0:
        return -1
    if buffer_append(&builder.marks, &mark, sizeof(mark)) < 0:
        return -1
    if buffer_append(&builder.values, value, builder.value_bytes) < 0:
        return -1
    builder.entries += 1
    builder.most_bytes += SLOT_BYTES + builder.value_bytes + key_area_bytes(&mark, 0)
    return 0


cdef size_t index_builder_exactly(IndexBuilder* builder) noexcept nogil:
    cdef const Mark* marks = <const Mark*> builder.marks.data
    cdef size_t prefix = shared_prefix(builder)
    if prefix != builder.counted_prefix:
        builder.counted = 0
        builder.counted_bytes = 0
        builder.counted_prefix = prefix
    while builder.counted < builder.entries:
        builder.counted_bytes += SLOT_BYTES + key_area_bytes(&marks[builder.counted], prefix)
        builder.counted += 1
    return INDEX_HEADER_BYTES + builder.values.size + prefix + builder.counted_bytes


cdef inline size_t shared_prefix(IndexBuilder* builder) noexcept nogil:
    """Sorted separators: what the first and the last one share, all share."""
    cdef const Mark* marks = <const Mark*> builder.marks.data
    cdef const Mark* last
    if builder.entries == 0:
        return 0
    last = &marks[builder.entries - 1]
    return common_prefix(
        builder.keys.data, marks[0].size, builder.keys.data + last.at, last.size
    )


cdef inline size_t key_area_bytes(const Mark* mark, size_t prefix) noexcept nogil:
    cdef size_t size = mark.size - prefix
    return (
        varint_bytes(2 * size + mark.exact) + (size - HEAD_BYTES if size > HEAD_BYTES else 0)
        + (TRAILER_BYTES if mark.exact else 0)
    )


cdef int index_builder_finish(IndexBuilder* builder, Buffer* into) noexcept nogil:
    cdef const Mark* marks = <const Mark*> builder.marks.data
    cdef const Mark* mark
    cdef size_t prefix = shared_prefix(builder)
    cdef size_t bytes = index_builder_exactly(builder)
    cdef size_t fixed = (
        INDEX_HEADER_BYTES + builder.entries * <size_t> SLOT_BYTES + builder.values.size + prefix
    )
    cdef uint32_t[4] header
    cdef uint32_t slot
    cdef uint64_t head
    cdef uint32_t key_at
    cdef size_t size
    if (bytes >> 32) or buffer_reserve(into, bytes) < 0:
        return -1
    cdef uint8_t* start = into.data + into.size
    cdef uint8_t* at = start + fixed
    header[0] = builder.entries
    header[1] = <uint32_t> prefix
    header[2] = <uint32_t> (bytes - fixed)
    header[3] = builder.value_bytes
    memcpy(start, header, INDEX_HEADER_BYTES)
    for slot in range(builder.entries):
        mark = &marks[slot]
        size = mark.size - prefix
        head = key_head(builder.keys.data + mark.at, mark.size, prefix)
        key_at = <uint32_t> (at - start - fixed)
        memcpy(start + INDEX_HEADER_BYTES + slot * <size_t> HEAD_BYTES, &head, HEAD_BYTES)
        memcpy(
            start + INDEX_HEADER_BYTES + builder.entries * <size_t> HEAD_BYTES + slot * <size_t> 4,
            &key_at, 4,
        )
        at = put_varint64(at, 2 * size + mark.exact)
        if size > HEAD_BYTES:
            memcpy(at, builder.keys.data + mark.at + prefix + HEAD_BYTES, size - HEAD_BYTES)
            at += size - HEAD_BYTES
        if mark.exact:
            memcpy(at, &mark.trailer, TRAILER_BYTES)
            at += TRAILER_BYTES
    memcpy(
        start + INDEX_HEADER_BYTES + builder.entries * <size_t> SLOT_BYTES, builder.values.data,
        builder.values.size,
    )
    if prefix:
        memcpy(start + fixed - prefix, builder.keys.data, prefix)
    into.size += bytes
    return 0
