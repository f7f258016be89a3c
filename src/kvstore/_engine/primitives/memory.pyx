"""The count behind memory.pxd, and its face for tests."""

from libc.stdint cimport UINT64_MAX, int64_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t kv_count_one(uint64_t* counter) {
        return __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
    }
    static inline void kv_live_add(int64_t* live, int64_t by) {
        __atomic_add_fetch(live, by, __ATOMIC_RELAXED);
    }
    /* The limits are written before: whoever sees the count on sees them too, or those of before. */
    static inline void kv_watch(uint64_t* watched, uint64_t on) {
        __atomic_store_n(watched, on, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t count_one "kv_count_one"(uint64_t* counter) noexcept nogil
    void live_add "kv_live_add"(int64_t* live, int64_t by) noexcept nogil
    void watch "kv_watch"(uint64_t* watched, uint64_t on) noexcept nogil


cdef bint allocation_refused(bint fresh) noexcept nogil:
    cdef uint64_t number = count_one(&allocation_count.counted)
    if allocation_count.fail_from <= number < allocation_count.fail_until:
        count_one(&allocation_count.refused)
        return True
    if fresh:
        live_add(&allocation_count.live, 1)
    return False


cdef void allocation_gone() noexcept nogil:
    live_add(&allocation_count.live, -1)


def watch_allocations():
    fail_allocation(0, 0)


def fail_allocation(uint64_t n, times=1):
    if times is not None and times < 0:
        raise ValueError("times is a count, or None for ever")
    cdef uint64_t until = UINT64_MAX if times is None else n + <uint64_t> times
    watch(&allocation_count.watched, 0)
    allocation_count.counted = allocation_count.refused = 0
    allocation_count.fail_from = n
    allocation_count.fail_until = until if n else 0
    watch(&allocation_count.watched, 1)


def reset():
    watch(&allocation_count.watched, 0)
    allocation_count.fail_from = allocation_count.fail_until = 0
    allocation_count.counted = allocation_count.refused = 0
    allocation_count.live = 0


def count():
    return allocation_count.counted


def refused():
    return allocation_count.refused


def live():
    return allocation_count.live
