"""A borrowed run of bytes, and its order. Whoever hands out a Slice says how long it lives."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy


cdef struct Slice:
    const uint8_t* data
    size_t size


cdef inline Slice slice_of(const void* data, size_t size) noexcept nogil:
    cdef Slice result
    result.data = <const uint8_t*> data
    result.size = size
    return result


cdef inline int slice_compare(Slice a, Slice b) noexcept nogil:
    """Lexicographic order of unsigned bytes: negative, zero or positive."""
    cdef size_t shorter = a.size if a.size < b.size else b.size
    cdef int order = memcmp(a.data, b.data, shorter) if shorter else 0
    if order:
        return order
    return -1 if a.size < b.size else (1 if a.size > b.size else 0)


cdef inline bint slice_equal(Slice a, Slice b) noexcept nogil:
    """Neighbouring keys differ in their last bytes, so those are looked at first, without a call."""
    cdef uint64_t left, right
    if a.size != b.size:
        return False
    if a.size >= 8:
        memcpy(&left, a.data + a.size - 8, 8)
        memcpy(&right, b.data + b.size - 8, 8)
        if left != right:
            return False
        return a.size == 8 or memcmp(a.data, b.data, a.size - 8) == 0
    return a.size == 0 or memcmp(a.data, b.data, a.size) == 0
