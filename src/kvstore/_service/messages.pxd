"""Messages of etcd's KV that come and go most, as protobuf carries them: kvstore.api.handlers.etcd's
translate has all of them, and is asked for whatever these functions leave.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice


cdef enum:
    FIELD_VARINT = 0
    FIELD_BYTES = 2
    # Tags: number << 3 | how it is carried.
    TAG_1_VARINT = 0x08
    TAG_1_BYTES = 0x0A
    TAG_2_VARINT = 0x10
    TAG_2_BYTES = 0x12
    TAG_3_VARINT = 0x18
    TAG_3_BYTES = 0x1A
    OPERANDS_FROM = 4           # the number of a compare's first operand, of the target 0
    PROPOSAL_HEAD_BYTES = 17    # id, and that it says no more than what is to be done


# The field at `at`, which is a varint or bytes; what follows it, NULL for all else.
cdef const uint8_t* read_field(
    const uint8_t* at, const uint8_t* end, uint32_t* tag, uint64_t* number, Slice* run
) noexcept nogil


cdef class Encoder:
    """The types of the answers that it knows."""
    cdef object range, put, delete_range, txn
    cdef bint known(self, object answer) except -1
    cdef int add(self, Buffer* into, Buffer* header, object answer) except -1
    cdef int add_nested(self, Buffer* into, object answer) except -1
