"""The Python face of one table file: for inspection, verification, repair, and tests."""

from kvstore._engine.files.native cimport FileSystem


cdef class CacheFace:
    cdef BlockCache* cache


cdef class TableFile:
    cdef Table* table
    cdef FileSystem filesystem
    cdef readonly str path
    cdef int require_open(self) except -1


cdef class TableWriter:
    cdef TableBuilder* builder
    cdef FileSystem filesystem
    cdef readonly str path
    cdef int require_open(self) except -1
