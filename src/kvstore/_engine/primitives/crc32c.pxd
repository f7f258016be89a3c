"""CRC-32C for code without the GIL. Checksums are stored as they are, unmasked: no frame of ours
contains another frame's checksum at a place that is checksummed with the same seed."""

from libc.stdint cimport uint8_t, uint32_t


cdef extern from "kvstore/_engine/primitives/crc32c.h" namespace "kvstore_crc32c" nogil:
    # The checksum of the bytes so far, continued over `size` more; starts from 0.
    uint32_t crc32c_extend "kvstore_crc32c::extend"(uint32_t crc, const uint8_t* data, size_t size) noexcept
    uint32_t crc32c_software_extend "kvstore_crc32c::software"(
        uint32_t crc, const uint8_t* data, size_t size
    ) noexcept
    bint crc32c_accelerated "kvstore_crc32c::accelerated"() noexcept
