"""Sorted tables on disk: the reader. What writes them is in sstable_build.pxd, what walks them in
sstable_cursor.pxd, what checks them in full in sstable_verify.pxd.

Layout and checksums: docs/storage-format.md and sstable_frame.pyx. Any thread, no GIL.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Slice, Status
from kvstore._engine.files.native cimport FileSystemOps


cdef struct Table:
    # Reference-counted; the fields are for the modules of the table alone. Constant once opened.
    uint64_t references
    const FileSystemOps* ops
    void* disk
    void* file
    uint64_t file_number
    uint64_t file_bytes
    uint64_t id                     # of this opening, in the cache
    BlockCache* cache               # may be NULL
    uint8_t* root_frame
    uint8_t* properties_frame
    Block root                      # last internal key of each partition -> handle
    Handle root_handle
    Properties properties


# Verifies header, footer, root index and properties; the rest is verified as it is read. The file
# number in the file must be `file_number`. `cache` may be NULL: then nothing is kept.
cdef Table* table_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    BlockCache* cache, Status* status
) noexcept nogil                    # NULL: see status
cdef void table_retain(Table* table) noexcept nogil
cdef void table_release(Table* table) noexcept nogil

cdef struct Pinned:
    # Keeps the block that a found value lies in alive until released.
    void* handle

# Lookup code of memtable.pxd; `value` is borrowed until pinned_release, which FOUND alone asks for
# and any other answer allows (the handle is NULL then).
# A block that is read goes into the cache if `fill_cache`.
cdef int table_get(
    Table* table, Slice user_key, uint64_t sequence, bint fill_cache, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil
cdef void pinned_release(Pinned* pin) noexcept nogil
# Bytes of the file that lie before the internal key, for approximate_sizes: exact to the block if
# that part of the index can be read, else to the partition.
cdef uint64_t table_offset_of(Table* table, Slice internal_key) noexcept nogil


# --- for the cursor and the verifier --------------------------------------------------------

cdef struct Partition:
    # A loaded partition; `held` keeps it.
    CachedBlock* held
    const uint8_t* filter           # NULL: the table has none
    size_t filter_bytes
    int filter_probes
    Block index                     # last internal key of each data block -> handle

# Header and footer, read from disk and checked. -1: see status.
cdef int table_read_ends(Table* table, Footer* footer, Status* status) noexcept nogil
# A frame from disk, checksum verified and uncompressed: FRAME_HEADER_BYTES to skip, then
# *payload_size bytes, to be given back with block_free(). NULL: see status.
cdef uint8_t* table_read_frame(
    Table* table, Handle handle, int kind, size_t* payload_size, Status* status
) noexcept nogil
# The handle and key of an entry of the root or of a partition's index. -1: damaged.
cdef int index_entry(Block* index, uint64_t slot, Handle* handle, Slice* key) noexcept nogil
# Through the cache if it is there; a loaded one goes in if `fill_cache`. -1: see status.
cdef int table_partition(
    Table* table, uint64_t slot, bint fill_cache, Partition* partition, Status* status
) noexcept nogil
# Makes views of a held frame. -1: damaged.
cdef int partition_view(Partition* partition) noexcept nogil
# Checks the payload of a frame that was just read, against the key and the place its index gives.
cdef int check_data(const uint8_t* frame, size_t size, Slice last, int64_t offset, Status* status) noexcept nogil
cdef int check_partition(
    Table* table, const uint8_t* frame, size_t size, Slice last, uint64_t slot, Status* status
) noexcept nogil
