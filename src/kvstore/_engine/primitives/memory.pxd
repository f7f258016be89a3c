"""The one seam through which all of the engine's C memory comes and goes.

The calls are libc's, with its meanings, but for what is said at each. Behind them stands one count
for the whole process, which tests turn on (memory.pyi) to refuse the n-th allocation and to see
what was not given back; while it is off, a call costs one load and one branch more than libc's.
Memory that a room obtains in another way (mmap) asks `kv_may_allocate` first and says `kv_gave_back`
at the end. NULL is the only sign of failure: the caller says ENOMEM in its status and leaves
everything as it was.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, strlen


cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #define kv_unlikely(condition) __builtin_expect(!!(condition), 0)
    /* glibc's calloc passes by the thread's own lists of free pieces, so malloc is the faster; the
       barrier keeps GCC from making a calloc of the two calls. */
    static inline void* kv_libc_zeroed(size_t size) {
        void* memory = malloc(size);
        if (!memory) return NULL;
        __asm__ volatile("" : "+r"(memory));
        return memset(memory, 0, size);
    }
    """
    bint kv_unlikely(bint condition) noexcept nogil
    void* kv_libc_zeroed(size_t size) noexcept nogil
    void* aligned_alloc(size_t alignment, size_t size) noexcept nogil


cdef struct AllocationCount:
    uint64_t watched        # atomic; 0: nothing of the rest is looked at
    uint64_t counted        # atomic: allocations asked for
    uint64_t refused        # atomic
    int64_t live            # atomic: pieces obtained and not given back
    uint64_t fail_from      # the first allocation that is refused, counted from 1; 0: none
    uint64_t fail_until     # the first one that is not refused any more

# Of the process, whatever the number of extension modules.
cdef AllocationCount allocation_count

# Only while watched. True: this allocation is to fail. False: it is counted as live.
cdef bint allocation_refused(bint fresh) noexcept nogil
# Only while watched.
cdef void allocation_gone() noexcept nogil


cdef inline bint kv_may_allocate() noexcept nogil:
    """Whether memory may be obtained from elsewhere than libc's heap."""
    return not (kv_unlikely(allocation_count.watched != 0) and allocation_refused(True))


cdef inline void kv_gave_back() noexcept nogil:
    """One piece that `kv_may_allocate` allowed is gone, or could not be obtained after all."""
    if kv_unlikely(allocation_count.watched != 0):
        allocation_gone()


cdef inline void* obtained(void* memory) noexcept nogil:
    if kv_unlikely(memory == NULL):
        kv_gave_back()
    return memory


cdef inline void* kv_malloc(size_t size) noexcept nogil:
    if kv_unlikely(allocation_count.watched != 0) and allocation_refused(True):
        return NULL
    return obtained(malloc(size))


cdef inline void* kv_calloc(size_t count, size_t size) noexcept nogil:
    if kv_unlikely(allocation_count.watched != 0) and allocation_refused(True):
        return NULL
    return obtained(calloc(count, size))


cdef inline void* kv_zeroed(size_t size) noexcept nogil:
    """kv_calloc for small things that come and go often, such as cursors: faster."""
    if kv_unlikely(allocation_count.watched != 0) and allocation_refused(True):
        return NULL
    return obtained(kv_libc_zeroed(size))


cdef inline void* kv_aligned_alloc(size_t alignment, size_t size) noexcept nogil:
    """`alignment` is a power of two and divides `size`; kv_free gives it back."""
    if kv_unlikely(allocation_count.watched != 0) and allocation_refused(True):
        return NULL
    return obtained(aligned_alloc(alignment, size))


cdef inline char* kv_strdup(const char* text) noexcept nogil:
    cdef size_t size = strlen(text) + 1
    cdef char* copy = <char*> kv_malloc(size)
    if copy != NULL:
        memcpy(copy, text, size)
    return copy


cdef inline void kv_free(void* memory) noexcept nogil:
    if kv_unlikely(allocation_count.watched != 0) and memory != NULL:
        allocation_gone()
    free(memory)


cdef inline void* kv_realloc(void* memory, size_t size) noexcept nogil:
    """NULL: no memory, `memory` is as it was. With a size of 0 it is kv_free, and ends with NULL."""
    if size == 0:
        kv_free(memory)
        return NULL
    if kv_unlikely(allocation_count.watched != 0) and allocation_refused(memory == NULL):
        return NULL
    cdef void* larger = realloc(memory, size)
    if kv_unlikely(larger == NULL) and memory == NULL:
        kv_gave_back()
    return larger
