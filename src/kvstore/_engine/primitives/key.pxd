"""The internal key: user key + 8 bytes little-endian of (sequence << 8 | kind).

Order: user key ascending, then sequence descending, so that the newest version of a key comes
first and seeking to (key, s) lands on the newest version that is visible at sequence s.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy



cdef enum Kind:
    KIND_DELETE = 0
    KIND_PUT = 1
    KIND_MAX = 1            # the largest kind: what a seek uses
    # In a batch, and in the bounds of tables: never that of an entry. A table whose largest key has it
    # holds keys below that one.
    KIND_RANGE_DELETE = 2

cdef enum:
    TRAILER_BYTES = 8

# Sequences are 56 bits wide.
cdef inline uint64_t max_sequence() noexcept nogil:
    return (<uint64_t> 1 << 56) - 1


cdef inline uint64_t trailer_pack(uint64_t sequence, int kind) noexcept nogil:
    return (sequence << 8) | <uint64_t> kind


cdef inline uint64_t trailer_sequence(uint64_t trailer) noexcept nogil:
    return trailer >> 8


cdef inline int trailer_kind(uint64_t trailer) noexcept nogil:
    return <int> (trailer & 0xFF)


cdef inline uint64_t internal_trailer(Slice internal) noexcept nogil:
    """The caller has made sure that internal.size >= TRAILER_BYTES."""
    cdef uint64_t trailer
    memcpy(&trailer, internal.data + internal.size - TRAILER_BYTES, TRAILER_BYTES)
    return trailer


cdef inline Slice internal_user_key(Slice internal) noexcept nogil:
    return slice_of(internal.data, internal.size - TRAILER_BYTES)


cdef inline int internal_compare(Slice a, Slice b) noexcept nogil:
    cdef int order = slice_compare(internal_user_key(a), internal_user_key(b))
    if order:
        return order
    cdef uint64_t left = internal_trailer(a)
    cdef uint64_t right = internal_trailer(b)
    return -1 if left > right else (1 if left < right else 0)
