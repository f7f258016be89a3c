"""Requests of KV out of their fields, and their results out of answers."""


cdef class Gathering:
    """See the stub."""

    def __init__(self, str path not None, int method, list results not None):
        if not 0 <= method < METHODS:
            raise ValueError("a method is PUT, GET or DELETE")
        self.path = checked_path(path)
        self.method = method
        self.results = results
        self.places = []
        self.failures = []

    def take(self):
        places, failures = self.places, self.failures
        self.places = []
        self.failures = []
        self.told = False
        return places, failures


@cython.no_gc
@cython.final
cdef class GatheredCall(Stream):
    """One of them. No cycle goes through it: what it holds knows nothing of calls."""


cdef inline size_t field_size(size_t size) noexcept nogil:
    """Of a field of bytes with a number below 16, which isn't there when it is empty."""
    cdef size_t length = 2
    cdef size_t left = size >> 7
    if size == 0:
        return 0
    while left:
        length += 1
        left >>= 7
    return length + size


cdef inline uint8_t* write_field(uint8_t* at, uint32_t number, const char* data,
                                 size_t size) noexcept nogil:
    cdef size_t left = size
    if size == 0:
        return at
    at[0] = <uint8_t> (number << 3 | BYTES)
    at += 1
    while left >= 0x80:
        at[0] = <uint8_t> (left | 0x80)
        at += 1
        left >>= 7
    at[0] = <uint8_t> left
    memcpy(at + 1, data, size)
    return at + 1 + size


cdef bytes encoded_request(int method, bytes key, bytes value, str request_id):
    cdef Py_ssize_t id_size = 0
    cdef const char* id_text = PyUnicode_AsUTF8AndSize(request_id, &id_size)
    cdef size_t key_size = PyBytes_GET_SIZE(key)
    cdef size_t value_size = PyBytes_GET_SIZE(value) if method == METHOD_PUT else 0
    cdef bytes message
    cdef uint8_t* at
    if method == METHOD_GET:
        id_size = 0
    if key_size > MESSAGE_BYTES_BOUND // 4 or value_size > MESSAGE_BYTES_BOUND // 4:
        raise ValueError(f"a key or value of more than {MESSAGE_BYTES_BOUND // 4} bytes")
    message = PyBytes_FromStringAndSize(
        NULL, field_size(key_size) + field_size(value_size) + field_size(id_size))
    at = <uint8_t*> PyBytes_AS_STRING(message)
    at = write_field(at, 1, PyBytes_AS_STRING(key), key_size)
    at = write_field(at, 2, PyBytes_AS_STRING(value), value_size)
    write_field(at, 3 if method == METHOD_PUT else 2, id_text, id_size)
    return message


cdef int take_answer(GatheredCall call, const uint8_t* data, size_t size) except -1:
    """Decode the answer, which is not to be believed before the status came."""
    cdef bint said = False
    cdef Field value
    if decode_answer(<HotMethod> call.gathering.method, data, size, &said, &value) < 0:
        call.is_malformed = True
    elif call.gathering.method != METHOD_GET:
        call.result = said
    elif said:
        call.result = field_bytes(&value)
    return 0
