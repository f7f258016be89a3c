"""A growing run of bytes, for builders. One owner; freed with buffer_free."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy



cdef struct Buffer:
    uint8_t* data
    size_t size
    size_t capacity


cdef inline void buffer_init(Buffer* buffer) noexcept nogil:
    buffer.data = NULL
    buffer.size = 0
    buffer.capacity = 0


cdef inline void buffer_free(Buffer* buffer) noexcept nogil:
    kv_free(buffer.data)
    buffer_init(buffer)


cdef inline int buffer_reserve(Buffer* buffer, size_t more) noexcept nogil:
    """Room for `more` bytes after the present ones. -1: no memory, nothing changed."""
    cdef size_t capacity
    cdef uint8_t* data
    if more <= buffer.capacity - buffer.size:
        return 0
    capacity = buffer.capacity * 2
    if capacity < 256:
        capacity = 256
    if capacity < buffer.size + more:
        capacity = buffer.size + more
    data = <uint8_t*> kv_realloc(buffer.data, capacity)
    if data == NULL:
        return -1
    buffer.data = data
    buffer.capacity = capacity
    return 0


cdef inline int buffer_append(Buffer* buffer, const void* data, size_t size) noexcept nogil:
    """-1: no memory, nothing changed."""
    if buffer_reserve(buffer, size) < 0:
        return -1
    if size:
        memcpy(buffer.data + buffer.size, data, size)
    buffer.size += size
    return 0
