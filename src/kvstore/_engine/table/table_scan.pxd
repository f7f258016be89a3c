"""Reads a table from end to end, for the jobs that write others: no block goes into the cache.

Unlike a cursor (sstable_cursor.pxd) it goes forward only. Each block is checked and unpacked in one pass,
a batch of entries at a time, so that a step is an addition most of the time and the keys around it lie
side by side; and it tells what neighbouring keys share, which its blocks know. One thread, no GIL.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice, Status


cdef struct ScanEntry:
    Slice key                       # internal; with what it points to valid until the next batch
    Slice value
    size_t shared                   # bytes that the user key before it in the table begins with, too


cdef struct ScanBlock:
    # What is left of a data block that stands in memory.
    const uint8_t* heads            # none of these need be aligned
    const uint8_t* key_at
    const uint8_t* value_at
    const uint8_t* keys
    const uint8_t* values
    const uint8_t* keys_end
    const uint8_t* values_end
    const uint8_t* next_key         # where the next entry begins
    const uint8_t* next_value
    uint32_t entries
    uint32_t restarts
    uint32_t prefix
    uint32_t entries_seen
    uint32_t restarts_seen
    Slice first                     # internal key, once it was seen
    int64_t offset                  # of its frame in the file


cdef struct TableScan:
    # Stands on `at` while `valid`. Where a move failed it isn't, and `status` says why.
    bint valid
    const ScanEntry* at
    const ScanEntry* last           # of the batch in hand
    Status status
    # The scan's own business from here on.
    Table* table
    ScanEntry* entries
    uint8_t* keys                   # of the batch, one after another; before them the one that it follows
    size_t keys_bytes
    bint follows                    # the batch in hand ends where the next one goes on
    ScanBlock block
    uint64_t partition_slot         # of the held partition, if any
    Partition partition             # .held NULL: none
    uint64_t block_slot
    uint8_t* window                 # bytes [window_at, window_at + window_size) of the file
    size_t window_bytes             # room
    size_t window_size
    uint64_t window_at
    uint8_t* raw                    # the block, where it was compressed; of block_allocate


# Reads so many bytes of the file at a time. NULL: no memory.
cdef TableScan* table_scan(Table* table, size_t window_bytes) noexcept nogil
cdef void table_scan_free(TableScan* scan) noexcept nogil       # NULL is fine
cdef void table_scan_first(TableScan* scan) noexcept nogil
# The first entry whose internal key is >= target. `shared` says nothing of the entry stood on.
cdef void table_scan_seek(TableScan* scan, Slice target) noexcept nogil
# On to the entry after the batch in hand. At the end of the table `at` still shows the last entry.
cdef void table_scan_on(TableScan* scan) noexcept nogil


cdef inline void table_scan_next(TableScan* scan) noexcept nogil:
    """The scan is valid."""
    if scan.at != scan.last:
        scan.at += 1
    else:
        table_scan_on(scan)
