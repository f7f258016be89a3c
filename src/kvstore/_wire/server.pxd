"""The server's side of a connection, and calls of KV that it decodes."""

cdef class HotCall(Stream):
    cdef readonly int method            # a HotMethod; from METHODS on those that are taken whole
    cdef readonly bytes key
    cdef readonly bytes value
    cdef readonly bytes request_id
    cdef readonly bytes message         # of a method that is taken whole; None: it didn't come yet
    cdef readonly double received_at
    cdef readonly double timeout_s      # inf: none
    cdef readonly tuple metadata
    cdef public double deadline         # the front's: when it is given up, of the same clock
    cdef public object age_s            # the front's: since the first try; None: this is it
    cdef readonly int status            # what it was answered with; -1: it wasn't

    cdef int give(self, uint32_t head_bytes, bytes body) except -1
    cdef bint give_whole(self, bytes message) except -1

cdef class ServerSession(_Session):
    cdef tuple hot_paths                # bytes, by HotMethod
    cdef tuple whole_paths              # bytes, from METHODS on: taken undecoded
    cdef int once_from                  # from this method on they stream
    cdef list fresh                     # calls that stream and may be hot, of this `receive`
    cdef list hot_calls                 # of all sessions of a front
    cdef dict hot_refused               # by (HotMethod, status): how many; of all sessions too

    cdef int end_call(self, Stream stream, Status status, str details, list pairs) except -1
    cdef int count_refused(self, int method, Status status) except -1
    cdef int refuse_block(self, int32_t number, Status status, str details, list pairs) except -1
    cdef int refuse_broken(self, int32_t number) except -1
    cdef int announce(self, HotCall call) except -1
