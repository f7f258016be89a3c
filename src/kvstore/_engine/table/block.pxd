"""Reads one block (layout: block_build.pyx): point search, check, and a cursor.

`block_view` makes a Block of bytes in a few instructions; nothing is decoded in advance. Bytes
that came from disk are put through `block_check` once (checked.pxd); after that, searches
still bound every access, so that even a block damaged in memory can't lead outside of it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice, Status


cdef struct Block:
    # Views into bytes that the caller keeps alive, of any alignment.
    uint32_t entries
    uint32_t restarts
    uint32_t prefix
    uint32_t key_bytes
    size_t value_bytes
    const uint8_t* heads            # u64 each, in this machine's order
    const uint8_t* key_at           # u32 each
    const uint8_t* value_at         # u32 each
    const uint8_t* keys
    const uint8_t* values


cdef struct BlockEntry:
    uint32_t shared
    uint32_t unshared
    const uint8_t* suffix           # unshared bytes of user key, then the trailer
    uint64_t trailer
    Slice value
    uint32_t next_key_at
    uint32_t next_value_at


# -1: the sizes contradict each other.
cdef int block_view(Block* block, const uint8_t* data, size_t size) noexcept nogil
# Checks every byte: bounds, order, restarts, heads, kinds, and that all keys are between the
# separators of this slot and the one before it, unless `index` is NULL. `offset` is where the block
# lies in its file, for the status.
cdef int block_check(
    Block* block, Index* index, uint64_t slot, int64_t offset, Status* status
) noexcept nogil
# Decodes the entry at these offsets. -1: it leads out of the block.
cdef int block_entry(Block* block, uint32_t key_at, uint32_t value_at, BlockEntry* entry) noexcept nogil
# The first restart whose key is >= (user_key, trailer): its number, `restarts` if none, -1 damaged.
cdef int64_t block_restart_lower(Block* block, Slice user_key, uint64_t trailer) noexcept nogil
# 1: the first entry >= (user_key, trailer) is a version of user_key and stands in `entry` (its
# trailer and value; its key isn't rebuilt); 0: there is no such version; -1: the block is damaged.
cdef int block_get(Block* block, Slice user_key, uint64_t trailer, BlockEntry* entry) noexcept nogil


cdef struct GroupEntry:
    size_t key_at                   # in group_keys
    size_t key_size
    Slice value


cdef struct BlockCursor:
    # Stands on an entry while `valid`; `key` (internal) and `value` hold until the next move.
    Block block
    Slice key
    Slice value
    bint valid
    bint damaged                    # a move failed: it met damage, or there was no memory for a key
    bint starved                    # then: it was for memory
    uint32_t restart                # the restart group of the entry
    uint32_t next_key_at            # of the entry after it, while not grouped
    uint32_t next_value_at
    uint32_t place                  # its number in the group
    # Forward, a key is built over the one before it. Backward, the whole group is unpacked once.
    uint8_t* key_data
    size_t key_capacity
    bint grouped
    uint32_t group_count
    GroupEntry* group
    size_t group_capacity
    uint8_t* group_keys
    size_t group_keys_capacity


cdef void block_cursor_init(BlockCursor* cursor) noexcept nogil
cdef void block_cursor_free(BlockCursor* cursor) noexcept nogil
# Take another block; the cursor stands nowhere. Its memory is kept.
cdef void block_cursor_reset(BlockCursor* cursor, Block* block) noexcept nogil
cdef void block_cursor_first(BlockCursor* cursor) noexcept nogil
cdef void block_cursor_last(BlockCursor* cursor) noexcept nogil
cdef void block_cursor_seek(BlockCursor* cursor, Slice user_key, uint64_t trailer) noexcept nogil
cdef void block_cursor_next(BlockCursor* cursor) noexcept nogil
cdef void block_cursor_prev(BlockCursor* cursor) noexcept nogil
# Why a move failed, into the status, which it returns -1 for: no memory, or `what` at `offset`.
cdef int block_cursor_failure(
    BlockCursor* cursor, const char* what, int64_t offset, Status* status
) noexcept nogil
