"""Calls of KV whose answers a client gathers, decoded, instead of being told of each."""

cdef class Gathering:
    cdef bytes path
    cdef int method                 # a HotMethod
    cdef list results               # the caller's, by place
    cdef list places                # answered since `take`
    cdef list failures              # the same, of those that failed
    cdef bint told                  # an event of it waits

cdef class GatheredCall(Stream):
    cdef Gathering gathering
    cdef Py_ssize_t place
    cdef double deadline
    cdef object result              # of the answer, when it came
    cdef bint is_malformed
