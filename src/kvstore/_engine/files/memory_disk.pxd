"""An in-memory disk behind the table of file.pxd, for tests and simulation.

Its functions take the GIL. So code under test must not call the table while it holds a lock that
another thread waits for with the GIL held; that would stall a whole process on a slow disk, too.
"""

from libc.stdint cimport int64_t



cdef class Handle:
    """An open file: what a `void* file` of this disk points to, counted once for being open."""
    cdef Inode inode
    cdef str path
    cdef bint writable
    cdef bint locks


cdef class MemoryFileSystem(FileSystem):
    cdef Tree tree
    cdef readonly dict counts           # operation -> how often it was called
    cdef readonly int operations        # calls so far that may change the disk
    cdef readonly bint stopped
    cdef public object capacity_bytes
    cdef public object on_operation
    cdef list faults
    cdef int stop
    cdef bint stopping

    cdef int begin(self, str operation, str path) except -1
    cdef int end(self) except -1
    cdef void claim(self, int64_t more) except *
