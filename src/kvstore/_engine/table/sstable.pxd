"""Sorted tables on disk: the reader. What writes them is in sstable_build.pxd, what walks them in
sstable_cursor.pxd, what checks them in full in sstable_verify.pxd.

Layout and checksums: docs/storage-format.md and sstable_frame.pyx. Any thread, with the GIL or
without; whatever reads from disk lets go of it.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from kvstore._engine.memtable.native cimport RangeRun
from kvstore._engine.primitives.native cimport Slice, Status
from kvstore._engine.files.native cimport FileSystemOps


cdef struct Table:
    # Reference-counted; the fields are for the modules of the table alone. Constant once opened.
    uint64_t references
    const FileSystemOps* ops
    void* disk
    void* file
    TableIdentity identity
    uint64_t file_bytes
    BlockCache* cache               # may be NULL
    uint64_t cache_id               # what its blocks are kept under
    bint forgets                    # its blocks leave the cache with it
    uint8_t* root_frame
    uint8_t* properties_frame
    uint8_t* meta_index_frame
    size_t meta_index_bytes
    Index root                      # of the partitions
    Handle root_handle              # its offset is where the data ends
    Properties properties
    uint64_t** checked              # for each partition see checked.pxd; NULL: there was no memory
    uint8_t* ranges_frame
    RangeRun* ranges                # the range tombstones, keys in that frame; NULL: there are none
    const uint8_t* map              # the whole file (FileSystemOps.map); NULL: it is read by calls
    uint64_t packed                 # atomic; 1: a block in the map was compressed, lookups don't use it
    const uint8_t* tail             # only while opening: the end of the file, in memory
    uint64_t tail_at


# Verifies header, footer, root index and properties; the rest is verified as it is read. The file
# number in the file must be `file_number`, its id `file_id` unless that is NULL. `cache` may be NULL:
# then nothing is kept. `cache_id` is of cache_next_table_id(), so that what is cached outlives this
# handle; whoever gave it forgets it. 0: of this handle alone.
cdef Table* table_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const uint8_t* file_id, BlockCache* cache, uint64_t cache_id, Status* status
) noexcept nogil                    # NULL: see status
# From here on lookups read a map of the file, if the disk has such a thing; before anybody else has
# the table. Its frames are checked once then, with the first reading.
cdef void table_map(Table* table) noexcept nogil
cdef void table_retain(Table* table) noexcept nogil
cdef void table_release(Table* table) noexcept nogil

cdef struct Pinned:
    # Keeps the block that a found value lies in alive until released.
    void* handle

cdef enum Reading:
    # What a lookup does where a block isn't in the cache.
    READ_ONCE = 0                   # reads it and doesn't keep it
    READ_AND_KEEP = 1
    READ_NOTHING = 2                # the answer is COLD; so it is of a map where no one has read yet
    # With any of these: what was read from disk was checked then, so a map isn't looked at.
    READ_CHECKED = 4

# Lookup code of memtable.pxd, the table's range tombstones regarded; `value` is borrowed until pinned_release, which FOUND alone asks for
# and any other answer allows (the handle is NULL then).
# `reading` is a Reading; with READ_NOTHING neither the disk is asked nor the GIL given up.
cdef int table_get(
    Table* table, Slice user_key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil
cdef void pinned_release(Pinned* pin) noexcept nogil
# Bytes of the file that lie before the internal key, for approximate_sizes: exact to the block if
# that part of the index can be read, else to the partition.
cdef uint64_t table_offset_of(Table* table, Slice internal_key) noexcept nogil
# Whether there is a meta frame of this name.
cdef bint table_has_meta(Table* table, const char* name) noexcept nogil
# The meta frame of this name, read and checked, to be given back with block_free():
# FRAME_HEADER_BYTES to skip, then *size bytes. NULL: see status, which is OK where there is none.
cdef uint8_t* table_meta_read(Table* table, const char* name, size_t* size, Status* status) noexcept nogil


# --- for the cursor and the verifier --------------------------------------------------------

cdef struct Partition:
    # A loaded partition; `held` keeps it.
    CachedBlock* held
    const uint8_t* filter           # NULL: the table has none
    size_t filter_bytes
    int filter_probes
    uint64_t start                  # of its first data frame
    Index index                     # of its data blocks

# Header and footer, read from disk and checked, and the last *last_bytes of the file at `last`
# (fewer if the file is shorter; at least TABLE_FOOTER_BYTES). -1: see status.
cdef int table_read_ends(
    Table* table, Footer* footer, uint8_t* last, size_t* last_bytes, Status* status
) noexcept nogil
# A frame from disk, checksum verified and uncompressed: FRAME_HEADER_BYTES to skip, then
# *payload_size bytes, to be given back with block_free(). NULL: see status.
cdef uint8_t* table_read_frame(
    Table* table, Handle handle, int kind, size_t* payload_size, Status* status
) noexcept nogil
# The handle of a partition, and of a data block of a partition. -1: there is none.
cdef int root_handle(Table* table, uint64_t slot, Handle* handle) noexcept nogil
cdef int data_handle(Partition* partition, uint64_t slot, Handle* handle) noexcept nogil
# Through the cache if it is there; a loaded one goes in if `fill_cache`. -1: see status.
cdef int table_partition(
    Table* table, uint64_t slot, bint fill_cache, Partition* partition, Status* status
) noexcept nogil
# From the cache alone. 1: it is there; 0: it isn't; -1: see status.
cdef int table_partition_cached(
    Table* table, uint64_t slot, Partition* partition, Status* status
) noexcept nogil
# Makes views of a held frame. -1: damaged.
cdef int partition_view(Partition* partition) noexcept nogil
# Checks the payload of a frame that was just read, against what its index says of it.
cdef int check_data(
    const uint8_t* frame, size_t size, Index* index, uint64_t slot, int64_t offset, Status* status
) noexcept nogil
# The same, unless this block of this partition was checked since the table was opened.
cdef int check_data_once(
    Table* table, uint64_t partition, const uint8_t* frame, size_t size, Index* index,
    uint64_t slot, int64_t offset, Status* status
) noexcept nogil
cdef int check_partition(
    Table* table, const uint8_t* frame, size_t size, uint64_t slot, Status* status
) noexcept nogil
# The root frame's payload, against what the properties say. -1: see status.
cdef int check_root(
    Index* root, Properties* properties, Footer* footer, const uint8_t* payload, size_t size,
    Status* status
) noexcept nogil
