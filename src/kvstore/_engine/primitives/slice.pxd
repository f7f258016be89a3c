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


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Words compare as the bytes do; also for key_head.pxd. */
    static inline uint64_t kv_word_big_endian(const uint8_t* at) {
        uint64_t word;
        memcpy(&word, at, 8);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        return word;
    }
    /* Keys are short: a few words compared in place cost less than the call of memcmp. */
    static inline int kv_compare(
            const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size) {
        size_t shorter = a_size < b_size ? a_size : b_size;
        if (shorter >= 8 && shorter <= 64) {
            for (size_t at = 0;;) {
                uint64_t left = kv_word_big_endian(a + at), right = kv_word_big_endian(b + at);
                if (left != right) return left < right ? -1 : 1;
                at += 8;
                if (at >= shorter) break;
                /* The last word reaches back over bytes that are equal. */
                if (at + 8 > shorter) at = shorter - 8;
            }
        } else if (shorter) {
            int order = memcmp(a, b, shorter);
            if (order) return order;
        }
        return a_size < b_size ? -1 : a_size > b_size;
    }
    """
    int compare_bytes "kv_compare"(
        const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size
    ) noexcept nogil


cdef inline int slice_compare(Slice a, Slice b) noexcept nogil:
    """Lexicographic order of unsigned bytes: negative, zero or positive."""
    return compare_bytes(a.data, a.size, b.data, b.size)


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
