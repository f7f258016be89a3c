"""One call: gRPC's messages in it, coming and going.

A stream is kept alive by its session while HTTP/2 knows it, and points back at the session as long;
whoever else holds it (a hot call's handler) then sees `home == NULL`.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum:
    PREFIX_BYTES = 5
    # What a received message takes of the budget beside its bytes: its object and event.
    MESSAGE_OVERHEAD = 128

cdef class Stream:
    cdef void* home                 # borrowed, a _Session; NULL: gone
    cdef void* before               # borrowed: neighbours in the session's list
    cdef void* after
    cdef readonly int32_t stream

    # Receiving.
    cdef uint8_t prefix[PREFIX_BYTES]
    cdef uint8_t prefix_bytes       # of the prefix under way; 5: the message is under way
    cdef bint deaf                  # nothing that comes counts any more
    cdef bint remote_ended          # the peer half-closed
    cdef bint announced             # the front was told of the call
    cdef bint unary                 # at the client: one ANSWER tells it all
    cdef bint is_hot
    cdef bint encoded               # at the server: grpc-encoding names one that isn't ours
    cdef uint32_t whole             # messages that came
    cdef bytes incoming             # the message under way if it comes in pieces, and room; or None
    cdef uint32_t incoming_bytes    # of it, when it is whole
    cdef uint32_t incoming_at       # of it, until now
    cdef uint32_t waiting           # messages handed out and not consumed
    cdef int64_t uncredited         # bytes that came and that the peer may not send again yet
    cdef int64_t held               # of the budget of received bytes

    # Sending: head, then body, then the queue's messages.
    cdef uint8_t head[16]
    cdef uint8_t head_bytes
    cdef uint8_t head_at
    cdef bint started               # the first header block was submitted
    cdef bint ended                 # nothing is queued after this
    cdef bint closing               # its last frame, or a reset, was submitted
    cdef bint deferred              # HTTP/2 asks for data no more until it is told
    cdef bytes body                 # None: no message under way
    cdef size_t body_at
    cdef list queue                 # None: none was ever needed
    cdef size_t queue_at            # messages before it were sent
    cdef int64_t unsent             # of the budget of unsent bytes
    cdef list trailer               # encoded pairs that come after the messages; None: grpc-status 0

    # At the client: what came of the server.
    cdef bint sent                  # its first header block went out
    cdef bint told                  # the last event of it was given
    cdef bytes answer
    cdef tuple initial
    cdef tuple received_trailer
    cdef int received_status        # -1: none came
    cdef int http_status            # 0: no header block came
    cdef str details
