"""Block compression by the maintained Python packages lz4 and zstandard, both optional.

The GIL is taken around the call into the package only. Which one a table was written with stands
in each of its frames, so any table can be read whatever the present options are.
"""

from libc.stdint cimport uint8_t

from kvstore._engine.primitives.buffer cimport Buffer


cdef enum:
    COMPRESSION_NONE = 0
    COMPRESSION_LZ4 = 1
    COMPRESSION_ZSTD = 2
    COMPRESSION_MAX = 2


# The COMPRESSION_ number of "none", "lz4" or "zstd" (None is "none"), its package imported.
# InvalidArgumentError: no such name; ConfigurationError: the package is not installed.
cpdef int compression_of(object name) except -1
# Appends the compressed bytes to `into`. 1: done; 0: it doesn't save an eighth, or the package
# failed, and `into` is as it was.
cdef int compress(int compression, const uint8_t* data, size_t size, Buffer* into) noexcept nogil


cdef enum Decompressed:
    DECOMPRESSED = 0
    DECOMPRESS_DAMAGED = -1         # not what the package wrote, or not of that size
    DECOMPRESS_MISSING = -2         # the package is not installed


# Fills exactly `raw_size` bytes at `into`; never makes the package allocate more than that.
cdef int decompress(
    int compression, const uint8_t* data, size_t size, uint8_t* into, size_t raw_size
) noexcept nogil
