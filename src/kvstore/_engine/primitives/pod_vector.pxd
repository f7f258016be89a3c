"""std::vector's place in code that may not see an exception: see pod_vector.h.

`grow` is always `kv_realloc` of memory.pxd. Calls that take it end with -1 where there is no
memory, and nothing is changed then. The memory goes with the vector, but not what items point to.
"""

ctypedef void* (*Resize)(void*, size_t) noexcept nogil


cdef extern from "kvstore/_engine/primitives/pod_vector.h" namespace "kvstore" nogil:
    cdef cppclass PodVector[T]:
        PodVector() noexcept
        size_t size() noexcept
        bint empty() noexcept
        T* data() noexcept
        T& operator[](size_t at) noexcept
        T& back() noexcept
        int reserve(size_t more, Resize grow) noexcept
        int push(T item, Resize grow) noexcept
        void push_reserved(T item) noexcept
        int resize(size_t size, Resize grow) noexcept
        int insert(size_t at, T item, Resize grow) noexcept
        void remove(size_t at) noexcept
        void pop() noexcept
        void clear() noexcept
        void release() noexcept
        void swap(PodVector[T]& other) noexcept
