"""A byte-bounded, sharded cache of verified, uncompressed blocks. Any thread, no GIL.

Eviction is CLOCK: a hit sets one flag under the shard's lock instead of moving list nodes. A block
that somebody holds is never evicted, so a cache whose every block is held may stand above its
capacity until they are let go.

Once it is full a data block gets in with the second time that it is asked for within a while, so that a
scan, or reads that never come back, neither push out what is read often nor pay for moving in. What was
asked for lately stands in a table of 32-bit marks, as many as there is room for blocks.

Partitions have a capacity of their own: each lookup needs one, and data blocks, of which there are
thirty times as many bytes, would push them out of a small cache.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef struct BlockCache              # opaque, reference-counted
cdef struct CachedBlock:
    # One cache line, right in front of the data: finding a block brings its first bytes along.
    const uint8_t* data             # verified and uncompressed
    uint32_t size
    # The cache's own business from here on.
    uint32_t referenced             # hit since the hand last passed
    uint64_t holders                # the cache counts as one while the block is in it
    uint64_t table_id
    uint64_t offset
    CachedBlock* chain              # the next one of the same bucket
    CachedBlock* after              # the clock's ring
    CachedBlock* before

cdef struct CacheStats:
    # Of data blocks.
    uint64_t capacity_bytes
    uint64_t used_bytes             # blocks with their bookkeeping
    uint64_t blocks
    uint64_t hits
    uint64_t misses
    uint64_t evictions
    # Of partitions.
    uint64_t index_capacity_bytes
    uint64_t index_used_bytes
    uint64_t index_misses

# Capacities for data blocks and for partitions. NULL: no memory.
cdef BlockCache* cache_new(size_t capacity_bytes, size_t index_capacity_bytes) noexcept nogil
cdef void cache_retain(BlockCache* cache) noexcept nogil
# The last release frees what is in the cache; blocks still pinned live until they are unpinned.
cdef void cache_release(BlockCache* cache) noexcept nogil
cdef void cache_stats(BlockCache* cache, CacheStats* stats) noexcept nogil
# Memory for a block, aligned to a cache line and less than 4 GiB. NULL: none.
cdef uint8_t* block_allocate(size_t size) noexcept nogil
cdef void block_free(uint8_t* data) noexcept nogil
# A number for a table that no other one in this process has or had, to keep its blocks under.
cdef uint64_t cache_next_table_id() noexcept nogil
# A pinned block or NULL; nothing is noted of a block that isn't there.
cdef CachedBlock* cache_get(BlockCache* cache, uint64_t table_id, uint64_t offset) noexcept nogil
# The same for who reads it from disk otherwise: `keep` says whether a block of about `size` bytes
# that isn't there is to be inserted then.
cdef CachedBlock* cache_ask(
    BlockCache* cache, uint64_t table_id, uint64_t offset, size_t size, bint* keep
) noexcept nogil
# Takes ownership of `data` of block_allocate; returns it pinned (an existing equal entry wins). A
# block too large to keep, or any block where `cache` is NULL, belongs to its pin alone.
cdef CachedBlock* cache_insert(
    BlockCache* cache, uint64_t table_id, uint64_t offset, uint8_t* data, size_t size
) noexcept nogil
# Both for partitions.
cdef CachedBlock* cache_get_index(BlockCache* cache, uint64_t table_id, uint64_t offset) noexcept nogil
cdef CachedBlock* cache_insert_index(
    BlockCache* cache, uint64_t table_id, uint64_t offset, uint8_t* data, size_t size
) noexcept nogil
# A pinned block that no cache has, of bytes that the caller writes. NULL: no memory.
cdef CachedBlock* block_alone(size_t size) noexcept nogil
cdef void cache_unpin(CachedBlock* block) noexcept nogil
# 0: of all tables.
cdef void cache_forget_table(BlockCache* cache, uint64_t table_id) noexcept nogil
