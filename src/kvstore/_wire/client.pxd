"""The client's side of a connection."""

cdef class ClientSession(_Session):
    cdef bytes authority
    cdef bytes scheme
    cdef bytes user_agent
    cdef dict calls                 # Stream by number

    cdef bint may_begin(self) noexcept
    cdef int64_t allowed_streams(self) noexcept
    cdef int tell(self, Stream stream, uint32_t status, str details, bint unprocessed) except -1
    cdef int give_up(self, Stream stream) except -1
