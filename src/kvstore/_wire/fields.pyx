"""Header blocks that go out: fixed pairs first, then a call's own."""

cdef enum:
    FIXED_MAX = 12


cdef struct Fields:
    nghttp2_nv[2 * PAIRS_MAX + FIXED_MAX] fields
    size_t count


cdef inline void add_fixed(Fields* block, const nghttp2_nv* pairs, size_t count) noexcept:
    memcpy(block.fields + block.count, pairs, count * sizeof(nghttp2_nv))
    block.count += count


cdef inline void add_field(Fields* block, const char* name, size_t name_size,
                           const uint8_t* value, size_t value_size) noexcept:
    """`name` is a literal; `value` lives until the block is submitted."""
    cdef nghttp2_nv* field = &block.fields[block.count]
    field.name = <uint8_t*> name
    field.namelen = name_size
    field.value = <uint8_t*> value
    field.valuelen = value_size
    field.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME
    block.count += 1


cdef void add_encoded(Fields* block, list encoded):
    """Pairs as `encoded_pairs` made them; the list lives until the block is submitted."""
    cdef size_t i
    cdef nghttp2_nv* field
    cdef bytes name
    cdef bytes value
    for i in range(0, len(encoded), 2):
        name = encoded[i]
        value = encoded[i + 1]
        field = &block.fields[block.count]
        field.name = <uint8_t*> PyBytes_AS_STRING(name)
        field.namelen = PyBytes_GET_SIZE(name)
        field.value = <uint8_t*> PyBytes_AS_STRING(value)
        field.valuelen = PyBytes_GET_SIZE(value)
        field.flags = NGHTTP2_NV_FLAG_NONE
        block.count += 1


cdef list status_pairs(uint32_t status, str details, list pairs):
    """Encoded pairs that end a call."""
    cdef list encoded = [b"grpc-status", b"%d" % status]
    if details:
        encoded += [b"grpc-message", encoded_details(details)]
    if pairs:
        encoded += pairs
    return encoded


cdef int submit_trailer(nghttp2_session* h2, Stream stream) except -1:
    cdef Fields block
    if stream.trailer is None:
        return check(nghttp2_submit_trailer(h2, stream.stream, ok_pairs, 1))
    block.count = 0
    add_encoded(&block, stream.trailer)
    return check(nghttp2_submit_trailer(h2, stream.stream, block.fields, block.count))


cdef int submit_answer_begin(nghttp2_session* h2, Stream stream, list initial) except -1:
    """The header block, and that messages follow."""
    cdef Fields block
    cdef nghttp2_data_provider provider
    provider.source.ptr = <void*> stream
    provider.read_callback = read_messages
    stream.started = True
    if not initial:
        return check(nghttp2_submit_response(h2, stream.stream, answer_pairs, 3, &provider))
    block.count = 0
    add_fixed(&block, answer_pairs, 3)
    add_encoded(&block, initial)
    return check(nghttp2_submit_response(h2, stream.stream, block.fields, block.count, &provider))


cdef int submit_only_trailer(nghttp2_session* h2, int32_t number, list trailer) except -1:
    """gRPC's Trailers-Only: one header block is the whole answer."""
    cdef Fields block
    block.count = 0
    add_fixed(&block, answer_pairs, 3)
    add_encoded(&block, trailer)
    return check(nghttp2_submit_response(h2, number, block.fields, block.count, NULL))
