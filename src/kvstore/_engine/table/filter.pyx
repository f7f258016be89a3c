"""The hash of the filter: see filter.pxd."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport get_fixed64


cdef extern from *:
    """
    static inline uint64_t kv_multiply_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128) a * b;
        return (uint64_t) product ^ (uint64_t) (product >> 64);
    }
    """
    uint64_t multiply_fold "kv_multiply_fold"(uint64_t a, uint64_t b) noexcept nogil


cdef inline uint64_t load_tail(const uint8_t* at, size_t size) noexcept nogil:
    """Up to eight bytes, zeros after them."""
    cdef uint64_t word = 0
    if size:
        memcpy(&word, at, size)
    return word


# Sixteen bytes a step, each folded by a full 64 x 64 bit product with odd constants (the fractions
# of the square roots of the first primes, for want of a better reason). The length goes in first, so
# that the zeros that fill the tail don't make keys alike.
cdef uint64_t filter_hash(const uint8_t* key, size_t size) noexcept nogil:
    cdef uint64_t state = <uint64_t> 0x6A09E667F3BCC909 ^ (<uint64_t> size * <uint64_t> 0xBB67AE8584CAA73B)
    cdef uint64_t first, second
    while size > 16:
        state = multiply_fold(
            get_fixed64(key) ^ <uint64_t> 0x3C6EF372FE94F82B, get_fixed64(key + 8) ^ state
        )
        key += 16
        size -= 16
    if size >= 8:
        first = get_fixed64(key)
        second = get_fixed64(key + 8) if size == 16 else load_tail(key + 8, size - 8)
    else:
        first = load_tail(key, size)
        second = 0
    state = multiply_fold(first ^ <uint64_t> 0xA54FF53A5F1D36F1, second ^ state)
    return multiply_fold(state, <uint64_t> 0x510E527FADE682D1)
