"""Little-endian integers and varints, as every file and log record spells them.

Decoders of bytes that come from disk take an end pointer and return NULL instead of reading past it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef enum:
    MAX_VARINT32_BYTES = 5
    MAX_VARINT64_BYTES = 10


cdef extern from "kvstore/_engine/primitives/byte_order.h":
    pass


cdef inline void put_fixed32(uint8_t* at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline void put_fixed64(uint8_t* at, uint64_t value) noexcept nogil:
    memcpy(at, &value, 8)


cdef inline uint32_t get_fixed32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint64_t get_fixed64(const uint8_t* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline uint8_t* put_varint64(uint8_t* at, uint64_t value) noexcept nogil:
    """Writes up to MAX_VARINT64_BYTES; returns the byte after the last one."""
    while value >= 0x80:
        at[0] = <uint8_t> (value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline int varint_bytes(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline const uint8_t* get_varint64(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """The byte after the varint, or NULL if it runs past `end` or does not fit in 64 bits."""
    cdef uint64_t result = 0
    cdef int shift = 0
    while at < end and shift < 64:
        if shift == 63 and at[0] > 1:
            return NULL
        result |= <uint64_t> (at[0] & 0x7F) << shift
        if at[0] < 0x80:
            value[0] = result
            return at + 1
        at += 1
        shift += 7
    return NULL


cdef inline const uint8_t* get_varint32(const uint8_t* at, const uint8_t* end, uint32_t* value) noexcept nogil:
    """The byte after the varint, or NULL if it runs past `end` or does not fit in 32 bits."""
    cdef uint64_t wide
    if at < end and at[0] < 0x80:
        value[0] = at[0]
        return at + 1
    at = get_varint64(at, end, &wide)
    if at == NULL or wide >> 32:
        return NULL
    value[0] = <uint32_t> wide
    return at
