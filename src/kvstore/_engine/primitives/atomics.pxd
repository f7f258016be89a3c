"""The few atomic operations that Cython can't say, over the compiler's builtins."""

from libc.stdint cimport uint8_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    static inline void kv_reference_add(uint64_t* count) {
        __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    }
    /* True for the one caller that dropped the last reference. */
    static inline int kv_reference_drop(uint64_t* count) {
        return __atomic_sub_fetch(count, 1, __ATOMIC_ACQ_REL) == 0;
    }
    static inline uint64_t kv_counter_next(uint64_t* counter) {
        return __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
    }
    static inline uint64_t kv_load_acquire(const uint64_t* at) {
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
    }
    static inline void kv_enter(uint64_t* inside) {
        __atomic_fetch_add(inside, 1, __ATOMIC_SEQ_CST);
    }
    static inline void kv_leave(uint64_t* inside) {
        __atomic_fetch_sub(inside, 1, __ATOMIC_RELEASE);
    }
    static inline uint64_t kv_load_ordered(const uint64_t* at) {
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);
    }
    static inline void kv_store_ordered(uint64_t* at, uint64_t value) {
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
    }
    static inline void kv_store_release(uint64_t* at, uint64_t value) {
        __atomic_store_n(at, value, __ATOMIC_RELEASE);
    }
    """
    # Whoever creates the object starts its count at 1.
    void reference_add "kv_reference_add"(uint64_t* count) noexcept nogil
    bint reference_drop "kv_reference_drop"(uint64_t* count) noexcept nogil
    uint64_t counter_next "kv_counter_next"(uint64_t* counter) noexcept nogil
    uint64_t load_acquire "kv_load_acquire"(const uint64_t* at) noexcept nogil
    void store_release "kv_store_release"(uint64_t* at, uint64_t value) noexcept nogil
    # Whoever enters and then loads a flag, and whoever stores the flag and then loads who is inside:
    # one of the two sees the other.
    void enter "kv_enter"(uint64_t* inside) noexcept nogil
    void leave "kv_leave"(uint64_t* inside) noexcept nogil
    uint64_t load_ordered "kv_load_ordered"(const uint64_t* at) noexcept nogil
    void store_ordered "kv_store_ordered"(uint64_t* at, uint64_t value) noexcept nogil
