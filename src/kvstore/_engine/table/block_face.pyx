"""Python faces over one block, one filter, a table's scan and the cache's pins, so that tests reach them
alone."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Buffer,
    INVALID_RECORD,
    KIND_MAX,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_free,
    buffer_init,
    internal_trailer,
    kv_calloc,
    kv_free,
    kv_malloc,
    slice_of,
    status_clear,
    status_error,
    status_set,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
)


def build_block(entries, uint64_t restart_interval):
    """The bytes of a block; ``entries`` are (key, sequence, kind, value) in order."""
    cdef BlockBuilder builder
    cdef Buffer into
    cdef size_t told
    block_builder_init(&builder, restart_interval)
    buffer_init(&into)
    try:
        for key, sequence, kind, value in entries:
            internal = internal_key(key, sequence, kind)
            if block_builder_add(
                &builder, slice_of_bytes(internal), block_builder_shared(&builder, slice_of_bytes(key)),
                slice_of_bytes(value),
            ) < 0:
                raise MemoryError
        told = block_builder_bytes(&builder)
        if block_builder_finish(&builder, &into) < 0:
            raise MemoryError
        assert into.size == told, (into.size, told)
        return into.data[: into.size]
    finally:
        block_builder_free(&builder)
        buffer_free(&into)


cdef class BlockFace:
    """A block read from a copy of exactly its own size, where a sanitizer sees one byte too far."""

    cdef uint8_t* data
    cdef Block block
    cdef BlockCursor walk

    def __cinit__(self, bytes data):
        cdef Status status
        block_cursor_init(&self.walk)
        self.data = <uint8_t*> kv_malloc(len(data) or 1)
        if self.data == NULL:
            raise MemoryError
        memcpy(self.data, <const unsigned char*> data, len(data))
        if block_view(&self.block, self.data, len(data)) < 0:
            status_clear(&status)
            status_set(&status, INVALID_RECORD, b"block size", 0)
            raise status_error(&status, "block")
        block_cursor_reset(&self.walk, &self.block)

    def __dealloc__(self):
        block_cursor_free(&self.walk)
        kv_free(self.data)

    cdef object standing(self):
        cdef Status status
        if self.walk.damaged:
            status_clear(&status)
            block_cursor_failure(&self.walk, b"block entry", 0, &status)
            raise status_error(&status, "block")
        if not self.walk.valid:
            return None
        cdef uint64_t trailer = internal_trailer(self.walk.key)
        return (
            self.walk.key.data[: self.walk.key.size - TRAILER_BYTES], trailer_sequence(trailer),
            trailer_kind(trailer), self.walk.value.data[: self.walk.value.size],
        )

    def check(self):
        cdef Status status
        status_clear(&status)
        if block_check(&self.block, NULL, 0, 0, &status) < 0:
            raise status_error(&status, "block")

    def get(self, bytes key, uint64_t sequence):
        """(sequence, kind, value) of the newest version at ``sequence``, or None."""
        cdef BlockEntry entry
        cdef Status status
        cdef int found = block_get(
            &self.block, slice_of_bytes(key), trailer_pack(sequence, KIND_MAX), &entry
        )
        if found < 0:
            status_clear(&status)
            block_cursor_failure(&self.walk, b"block entry", 0, &status)
            raise status_error(&status, "block")
        if not found:
            return None
        return (
            trailer_sequence(entry.trailer), trailer_kind(entry.trailer),
            entry.value.data[: entry.value.size],
        )

    def first(self):
        self.walk.damaged = False
        block_cursor_first(&self.walk)
        return self.standing()

    def last(self):
        self.walk.damaged = False
        block_cursor_last(&self.walk)
        return self.standing()

    def seek(self, bytes key, uint64_t sequence, int kind=KIND_MAX):
        self.walk.damaged = False
        block_cursor_seek(&self.walk, slice_of_bytes(key), trailer_pack(sequence, kind))
        return self.standing()

    def next(self):
        block_cursor_next(&self.walk)
        return self.standing()

    def prev(self):
        block_cursor_prev(&self.walk)
        return self.standing()


def scan_table(TableFile file not None, size_t window_bytes, target=None):
    """(key, sequence, kind, value, shared) of all entries, or of those from (key, sequence) on."""
    cdef TableScan* scan
    cdef uint64_t trailer
    file.require_open()
    scan = table_scan(file.table, window_bytes)
    if scan == NULL:
        raise MemoryError("no memory for a scan")
    found = []
    try:
        if target is None:
            table_scan_first(scan)
        else:
            internal = internal_key(target[0], target[1], KIND_MAX)
            table_scan_seek(scan, slice_of_bytes(internal))
        while scan.valid:
            trailer = internal_trailer(scan.at.key)
            found.append((
                scan.at.key.data[: scan.at.key.size - TRAILER_BYTES], trailer_sequence(trailer),
                trailer_kind(trailer), scan.at.value.data[: scan.at.value.size], scan.at.shared,
            ))
            table_scan_next(scan)
        if scan.status.code:
            raise status_error(&scan.status, file.path)
    finally:
        table_scan_free(scan)
    return found


cdef class FilterFace:
    """A filter over the given keys."""

    cdef uint8_t* data
    cdef size_t size
    cdef int probes

    def __cinit__(self, keys, int bits_per_key):
        self.size = filter_bytes(len(keys), bits_per_key)
        self.probes = filter_probes(bits_per_key)
        self.data = <uint8_t*> kv_calloc(1, self.size)
        if self.data == NULL:
            raise MemoryError
        for key in keys:
            filter_add(
                self.data, self.size, self.probes,
                filter_hash(<const unsigned char*> (<bytes> key), len(key)),
            )

    def __dealloc__(self):
        kv_free(self.data)

    def __len__(self):
        return self.size

    def __contains__(self, bytes key):
        return filter_may_contain(
            self.data, self.size, self.probes, filter_hash(<const unsigned char*> key, len(key))
        )


cdef class Pin:
    """A block held in a cache."""

    cdef CachedBlock* block

    def __dealloc__(self):
        self.release()

    @property
    def data(self):
        if self.block == NULL:
            raise ValueError("the block was released")
        return self.block.data[: self.block.size]

    def release(self):
        if self.block != NULL:
            cache_unpin(self.block)
            self.block = NULL


cdef Pin pin_of(CachedBlock* block):
    cdef Pin pin = Pin.__new__(Pin)
    pin.block = block
    return pin


def cache_put(CacheFace cache not None, uint64_t table_id, uint64_t offset, bytes data):
    cdef uint8_t* copy = block_allocate(len(data))
    if copy == NULL:
        raise MemoryError
    memcpy(copy, <const unsigned char*> data, len(data))
    return pin_of(cache_insert(cache.cache, table_id, offset, copy, len(data)))


def cache_find(CacheFace cache not None, uint64_t table_id, uint64_t offset):
    cdef CachedBlock* block = cache_get(cache.cache, table_id, offset)
    return None if block == NULL else pin_of(block)


def cache_wants(CacheFace cache not None, uint64_t table_id, uint64_t offset, size_t size):
    """Whether a block that isn't there and is read now is to be kept; the question is noted."""
    cdef bint keep
    cdef CachedBlock* block = cache_ask(cache.cache, table_id, offset, size, &keep)
    if block != NULL:
        cache_unpin(block)
        raise ValueError("the block is there")
    return keep


def cache_forget(CacheFace cache not None, uint64_t table_id):
    cache_forget_table(cache.cache, table_id)
