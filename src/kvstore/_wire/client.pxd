"""The client's side of a connection."""

cdef class ClientSession(_Session):
    cdef bytes authority
    cdef bytes scheme
    cdef bytes user_agent
    cdef dict calls                 # Stream by number

    cdef bint is_accepting(self) noexcept
    cdef bint may_begin(self) noexcept
    cdef int64_t allowed_streams(self) noexcept
    cdef int32_t begin(self, Stream stream, bytes path, list pairs, double timeout_s,
                       bytes message) except -1
    cdef int gathered(self, GatheredCall call, uint32_t status, str details,
                      bint unprocessed) except -1
    cdef int tell(self, Stream stream, uint32_t status, str details, bint unprocessed) except -1
    cdef int give_up(self, Stream stream) except -1
