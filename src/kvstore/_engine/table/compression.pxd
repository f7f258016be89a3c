"""Block compression: LZ4, Zstandard and Snappy, all optional.

Each is done by the C library where the machine has it (codecs.h), without the GIL; else by the
maintained Python package, with the GIL around that call only. Both write the same format. Which
codec a block was written with stands in its frame, so any table can be read whatever the options
are now.
"""

from libc.stdint cimport uint8_t

from kvstore._engine.primitives.native cimport Buffer


cdef enum:
    COMPRESSION_NONE = 0
    COMPRESSION_LZ4 = 1
    COMPRESSION_ZSTD = 2
    COMPRESSION_SNAPPY = 3
    COMPRESSION_MAX = 3


# The COMPRESSION_ number of "none", "lz4", "zstd" or "snappy" (None is "none"), what does it found.
# InvalidArgumentError: no such name; ConfigurationError: neither library nor package is there.
cpdef int compression_of(object name) except -1
# Appends the compressed bytes to `into`. 1: done; 0: it doesn't save an eighth, or the codec
# failed, and `into` is as it was.
cdef int compress(int compression, const uint8_t* data, size_t size, Buffer* into) noexcept nogil


cdef enum Decompressed:
    DECOMPRESSED = 0
    DECOMPRESS_DAMAGED = -1         # not what the codec wrote, or not of that size
    DECOMPRESS_MISSING = -2         # neither library nor package is there
    DECOMPRESS_NO_MEMORY = -3


# Fills exactly `raw_size` bytes at `into`; never makes the codec allocate more than that.
cdef int decompress(
    int compression, const uint8_t* data, size_t size, uint8_t* into, size_t raw_size
) noexcept nogil
