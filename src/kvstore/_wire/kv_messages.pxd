"""The messages of kvstore.v1.KV as protobuf carries them; kvstore.wire.messages is the plain twin.

| message | fields |
|---|---|
| PutRequest | bytes key = 1, bytes value = 2, string request_id = 3 |
| GetRequest | bytes key = 1 |
| DeleteRequest | bytes key = 1, string request_id = 2 |
| PutResponse, DeleteResponse | bool = 1 |
| GetResponse | bool found = 1, bytes value = 2 |
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum HotMethod:
    METHOD_PUT = 0
    METHOD_GET = 1
    METHOD_DELETE = 2
    METHODS = 3

cdef struct Field:
    const uint8_t* data     # in the message; NULL: not there, which means empty
    size_t size

# The fields of any request, those which it doesn't have empty.
cdef struct Request:
    Field key
    Field value
    Field request_id

cdef enum:
    # Of an answer, before a value: gRPC's prefix, found, the value's tag and length.
    ANSWER_HEAD_MAX = 5 + 2 + 1 + 5

# -1: not a protobuf message, by the rules of protobuf's own parser.
cdef int decode_request(HotMethod method, const uint8_t* data, size_t size,
                        Request* request) noexcept nogil
