"""The block cache: see cache.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Lock,
    counter_next,
    kv_calloc,
    kv_free,
    kv_malloc,
    load_acquire,
    lock_destroy,
    lock_init,
    lock_leave,
    lock_take,
    prefetch,
    reference_add,
    reference_drop,
)


cdef enum:
    CACHE_LINE_BYTES = 64           # sizeof(CachedBlock)
    PREFETCH_LINES = 8             # of a block that was found: about the keys of 4 KiB
    MAX_SHARDS = 16
    SHARD_BYTES_MIN = 2 << 20       # below this, fewer shards: a shard must hold large blocks too
    FIRST_BUCKETS = 64
    FORGET_BUCKETS = 1024       # looked at in one go under the lock
    KEEP_FRACTION = 4               # a block above 1/4 of its shard is not kept
    MARK_BYTES = 2048               # of capacity for each mark of what was asked for
    FIRST_MARKS = 64


cdef struct Shard:
    Lock lock
    CachedBlock** buckets
    size_t bucket_mask
    CachedBlock* hand               # the next candidate for eviction; NULL while empty
    size_t blocks
    size_t capacity
    size_t used
    uint64_t hits
    uint64_t misses
    uint64_t evictions
    uint32_t* marks                 # of blocks that were asked for lately; NULL: all are kept
    size_t mark_mask
    uint8_t padding[64]             # neighbours' locks on other cache lines


cdef struct Pool:
    size_t shard_mask
    Shard shards[MAX_SHARDS]


cdef struct BlockCache:
    uint64_t references
    Pool data
    Pool index                      # partitions


cdef uint64_t last_table_id = 0


cdef uint8_t* block_allocate(size_t size) noexcept nogil:
    if size >> 32:
        return NULL
    # Aligned by hand: what glibc's aligned_alloc hands out leaves holes that it doesn't take again (a
    # cache of 8 MiB took 14). malloc aligns to 16, so there is room for the address before the line.
    cdef uint8_t* memory = <uint8_t*> kv_malloc(size + 2 * CACHE_LINE_BYTES)
    if memory == NULL:
        return NULL
    cdef uint8_t* line = memory + CACHE_LINE_BYTES - (<uintptr_t> memory & (CACHE_LINE_BYTES - 1))
    memcpy(line - sizeof(memory), &memory, sizeof(memory))
    return line + CACHE_LINE_BYTES


cdef void block_free(uint8_t* data) noexcept nogil:
    cdef uint8_t* memory
    if data != NULL:
        memcpy(&memory, data - CACHE_LINE_BYTES - sizeof(memory), sizeof(memory))
        kv_free(memory)


cdef uint64_t cache_next_table_id() noexcept nogil:
    return counter_next(&last_table_id)


cdef inline uint64_t block_hash(uint64_t table_id, uint64_t offset) noexcept nogil:
    cdef uint64_t mixed = (offset ^ (table_id << 44) ^ table_id) * <uint64_t> 0x9E3779B97F4A7C15
    mixed ^= mixed >> 32
    return mixed * <uint64_t> 0xD6E8FEB86659FD93


cdef inline Shard* shard_of(Pool* pool, uint64_t hashed) noexcept nogil:
    return &pool.shards[(hashed >> 60) & pool.shard_mask]


cdef inline CachedBlock** bucket_of(Shard* shard, uint64_t hashed) noexcept nogil:
    return &shard.buckets[(hashed >> 16) & shard.bucket_mask]


cdef inline size_t block_cost(CachedBlock* block) noexcept nogil:
    return block.size + sizeof(CachedBlock)


cdef inline CachedBlock* look_up(
    Shard* shard, uint64_t hashed, uint64_t table_id, uint64_t offset
) noexcept nogil:
    cdef CachedBlock* block = bucket_of(shard, hashed)[0]
    while block != NULL and (block.offset != offset or block.table_id != table_id):
        block = block.chain
    return block


cdef void grow_buckets(Shard* shard) noexcept nogil:
    """Twice the buckets; without memory for them the chains just stay longer."""
    cdef size_t old_count = shard.bucket_mask + 1
    cdef CachedBlock** buckets = <CachedBlock**> kv_calloc(2 * old_count, sizeof(CachedBlock*))
    if buckets == NULL:
        return
    cdef CachedBlock** old = shard.buckets
    cdef CachedBlock** bucket
    cdef CachedBlock* block
    cdef CachedBlock* rest
    cdef size_t i
    shard.buckets = buckets
    shard.bucket_mask = 2 * old_count - 1
    for i in range(old_count):
        block = old[i]
        while block != NULL:
            rest = block.chain
            bucket = bucket_of(shard, block_hash(block.table_id, block.offset))
            block.chain = bucket[0]
            bucket[0] = block
            block = rest
    kv_free(old)


cdef void link_in(Shard* shard, uint64_t hashed, CachedBlock* block) noexcept nogil:
    if shard.blocks > shard.bucket_mask:
        grow_buckets(shard)
    cdef CachedBlock** bucket = bucket_of(shard, hashed)
    block.chain = bucket[0]
    bucket[0] = block
    if shard.hand == NULL:
        block.after = block.before = block
        shard.hand = block
    else:
        # Just behind the hand: the last to be looked at.
        block.after = shard.hand
        block.before = shard.hand.before
        block.before.after = block
        shard.hand.before = block
    shard.blocks += 1
    shard.used += block_cost(block)


cdef void link_out(Shard* shard, CachedBlock* block) noexcept nogil:
    cdef CachedBlock** link = bucket_of(shard, block_hash(block.table_id, block.offset))
    while link[0] != block:
        link = &link[0].chain
    link[0] = block.chain
    if block.after == block:
        shard.hand = NULL
    else:
        block.after.before = block.before
        block.before.after = block.after
        if shard.hand == block:
            shard.hand = block.after
    shard.blocks -= 1
    shard.used -= block_cost(block)


cdef void make_room(Shard* shard, size_t needed) noexcept nogil:
    """Evict until `needed` bytes fit, in at most two rounds of the hand."""
    cdef size_t steps = 2 * shard.blocks
    cdef CachedBlock* block
    while steps and shard.used + needed > shard.capacity:
        steps -= 1
        block = shard.hand
        if load_acquire(&block.holders) > 1:
            shard.hand = block.after
        elif block.referenced:
            block.referenced = 0
            shard.hand = block.after
        else:
            link_out(shard, block)
            shard.evictions += 1
            cache_unpin(block)


cdef inline bint is_wanted(Shard* shard, uint64_t hashed, size_t size) noexcept nogil:
    """Whether a block that was missed is to be kept: there is room, or it was missed lately."""
    cdef uint32_t mark = <uint32_t> (hashed >> 28) | 1
    cdef size_t place = (hashed >> 12) & shard.mark_mask
    if size + sizeof(CachedBlock) > shard.capacity // KEEP_FRACTION:
        return False
    if shard.marks == NULL or shard.used + size + sizeof(CachedBlock) <= shard.capacity:
        return True
    if shard.marks[place] == mark:
        shard.marks[place] = 0
        return True
    shard.marks[place] = mark
    return False


cdef int pool_open(Pool* pool, size_t capacity_bytes, bint marked) noexcept nogil:
    """-1: no memory; to be closed all the same."""
    cdef size_t shards = 1
    cdef size_t marks = FIRST_MARKS
    cdef size_t i
    cdef Shard* shard
    cdef int result = 0
    while shards < MAX_SHARDS and capacity_bytes // (2 * shards) >= SHARD_BYTES_MIN:
        shards *= 2
    while marks < capacity_bytes // shards // MARK_BYTES:
        marks *= 2
    pool.shard_mask = shards - 1
    for i in range(shards):
        shard = &pool.shards[i]
        lock_init(&shard.lock)
        shard.capacity = capacity_bytes // shards
        shard.bucket_mask = FIRST_BUCKETS - 1
        shard.buckets = <CachedBlock**> kv_calloc(FIRST_BUCKETS, sizeof(CachedBlock*))
        if shard.buckets == NULL:
            result = -1
        if marked:
            shard.mark_mask = marks - 1
            shard.marks = <uint32_t*> kv_calloc(marks, sizeof(uint32_t))
            if shard.marks == NULL:
                result = -1
    return result


cdef void pool_close(Pool* pool) noexcept nogil:
    cdef size_t i
    cdef Shard* shard
    cdef CachedBlock* block
    for i in range(pool.shard_mask + 1):
        shard = &pool.shards[i]
        while shard.hand != NULL:
            block = shard.hand
            link_out(shard, block)
            cache_unpin(block)
        kv_free(shard.buckets)
        kv_free(shard.marks)
        lock_destroy(&shard.lock)


# --- the public face ------------------------------------------------------------------------

cdef BlockCache* cache_new(size_t capacity_bytes, size_t index_capacity_bytes) noexcept nogil:
    cdef BlockCache* cache = <BlockCache*> kv_calloc(1, sizeof(BlockCache))
    cdef bint failed
    if cache == NULL:
        return NULL
    cache.references = 1
    failed = pool_open(&cache.data, capacity_bytes, True) < 0
    failed = pool_open(&cache.index, index_capacity_bytes, False) < 0 or failed
    if failed:
        cache_release(cache)
        return NULL
    return cache


cdef void cache_retain(BlockCache* cache) noexcept nogil:
    reference_add(&cache.references)


cdef void cache_release(BlockCache* cache) noexcept nogil:
    if not reference_drop(&cache.references):
        return
    pool_close(&cache.data)
    pool_close(&cache.index)
    kv_free(cache)


cdef void cache_stats(BlockCache* cache, CacheStats* stats) noexcept nogil:
    cdef size_t i
    cdef Shard* shard
    stats.capacity_bytes = stats.used_bytes = stats.blocks = 0
    stats.hits = stats.misses = stats.evictions = 0
    stats.index_capacity_bytes = stats.index_used_bytes = stats.index_misses = 0
    for i in range(cache.index.shard_mask + 1):
        shard = &cache.index.shards[i]
        lock_take(&shard.lock)
        stats.index_capacity_bytes += shard.capacity
        stats.index_used_bytes += shard.used
        stats.index_misses += shard.misses
        lock_leave(&shard.lock)
    for i in range(cache.data.shard_mask + 1):
        shard = &cache.data.shards[i]
        lock_take(&shard.lock)
        stats.capacity_bytes += shard.capacity
        stats.used_bytes += shard.used
        stats.blocks += shard.blocks
        stats.hits += shard.hits
        stats.misses += shard.misses
        stats.evictions += shard.evictions
        lock_leave(&shard.lock)


cdef inline CachedBlock* get_from(
    Pool* pool, uint64_t table_id, uint64_t offset, size_t size, bint* keep
) noexcept nogil:
    cdef uint64_t hashed = block_hash(table_id, offset)
    cdef Shard* shard = shard_of(pool, hashed)
    lock_take(&shard.lock)
    # A search goes from the bookkeeping to the header to the heads to the keys. The first block of
    # the chain is nearly always the one: let all these misses overlap.
    cdef const uint8_t* first = <const uint8_t*> bucket_of(shard, hashed)[0]
    cdef int line
    for line in range(PREFETCH_LINES):
        prefetch(first + line * CACHE_LINE_BYTES)
    cdef CachedBlock* block = look_up(shard, hashed, table_id, offset)
    if block == NULL:
        shard.misses += 1
        if keep != NULL:
            keep[0] = is_wanted(shard, hashed, size)
    else:
        shard.hits += 1
        block.referenced = 1
        reference_add(&block.holders)
    lock_leave(&shard.lock)
    return block


cdef CachedBlock* cache_get(BlockCache* cache, uint64_t table_id, uint64_t offset) noexcept nogil:
    if cache == NULL:
        return NULL
    return get_from(&cache.data, table_id, offset, 0, NULL)


cdef CachedBlock* cache_ask(
    BlockCache* cache, uint64_t table_id, uint64_t offset, size_t size, bint* keep
) noexcept nogil:
    keep[0] = False
    if cache == NULL:
        return NULL
    return get_from(&cache.data, table_id, offset, size, keep)


cdef CachedBlock* cache_get_index(BlockCache* cache, uint64_t table_id, uint64_t offset) noexcept nogil:
    if cache == NULL:
        return NULL
    return get_from(&cache.index, table_id, offset, 0, NULL)


cdef CachedBlock* block_alone(size_t size) noexcept nogil:
    cdef uint8_t* data = block_allocate(size)
    if data == NULL:
        return NULL
    cdef CachedBlock* block = <CachedBlock*> (data - CACHE_LINE_BYTES)
    block.data = data
    block.size = <uint32_t> size
    block.holders = 1
    return block


cdef CachedBlock* cache_insert(
    BlockCache* cache, uint64_t table_id, uint64_t offset, uint8_t* data, size_t size
) noexcept nogil:
    cdef Pool* pool = NULL
    if cache != NULL:
        pool = &cache.data
    return insert_into(pool, table_id, offset, data, size)


cdef CachedBlock* cache_insert_index(
    BlockCache* cache, uint64_t table_id, uint64_t offset, uint8_t* data, size_t size
) noexcept nogil:
    cdef Pool* pool = NULL
    if cache != NULL:
        pool = &cache.index
    return insert_into(pool, table_id, offset, data, size)


cdef CachedBlock* insert_into(
    Pool* pool, uint64_t table_id, uint64_t offset, uint8_t* data, size_t size
) noexcept nogil:
    cdef CachedBlock* block = <CachedBlock*> (data - CACHE_LINE_BYTES)
    block.data = data
    block.size = <uint32_t> size
    block.referenced = 0
    block.table_id = table_id
    block.offset = offset
    block.holders = 1
    if pool == NULL:
        return block
    cdef uint64_t hashed = block_hash(table_id, offset)
    cdef Shard* shard = shard_of(pool, hashed)
    if block_cost(block) > shard.capacity // KEEP_FRACTION:
        return block
    lock_take(&shard.lock)
    cdef CachedBlock* existing = look_up(shard, hashed, table_id, offset)
    if existing != NULL:
        reference_add(&existing.holders)
    else:
        make_room(shard, block_cost(block))
        block.holders = 2
        link_in(shard, hashed, block)
    lock_leave(&shard.lock)
    if existing != NULL:
        cache_unpin(block)
        return existing
    return block


cdef void cache_unpin(CachedBlock* block) noexcept nogil:
    if reference_drop(&block.holders):
        block_free(<uint8_t*> block + CACHE_LINE_BYTES)


cdef void forget_bucket(Shard* shard, size_t bucket, uint64_t table_id) noexcept nogil:
    cdef CachedBlock* block = shard.buckets[bucket]
    cdef CachedBlock* rest
    while block != NULL:
        rest = block.chain
        if table_id == 0 or block.table_id == table_id:
            link_out(shard, block)
            cache_unpin(block)
        block = rest


cdef void cache_forget_table(BlockCache* cache, uint64_t table_id) noexcept nogil:
    pool_forget(&cache.data, table_id)
    pool_forget(&cache.index, table_id)


cdef void pool_forget(Pool* pool, uint64_t table_id) noexcept nogil:
    # By buckets, a few at a time, so that no reader waits for the walk through a large shard. When
    # the buckets double meanwhile, what was not looked at yet lies in those that are still to come.
    cdef size_t i, at, end
    cdef bint more
    cdef Shard* shard
    for i in range(pool.shard_mask + 1):
        shard = &pool.shards[i]
        at = 0
        more = True
        while more:
            lock_take(&shard.lock)
            end = at + FORGET_BUCKETS
            while at < end and at <= shard.bucket_mask:
                forget_bucket(shard, at, table_id)
                at += 1
            more = at <= shard.bucket_mask
            lock_leave(&shard.lock)
