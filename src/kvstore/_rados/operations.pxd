"""Operations under way, and those that are finished."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

# Written by librados's threads, one after the other; taken by the thread that drains. Lives until
# the library's threads are gone.
cdef struct Finished:
    void* newest            # atomic: Op, each with the one before it; NULL when all were taken
    int event               # eventfd: signalled by the first one after all were taken

# Of one operation. Whoever made it keeps its object alive until it was taken.
cdef struct Op:
    void* next              # Op: the one that finished before
    Finished* finished
    void* completion
    void* iterator          # of pairs, or NULL
    char* data              # of a read of bytes, or NULL; owned
    size_t data_bytes       # of them, those that were read
    int part                # the result of the part that reads
    unsigned char more      # there are pairs behind the last one
    PyObject* owner         # the Operation, a reference of its own

cdef class Pool

cdef class Operation:
    cdef Op op
    cdef Pool pool
    cdef readonly object done
    cdef readonly int code
    cdef readonly uint64_t version
    cdef readonly object pairs
    cdef readonly bytes data
    cdef readonly bint more
    cdef readonly bint finished
    cdef int begin(self) except -1
    cdef int end(self) except -1

cdef class Pool:
    cdef void* cluster
    cdef void* io
    cdef Finished* finished
    cdef readonly Py_ssize_t under_way
    cdef bytes pool_name
    cdef int submit_read(self, Operation operation, void* request, bytes name) except -1
    cdef int submit_write(self, Operation operation, void* request, bytes name) except -1
    cdef int refused(self, Operation operation, int code) except -1

cdef const char** texts_of(list texts) except NULL
