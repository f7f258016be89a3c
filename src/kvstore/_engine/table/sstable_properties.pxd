"""The properties of a table: counts, bounds and options. The bytes stand in sstable_properties.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice, Status


cdef struct Properties:
    uint64_t entries
    uint64_t tombstones
    uint64_t min_sequence           # range tombstones counted in, as in the bounds
    uint64_t max_sequence
    uint64_t data_blocks
    uint64_t partitions
    uint64_t raw_key_bytes
    uint64_t raw_value_bytes
    uint64_t largest_block_bytes    # uncompressed; bounds what a reader allocates
    uint64_t filter_kind            # filter.pxd
    uint64_t filter_hash
    uint64_t bloom_bits
    uint64_t range_deletes
    uint64_t restart_interval
    uint64_t block_bytes
    uint64_t compression            # asked for; each frame says what it has
    uint64_t superseded             # puts behind a newer version of their key in this table; 0: unknown
    Slice smallest                  # internal keys
    Slice largest


# -1: no memory.
cdef int properties_put(Buffer* into, const Properties* properties) noexcept nogil
# The keys are borrowed from `data`. -1: see status.
cdef int properties_get(
    const uint8_t* data, size_t size, Properties* properties, uint64_t offset, Status* status
) noexcept nogil
