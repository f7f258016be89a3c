"""Indexes: which block may hold a key. Of a partition's data blocks, and of a table's partitions.

An index has a *separator* for each block: a bound at or above everything in that block and below
everything in the next one. It is a user key, and means "below every version of this key"; only
where the versions of one key go on in the next block it is an internal key, the block's last one.
So a separator needs no trailer and no more bytes than tell the two blocks apart. The layout stands
in table_index.pyx.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice, Status


cdef struct Index:
    # Views into bytes that the caller keeps alive, of any alignment. No entries: all is NULL and zero.
    uint32_t entries
    uint32_t prefix                 # bytes that all separators share
    uint32_t key_bytes
    uint32_t value_bytes            # of each value
    const uint8_t* heads            # u64 each, in this machine's order
    const uint8_t* key_at           # u32 each
    const uint8_t* values
    const uint8_t* shared
    const uint8_t* keys


cdef void index_empty(Index* index) noexcept nogil
# -1: the sizes contradict each other.
cdef int index_view(Index* index, const uint8_t* data, size_t size, uint32_t value_bytes) noexcept nogil
# Checks every byte but the values. `offset` is where the index lies in its file, for the status.
cdef int index_check(Index* index, int64_t offset, Status* status) noexcept nogil
# The first separator at or above (user_key, trailer): its slot, `entries` if none, -1 damaged.
cdef int64_t index_lower(Index* index, Slice user_key, uint64_t trailer) noexcept nogil
# Negative, zero or positive as the separator is below, equal to or above the internal key; two
# separators of different indexes likewise. INDEX_DAMAGED: there is no such separator.
cdef int index_order(Index* index, uint64_t slot, Slice user_key, uint64_t trailer) noexcept nogil
cdef int index_order_of(Index* a, uint64_t a_slot, Index* b, uint64_t b_slot) noexcept nogil

cdef enum:
    INDEX_DAMAGED = -2


cdef inline const uint8_t* index_value(Index* index, uint64_t slot) noexcept nogil:
    """The value of an entry; the caller knows that the slot is there."""
    return index.values + slot * index.value_bytes


cdef struct IndexBuilder:
    uint32_t value_bytes
    uint32_t entries
    size_t most_bytes               # that index_builder_finish would append now
    Buffer keys                     # the user keys of the separators, one after another
    Buffer marks                    # a Mark (table_index.pyx) of each
    Buffer values
    # What index_builder_exactly has added up: the key areas of so many entries without such a prefix.
    uint32_t counted
    size_t counted_prefix
    size_t counted_bytes


cdef void index_builder_init(IndexBuilder* builder, uint32_t value_bytes) noexcept nogil
cdef void index_builder_free(IndexBuilder* builder) noexcept nogil
cdef void index_builder_reset(IndexBuilder* builder) noexcept nogil
# The separator between a block's last user key and the next block's first one, a greater one.
cdef Slice index_separator(Slice last, Slice following) noexcept nogil
# Separators strictly ascending. `exact`: up to the version with this trailer, included. -1: no memory.
cdef int index_builder_add(
    IndexBuilder* builder, Slice user_key, bint exact, uint64_t trailer, const uint8_t* value
) noexcept nogil
# Bytes that index_builder_finish would append now, all separators looked at.
cdef size_t index_builder_exactly(IndexBuilder* builder) noexcept nogil
# Appends the index, which must not be empty, to `into`. -1: no memory.
cdef int index_builder_finish(IndexBuilder* builder, Buffer* into) noexcept nogil
