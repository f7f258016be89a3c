"""A byte-bounded, sharded LRU cache of verified, uncompressed blocks. Any thread, no GIL."""

from libc.stdint cimport uint8_t, uint64_t


cdef struct BlockCache              # opaque, reference-counted
cdef struct CachedBlock:
    const uint8_t* data             # verified and uncompressed; owned by the entry
    size_t size

cdef struct CacheStats:
    uint64_t capacity_bytes
    uint64_t used_bytes
    uint64_t hits
    uint64_t misses

cdef BlockCache* cache_new(size_t capacity_bytes) noexcept nogil
cdef void cache_retain(BlockCache* cache) noexcept nogil
cdef void cache_release(BlockCache* cache) noexcept nogil
cdef void cache_stats(BlockCache* cache, CacheStats* stats) noexcept nogil
# A pinned block or NULL. `table_id` is unique for each opened table, process-wide.
cdef CachedBlock* cache_get(BlockCache* cache, uint64_t table_id, uint64_t offset) noexcept nogil
# Takes ownership of malloc'ed `data`; returns it pinned (an existing equal entry wins).
cdef CachedBlock* cache_insert(
    BlockCache* cache, uint64_t table_id, uint64_t offset, uint8_t* data, size_t size
) noexcept nogil
cdef void cache_unpin(BlockCache* cache, CachedBlock* block) noexcept nogil
cdef void cache_forget_table(BlockCache* cache, uint64_t table_id) noexcept nogil
