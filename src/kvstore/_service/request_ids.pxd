"""What a request id says: kvstore.service.request_ids has the form."""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Slice


cdef enum:
    SESSION_NAME_BYTES = 16


# Whether an id is a session's: then its name, its sequence and floor, whatever they are.
cdef bint read_session_id(
    Slice request_id, uint8_t* name, uint64_t* sequence, uint64_t* floor
) noexcept nogil
