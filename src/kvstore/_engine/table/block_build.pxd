"""Builds one block: the bytes that block.pxd reads. The layout stands in block_build.pyx."""

from libc.stdint cimport uint32_t

from kvstore._engine.primitives.native cimport Buffer, Slice


cdef struct BlockBuilder:
    uint32_t interval           # entries from one restart point to the next
    uint32_t entries
    uint32_t since_restart
    Buffer keys
    Buffer values
    Buffer restarts             # u32 offset into keys, u32 offset into values, of each
    Buffer last_key             # internal, of the entry added last, also by the block before


cdef void block_builder_init(BlockBuilder* builder, uint32_t interval) noexcept nogil
cdef void block_builder_free(BlockBuilder* builder) noexcept nogil
# Back to an empty block, memory kept.
cdef void block_builder_reset(BlockBuilder* builder) noexcept nogil
# The caller keeps internal keys strictly ascending, and knows how many bytes the user key shares with that
# in `last_key`: no less than it does. -1: no memory, the block is spoilt.
cdef int block_builder_add(
    BlockBuilder* builder, Slice internal_key, size_t shared, Slice value
) noexcept nogil
# Bytes that a user key shares with the one in `last_key`.
cdef size_t block_builder_shared(BlockBuilder* builder, Slice user_key) noexcept nogil
# Bytes that block_builder_finish would append now.
cdef size_t block_builder_bytes(BlockBuilder* builder) noexcept nogil
# Appends the block, which must not be empty, to `into`. -1: no memory.
cdef int block_builder_finish(BlockBuilder* builder, Buffer* into) noexcept nogil
