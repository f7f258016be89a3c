"""What both sides of a connection share: HTTP/2 below, streams, bounds, bytes in and out."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum EventKind:
    EVENT_CALL = 1
    EVENT_MESSAGE = 2
    EVENT_HALF_CLOSED = 3
    EVENT_CLOSED = 4
    EVENT_HEADERS = 5
    EVENT_FINISHED = 6
    EVENT_ANSWER = 7
    EVENT_GOAWAY = 8
    EVENT_PONG = 9

# gRPC's status codes, as far as the wire says them itself.
cdef enum Status:
    STATUS_OK = 0
    STATUS_CANCELLED = 1
    STATUS_UNKNOWN = 2
    STATUS_INVALID_ARGUMENT = 3
    STATUS_PERMISSION_DENIED = 7
    STATUS_RESOURCE_EXHAUSTED = 8
    STATUS_UNIMPLEMENTED = 12
    STATUS_INTERNAL = 13
    STATUS_UNAVAILABLE = 14
    STATUS_UNAUTHENTICATED = 16

# The header block that is coming: HTTP/2 has one at a time a connection.
cdef struct HeaderBlock:
    int64_t size            # as HTTP/2 counts it
    int hot                 # at the server: HotMethod, or -1
    bint is_post            # at the server
    bint is_grpc            # content-type
    bint is_encoded         # grpc-encoding that is none of ours
    bint is_malformed       # a timeout or base64 that can't be read
    bint is_broken          # at the server: against HTTP/2's rules for header fields
    bint is_regular         # at the server: a field that is no pseudo-header field has come
    int pseudo              # at the server: those that came, a bit each
    double timeout_s        # inf: none
    int http_status         # at the client; 0: none
    int grpc_status         # at the client; -1: none

cdef class _Session:
    cdef nghttp2_session* h2        # owned; NULL after close
    cdef public object owner
    cdef readonly Limits limits
    cdef Budget received_budget
    cdef Budget unsent_budget
    cdef readonly int64_t received_bytes
    cdef readonly int64_t unsent_bytes
    cdef readonly int64_t streams
    cdef int64_t streams_max        # as the peer was told, a client's own where it is one
    cdef void* first                # borrowed head of the list of streams, each kept alive by it
    cdef list events
    cdef bint is_server
    cdef bint busy                  # nghttp2 is at work, and can't be asked to work
    cdef bint close_wanted          # by somebody who came while it was busy
    cdef bint draining              # a GOAWAY came or went
    cdef bint settings_came
    cdef bint in_block              # a header block has begun and not ended
    cdef bint said_goaway           # by request, not since the peer broke something
    cdef int32_t goaway_last        # the last stream that it names, then
    cdef str why                    # broken; None: isn't
    cdef bytes last_words           # the GOAWAY of a broken session
    cdef int64_t pings_out          # asked for and not answered
    cdef double now                 # of the last `receive`
    cdef Bucket resets
    cdef Bucket pings
    cdef Bucket settings
    cdef Bucket idle_frames
    cdef HeaderBlock block
    cdef list block_pairs
    cdef str block_path
    cdef str block_details

    cdef int open(self, Limits limits, Budget received, Budget unsent, bint is_server) except -1
    cdef int close_h2(self) except -1
    cdef int close_if_wanted(self) except -1
    cdef int break_off(self, uint32_t h2_code, str why) except -1
    cdef int32_t last_taken(self) noexcept
    cdef int spend(self, Bucket* bucket, str what) except -1
    cdef int adopt(self, Stream stream, int32_t number) except -1
    cdef int release(self, Stream stream) except -1
    cdef int forget_streams(self) except -1
    cdef Stream find(self, int32_t number)
    cdef bint hold(self, Stream stream, int64_t size) noexcept
    cdef int give_back(self, Stream stream, int64_t size) noexcept
    cdef bint take_unsent(self, Stream stream, int64_t size) noexcept
    cdef int count_unsent(self, Stream stream, int64_t size) noexcept
    cdef int give_back_unsent(self, Stream stream, int64_t size) noexcept
    cdef int drop_unsent(self, Stream stream) except -1
    cdef int wake(self, Stream stream) except -1
    cdef bint queue(self, Stream stream, bytes data) except -1
    cdef int reset_stream(self, int32_t number, uint32_t h2_code) except -1
    cdef int data_came(self, Stream stream, const uint8_t* data, size_t size) except -1
    cdef int message_begins(self, Stream stream) except -1
    cdef bint make_room(self, Stream stream, size_t some) except -1
    cdef str too_much(self)
    # What either side makes of it.
    cdef int take_field(self, const uint8_t* name, size_t name_size, const uint8_t* value,
                        size_t value_size) except -1
    cdef int block_came(self, int32_t number, bint is_first, bint is_last) except -1
    cdef int message_came(self, Stream stream, const uint8_t* data, size_t size,
                          bytes whole) except -1
    cdef int refuse(self, Stream stream, Status status, str details, list pairs) except -1
    cdef int remote_end(self, Stream stream) except -1
    cdef int stream_closed(self, Stream stream, uint32_t h2_code) except -1
    cdef int block_sent(self, int32_t number, bint is_last) except -1
    cdef int goaway_came(self, int32_t last_stream) except -1
    cdef int all_came(self) except -1       # of one `receive`
