"""The builder of sorted tables. One thread, no GIL.

Layout and checksums: docs/storage-format.md, and the comments in sstable_build.pyx.
"""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Slice, Status
from kvstore._engine.files.native cimport FileSystemOps


cdef struct TableOptions:
    size_t block_bytes              # target size of an uncompressed data block
    int restart_interval            # entries between restart points
    int bloom_bits                  # filter bits a key, 0 for no filter
    int compression                 # of compression.pxd


cdef struct TableSummary:
    # What the manifest keeps of a finished table.
    uint64_t file_bytes
    uint64_t entries
    uint64_t tombstones
    uint64_t superseded             # puts behind a newer version of their key; 0 where nobody counted
    uint64_t range_deletes
    uint64_t min_sequence
    uint64_t max_sequence
    uint8_t file_id[16]             # the random id in the file's header


cdef struct TableBuilder            # opaque to users

# `file_id` is NULL for a random one.
cdef TableBuilder* table_builder_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const uint8_t* file_id, const TableOptions* options, Status* status
) noexcept nogil                    # NULL: see status
# Internal keys strictly ascending. -1: see status; the builder is then only good for discarding.
cdef int table_builder_add(TableBuilder* builder, Slice internal_key, Slice value, Status* status) noexcept nogil
# The same for who knows how many bytes the user key shares with the one added last (nothing counts for the
# first one). 1: it ended a data block.
cdef int table_builder_add_after(
    TableBuilder* builder, Slice internal_key, size_t shared, Slice value, Status* status
) noexcept nogil
# The internal key added last, until the next one is.
cdef Slice table_builder_last(TableBuilder* builder) noexcept nogil
cdef uint64_t table_builder_bytes(TableBuilder* builder) noexcept nogil     # written so far, estimate
# A frame beside the data, found by its name (at most 64 bytes); its payload is copied. -1: see status.
cdef int table_builder_add_meta(
    TableBuilder* builder, const char* name, bint may_be_skipped, Slice payload, Status* status
) noexcept nogil
# What a `range-deletes` frame holds: the internal keys between which they lie, their lowest and
# highest sequence, how many; a table of these alone has no entries. -1: see status.
cdef int table_builder_cover(
    TableBuilder* builder, Slice smallest, Slice largest, uint64_t lowest, uint64_t highest,
    uint64_t count, Status* status
) noexcept nogil
# Writes filter, index, footer; datasyncs and closes the file; frees the builder, also on failure.
cdef int table_builder_finish(TableBuilder* builder, TableSummary* summary, Status* status) noexcept nogil
# Closes and unlinks the unfinished file; frees the builder.
cdef void table_builder_discard(TableBuilder* builder) noexcept nogil
