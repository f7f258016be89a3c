"""Decoding of KV's requests, and the beginnings of its answers."""

from libc.stdint cimport UINT32_MAX
from libc.string cimport memcpy

cdef enum WireType:
    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    GROUP = 3
    GROUP_END = 4
    FIXED32 = 5

cdef enum:
    GROUPS_MAX = 100        # protobuf's own bound of messages in messages
    SIZE_MAX_OF_FIELD = 0x7fffffff


cdef const uint8_t* read_varint(const uint8_t* at, const uint8_t* end, uint64_t* number,
                                uint32_t bytes_max) noexcept nogil:
    """What follows the number; NULL: it doesn't end within the message or `bytes_max`."""
    cdef uint32_t i
    cdef uint8_t byte
    cdef uint64_t value = 0
    for i in range(bytes_max):
        if at == end:
            return NULL
        byte = at[0]
        at += 1
        value |= <uint64_t> (byte & 0x7f) << (7 * i)
        if byte < 0x80:
            number[0] = value
            return at
    return NULL


cdef const uint8_t* read_tag(const uint8_t* at, const uint8_t* end,
                             uint32_t* tag) noexcept nogil:
    cdef uint64_t number
    at = read_varint(at, end, &number, 5)
    if at == NULL or number > UINT32_MAX:
        return NULL
    tag[0] = <uint32_t> number
    return at


cdef const uint8_t* read_field(const uint8_t* at, const uint8_t* end,
                               Field* field) noexcept nogil:
    cdef uint64_t size
    at = read_varint(at, end, &size, 5)
    if at == NULL or size > SIZE_MAX_OF_FIELD or size > <uint64_t> (end - at):
        return NULL
    field.data = at
    field.size = size
    return at + size


cdef const uint8_t* skip_field(const uint8_t* at, const uint8_t* end,
                               uint32_t tag) noexcept nogil:
    """What follows a field that nobody asked for, whose tag was read."""
    cdef uint32_t[GROUPS_MAX] groups
    cdef uint32_t depth = 0
    cdef uint32_t kind
    cdef uint64_t number
    cdef Field field
    while True:
        kind = tag & 7
        if kind == VARINT:
            at = read_varint(at, end, &number, 10)
        elif kind == BYTES:
            at = read_field(at, end, &field)
        elif kind == FIXED64 or kind == FIXED32:
            number = 8 if kind == FIXED64 else 4
            at = at + number if <uint64_t> (end - at) >= number else NULL
        elif kind == GROUP and depth < GROUPS_MAX:
            groups[depth] = tag
            depth += 1
        elif kind == GROUP_END and depth > 0 and groups[depth - 1] == tag - 1:
            depth -= 1
        else:
            return NULL
        if at == NULL or depth == 0:
            return at
        at = read_tag(at, end, &tag)
        if at == NULL:
            return NULL


cdef bint is_utf8(const uint8_t* at, size_t size) noexcept nogil:
    """Unicode's table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF."""
    cdef const uint8_t* end = at + size
    cdef uint64_t word
    cdef uint8_t first, low, high
    cdef uint32_t more
    while at < end:
        if end - at >= 8:
            memcpy(&word, at, 8)
            if word & 0x8080808080808080ULL == 0:
                at += 8
                continue
        first = at[0]
        at += 1
        if first < 0x80:
            continue
        low = 0x80
        high = 0xbf
        if 0xc2 <= first <= 0xdf:
            more = 1
        elif 0xe0 <= first <= 0xef:
            more = 2
            if first == 0xe0:
                low = 0xa0
            elif first == 0xed:
                high = 0x9f
        elif 0xf0 <= first <= 0xf4:
            more = 3
            if first == 0xf0:
                low = 0x90
            elif first == 0xf4:
                high = 0x8f
        else:
            return False
        if end - at < more or not low <= at[0] <= high:
            return False
        at += 1
        for more in range(more - 1):
            if not 0x80 <= at[0] <= 0xbf:
                return False
            at += 1
    return True


cdef int decode_request(HotMethod method, const uint8_t* at, size_t size,
                        Request* request) noexcept nogil:
    cdef const uint8_t* end = at + size
    cdef uint32_t tag
    cdef Field* field
    request[0] = Request(Field(NULL, 0), Field(NULL, 0), Field(NULL, 0))
    while at < end:
        at = read_tag(at, end, &tag)
        # Protobuf lets 0 be a field's number within groups that nobody asked for.
        if at == NULL or tag < 8:
            return -1
        field = NULL
        if tag == (1 << 3 | BYTES):
            field = &request.key
        elif tag == (2 << 3 | BYTES) and method != METHOD_GET:
            field = &request.value if method == METHOD_PUT else &request.request_id
        elif tag == (3 << 3 | BYTES) and method == METHOD_PUT:
            field = &request.request_id
        if field == NULL:
            at = skip_field(at, end, tag)
        else:
            at = read_field(at, end, field)
        if at == NULL:
            return -1
        if field == &request.request_id and not is_utf8(field.data, field.size):
            return -1
    return 0


cdef inline void write_prefix(uint8_t* head, uint32_t size) noexcept nogil:
    """gRPC's prefix of a message: not compressed, then its size, big-endian."""
    head[0] = 0
    head[1] = <uint8_t> (size >> 24)
    head[2] = <uint8_t> (size >> 16)
    head[3] = <uint8_t> (size >> 8)
    head[4] = <uint8_t> size


cdef inline uint32_t write_bool_answer(uint8_t* head, bint answer) noexcept nogil:
    """Prefix and message of a PutResponse or DeleteResponse; its size."""
    write_prefix(head, 2 if answer else 0)
    if not answer:
        return 5
    head[5] = 1 << 3 | VARINT
    head[6] = 1
    return 7


cdef inline uint32_t write_get_answer(uint8_t* head, uint32_t value_size) noexcept nogil:
    """Prefix and message of a GetResponse that found something, up to the value; its size."""
    cdef uint32_t at = 7
    cdef uint32_t left = value_size
    head[5] = 1 << 3 | VARINT
    head[6] = 1
    if value_size:
        head[7] = 2 << 3 | BYTES
        at = 8
        while left >= 0x80:
            head[at] = <uint8_t> (left | 0x80)
            left >>= 7
            at += 1
        head[at] = <uint8_t> left
        at += 1
    write_prefix(head, at - 5 + value_size)
    return at
