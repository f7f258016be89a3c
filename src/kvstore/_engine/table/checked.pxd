"""Which frames of an open table were checked in full: a bit each, set once. Any thread, no GIL.

The checksum of a frame says that its bytes are those which the table's builder put there, since the
table's id and the frame's offset are in it. That these bytes are a block in order, and between the
separators by which its index names it, is true or not of them for good: the first reading since the
table was opened looks, later ones have the checksum.
"""

from libc.stdint cimport uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t* kv_checked_of(uint64_t** partitions, uint64_t partition) {
        return partitions ? __atomic_load_n(&partitions[partition], __ATOMIC_ACQUIRE) : NULL;
    }
    /* True for the one caller whose bits are taken. */
    static inline int kv_checked_begin(uint64_t** partitions, uint64_t partition, uint64_t* bits) {
        uint64_t* none = NULL;
        return __atomic_compare_exchange_n(
            &partitions[partition], &none, bits, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    /* The first word says how many bits there are. */
    static inline int kv_checked_test(const uint64_t* bits, uint64_t slot) {
        return bits && slot < bits[0]
            && (__atomic_load_n(&bits[1 + slot / 64], __ATOMIC_ACQUIRE) >> slot % 64 & 1);
    }
    static inline void kv_checked_set(uint64_t* bits, uint64_t slot) {
        if (bits && slot < bits[0])
            __atomic_fetch_or(&bits[1 + slot / 64], (uint64_t) 1 << slot % 64, __ATOMIC_RELEASE);
    }
    """
    # The bits of the data blocks of a partition; NULL: the partition itself was not checked yet.
    uint64_t* checked_of "kv_checked_of"(uint64_t** partitions, uint64_t partition) noexcept nogil
    bint checked_begin "kv_checked_begin"(
        uint64_t** partitions, uint64_t partition, uint64_t* bits
    ) noexcept nogil
    bint checked_test "kv_checked_test"(const uint64_t* bits, uint64_t slot) noexcept nogil
    void checked_set "kv_checked_set"(uint64_t* bits, uint64_t slot) noexcept nogil
