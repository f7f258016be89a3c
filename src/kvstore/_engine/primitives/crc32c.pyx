"""The Python face of CRC-32C."""

from libc.stdint cimport uint8_t, uint32_t

# Below this many bytes giving the GIL up costs more than the checksum.
cdef enum:
    GIL_BYTES = 16384


def crc32c(const uint8_t[::1] data, uint32_t value=0):
    cdef size_t size = <size_t> data.shape[0]
    cdef const uint8_t* start = &data[0] if size else NULL
    if size < GIL_BYTES:
        return crc32c_extend(value, start, size)
    with nogil:
        value = crc32c_extend(value, start, size)
    return value


def crc32c_software(const uint8_t[::1] data, uint32_t value=0):
    cdef size_t size = <size_t> data.shape[0]
    return crc32c_software_extend(value, &data[0] if size else NULL, size)


def hardware_accelerated():
    return bool(crc32c_accelerated())
