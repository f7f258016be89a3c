"""What is remembered of requests: a queue of slots, oldest first, and an index of them by digest.

The queue is a ring of `capacity + 1` slots, allocated once; the kernel gives its pages as they are
used. The index is open addressing with linear probing over ring places (0: free, else place + 1),
at most half full, and doubles. At the bound of 1,048,576 that is 32 + 8 bytes a request.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct Slot:
    uint8_t digest[16]
    uint64_t word           # fingerprint, its lowest bit the result; 0: a filler, no request
    uint32_t index_step     # entry index and time, from those of the slot before it
    uint32_t time_step

cdef class RequestMemory:
    cdef Slot* ring                     # owned
    cdef uint32_t* places               # owned; `mask + 1` of them
    cdef uint32_t mask
    cdef uint32_t size                  # of the ring
    cdef uint32_t head                  # place of the oldest slot
    cdef uint32_t slots                 # in use, fillers included
    cdef uint32_t known                 # requests among them
    cdef uint64_t head_index, head_time # of the oldest slot
    cdef uint64_t tail_index, tail_time # of the newest slot
    cdef uint64_t _forgotten_ms
    cdef list gone

    # The word of a remembered request, 0 for none.
    cdef uint64_t word(self, const uint8_t* digest) noexcept nogil
    cdef uint32_t lookup(self, const uint8_t* digest) noexcept nogil
    cdef int grow(self) noexcept nogil
    cdef void enter(self, uint32_t place) noexcept nogil
    cdef void leave(self, const uint8_t* digest) noexcept nogil
    cdef void push(self, const uint8_t* digest, uint64_t word, uint32_t index_step,
                   uint32_t time_step) noexcept nogil
    cdef uint64_t pop(self) noexcept nogil
    cdef int remember(self, const uint8_t* digest, uint64_t word, uint64_t index,
                      uint64_t time) except -1
