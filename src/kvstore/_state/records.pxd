"""The model's records that v1's commands write: kvstore.state.mvcc.records has them all."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice


cdef enum:
    KEY_HEADER_BYTES_MAX = 30           # before the value
    EVENT_KEY_BYTES = 13
    EVENT_HEAD_BYTES_MAX = 11           # before the user key
    ATTACHMENT_HEAD_BYTES = 9           # before the user key


cdef struct KeyHeader:
    # What is known of a key beside its value.
    uint64_t created            # revisions: when it came into being, when it was last changed
    uint64_t changed
    uint64_t version
    int64_t lease               # 0 for none


# The header of the record of `sequence`, and where its value begins; NULL if it is broken.
cdef const uint8_t* read_key_header(
    Slice record, uint64_t sequence, uint64_t model_from, KeyHeader* header
) noexcept nogil
# Each writes what its name says, and returns the byte after it.
cdef uint8_t* write_key_header(uint8_t* at, const KeyHeader* header) noexcept nogil
cdef uint8_t* write_event_key(uint8_t* at, uint64_t revision, uint32_t place) noexcept nogil
cdef uint8_t* write_event_head(
    uint8_t* at, bint is_delete, uint64_t previous_revision
) noexcept nogil
cdef uint8_t* write_attachment_head(uint8_t* at, int64_t lease) noexcept nogil
