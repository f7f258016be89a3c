"""Sorted tables on disk: the builder that writes one and the reader that serves it.

Layout and checksums: docs/storage-format.md, and the comments in sstable_build.pyx.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.cache cimport BlockCache
from kvstore._engine.cursor cimport Cursor
from kvstore._engine.file cimport FileSystemOps
from kvstore._engine.slice cimport Slice
from kvstore._engine.status cimport Status


cdef struct TableOptions:
    size_t block_bytes              # target size of an uncompressed data block
    int restart_interval            # entries between restart points
    int bloom_bits                  # filter bits a key, 0 for no filter
    int compression                 # 0 none, 1 lz4, 2 zstd (compression.pxd)


cdef struct TableSummary:
    # What the manifest keeps of a finished table.
    uint64_t file_bytes
    uint64_t entries
    uint64_t tombstones
    uint64_t min_sequence
    uint64_t max_sequence


# --- writing (one thread, no GIL) ---------------------------------------------------------
cdef struct TableBuilder            # opaque to users

cdef TableBuilder* table_builder_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const TableOptions* options, Status* status
) noexcept nogil                    # NULL: see status
# Internal keys strictly ascending. -1: see status; the builder is then only good for discarding.
cdef int table_builder_add(TableBuilder* builder, Slice internal_key, Slice value, Status* status) noexcept nogil
cdef uint64_t table_builder_bytes(TableBuilder* builder) noexcept nogil     # written so far, estimate
# Writes filter, index, footer; datasyncs and closes the file; frees the builder, also on failure.
cdef int table_builder_finish(TableBuilder* builder, TableSummary* summary, Status* status) noexcept nogil
# Closes and unlinks the unfinished file; frees the builder.
cdef void table_builder_discard(TableBuilder* builder) noexcept nogil

# --- reading (any thread, no GIL) ---------------------------------------------------------
cdef struct Table                   # opaque to users, reference-counted

# Verifies header, footer, index and filter; the file number in the file must be `file_number`.
cdef Table* table_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    BlockCache* cache, Status* status
) noexcept nogil                    # NULL: see status
cdef void table_retain(Table* table) noexcept nogil
cdef void table_release(Table* table) noexcept nogil

cdef struct Pinned:
    # Keeps the block that a found value lies in alive until released.
    void* handle

# Lookup code of memtable.pxd; `value` is borrowed until pinned_release.
cdef int table_get(
    Table* table, Slice user_key, uint64_t sequence, Slice* value, uint64_t* found_sequence,
    Pinned* pin, Status* status
) noexcept nogil
cdef void pinned_release(Pinned* pin) noexcept nogil
# `fill_cache` 0 for scans that should not push out the hot blocks; `read_ahead` in bytes, 0 off.
cdef Cursor* table_cursor(Table* table, bint fill_cache, size_t read_ahead) noexcept nogil
# Reads and checks every byte of the file, bypassing the cache.
cdef int table_verify(Table* table, Status* status) noexcept nogil
# Bytes of the file that lie before the internal key, for approximate_sizes.
cdef uint64_t table_offset_of(Table* table, Slice internal_key) noexcept nogil
