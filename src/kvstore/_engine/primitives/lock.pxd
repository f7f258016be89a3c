"""A lock between threads for code without the GIL: libcpp's may throw, and Cython would take the
GIL to say so. Nobody asks for the GIL, or for another lock, while holding one."""


cdef extern from "<pthread.h>" nogil:
    ctypedef struct Lock "pthread_mutex_t":
        pass
    int pthread_mutex_init(Lock* lock, const void* attributes) noexcept
    int pthread_mutex_destroy(Lock* lock) noexcept
    int pthread_mutex_lock(Lock* lock) noexcept
    int pthread_mutex_unlock(Lock* lock) noexcept


cdef inline void lock_init(Lock* lock) noexcept nogil:
    # With default attributes these can't fail on a lock that is used as it must be.
    pthread_mutex_init(lock, NULL)


cdef inline void lock_destroy(Lock* lock) noexcept nogil:
    pthread_mutex_destroy(lock)


cdef inline void lock_take(Lock* lock) noexcept nogil:
    pthread_mutex_lock(lock)


cdef inline void lock_leave(Lock* lock) noexcept nogil:
    pthread_mutex_unlock(lock)
