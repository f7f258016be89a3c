"""A blocked Bloom filter: all probes of a key fall into one cache line.

The filter is an array of 64-byte lines. The upper half of a key's hash chooses the line, and
successive multiples of the lower half choose one bit each. At 10 bits a key a key that isn't there
passes about once in a hundred (measured: docs/storage-format.md). There are no false negatives.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    FILTER_NONE = 0                 # kinds, as a table's properties say them
    FILTER_BLOCKED_BLOOM = 1
    FILTER_HASH = 1                 # of filter.pyx
    FILTER_LINE_BYTES = 64
    FILTER_PROBES_MAX = 16


# The hash of a user key, part of the file format: it must never change.
cdef uint64_t filter_hash(const uint8_t* key, size_t size) noexcept nogil


cdef inline int filter_probes(int bits_per_key) noexcept nogil:
    """The number of probes that suits a filter's density: ln 2 x bits, less what blocking costs."""
    cdef int probes = (bits_per_key * 6 + 5) // 10
    return 1 if probes < 1 else (FILTER_PROBES_MAX if probes > FILTER_PROBES_MAX else probes)


cdef inline size_t filter_bytes(size_t keys, int bits_per_key) noexcept nogil:
    """Size of a filter for so many keys: whole lines, at least one."""
    cdef size_t lines = (keys * <size_t> bits_per_key + 511) // 512
    return FILTER_LINE_BYTES * (lines if lines else 1)


cdef inline const uint8_t* filter_line(const uint8_t* data, size_t size, uint64_t hashed) noexcept nogil:
    return data + FILTER_LINE_BYTES * (
        ((hashed >> 32) * <uint64_t> (size // FILTER_LINE_BYTES)) >> 32
    )


cdef inline void filter_add(uint8_t* data, size_t size, int probes, uint64_t hashed) noexcept nogil:
    """`data` is aligned to 8."""
    # Eight bytes at a time: the same bits as those of the bytes.
    cdef uint64_t* line = <uint64_t*> filter_line(data, size, hashed)
    cdef uint32_t walk = <uint32_t> hashed
    cdef int i
    for i in range(probes):
        walk *= <uint32_t> 0x9E3779B9
        line[walk >> 29] |= <uint64_t> 1 << ((walk >> 23) & 63)


cdef inline bint filter_may_contain(
    const uint8_t* data, size_t size, int probes, uint64_t hashed
) noexcept nogil:
    """`size` is a positive multiple of FILTER_LINE_BYTES."""
    cdef const uint8_t* line = filter_line(data, size, hashed)
    cdef uint32_t walk = <uint32_t> hashed
    cdef int i
    for i in range(probes):
        walk *= <uint32_t> 0x9E3779B9
        if not (line[walk >> 26] >> ((walk >> 23) & 7)) & 1:
            return False
    return True
