"""The builder of sorted tables. One thread, no GIL.

Layout and checksums: docs/storage-format.md, and the comments in sstable_build.pyx.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice, Status
from kvstore._engine.files.native cimport FileSystemOps


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
