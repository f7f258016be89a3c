"""A moment of a database that stays readable."""

cimport cython
from libc.stdint cimport uint64_t


@cython.final
cdef class Snapshot:
    cdef Store store
    cdef readonly uint64_t sequence
    cdef bytes prefix
    cdef bint held
    cdef int check(self) except -1


cdef Snapshot open_snapshot(Store store, object sequence, bytes prefix)
