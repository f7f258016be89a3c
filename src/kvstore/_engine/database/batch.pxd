"""A batch of operations in the bytes in which the log keeps it.

    u32 operations, then for each
    u8 kind (key.pxd), plus 0x80 if a sequence of its own follows
    [varint sequence] | varint key bytes | key | for a put: varint value bytes | value;
    for a deleted range, whose key is its start: varint stop bytes | stop (not included, above the start)
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice
from kvstore._engine.memtable.native cimport RangeTombstone


cdef enum:
    BATCH_HEADER_BYTES = 4
    OWN_SEQUENCE = 0x80
    MAX_KEY_BYTES = 1 << 20
    MAX_VALUE_BYTES = 1 << 30
    MAX_BATCH_BYTES = 1 << 31
    EXPECTATION_BYTES = 128     # beside its key and value, about


cdef struct Operation:
    int kind
    bint numbered               # `sequence` was given with it
    uint64_t sequence
    Slice key                   # borrowed from the batch's bytes
    Slice value                 # empty for a delete; the stop of a deleted range


# -1: out of memory, nothing changed.
cdef int encode_operation(
    Buffer* into, int kind, bint numbered, uint64_t sequence, Slice prefix, Slice key, Slice value
) noexcept nogil
# The byte after the operation at `at`, NULL if there is no whole, valid one before `end`.
cdef const uint8_t* decode_operation(
    const uint8_t* at, const uint8_t* end, Operation* operation
) noexcept nogil
# -1 unless the bytes are exactly as many operations as they say.
cdef int check_batch(const uint8_t* data, size_t size, uint32_t* count) noexcept nogil
# InvalidArgumentError for a key or value beyond the limits.
cdef int check_sizes(Slice key, Slice value) except -1
# The same for the ends of a range: the stop may be the key that follows the longest one.
cdef int check_ends_of_range(Slice start, Slice stop) except -1
# The range tombstone of an operation that deletes a range; its keys are borrowed, too.
cdef void range_of(Operation* operation, uint64_t sequence, RangeTombstone* tombstone) noexcept nogil


cdef class ClosedFlag:
    """Whether the database that batches came from was closed meanwhile."""
    cdef bint closed


cdef class Expectation:
    """What a key must be for a batch to be written."""
    cdef bytes key              # prefix included
    cdef bint by_sequence
    cdef uint64_t sequence      # of the write that made its value, with `by_sequence`
    cdef bytes value            # without it: the value; None: the key isn't there
    # What the disk said, where only that knew: a value and its sequence or None, when `is_read`; and
    # how many memtables had been flushed before it was asked.
    cdef bint is_read
    cdef object read
    cdef uint64_t read_flushed


cdef class WriteBatch:
    cdef Buffer encoded         # header included
    cdef readonly uint32_t count
    cdef bint numbered          # some operation has a sequence of its own
    cdef bint has_ranges        # some operation deletes a range
    cdef list expectations      # None: there are none
    cdef uint64_t expected_bytes  # of their keys and values
    cdef object db              # what write() writes to, or None
    cdef ClosedFlag closed_flag  # of `db`, or None
    cdef bytes prefix
    cdef bint transaction
    cdef bint sync
    cdef int add(self, int kind, object key, object value, object sequence) except -1
    cdef int encode(
        self, int kind, object sequence, Slice prefix, Slice key, Slice value
    ) except -1
    cdef int expect_all(self, list expectations, uint64_t size) except -1
    cdef Slice payload(self) noexcept
