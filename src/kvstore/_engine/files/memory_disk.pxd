"""An in-memory disk behind the table of file.pxd, for tests and simulation.

Its functions take the GIL. So code under test must not call the table while it holds a lock that
another thread waits for with the GIL held; that would stall a whole process on a slow disk, too.
"""

from libc.stdint cimport int64_t, uint64_t



cdef class Handle:
    """An open file: what a `void* file` of this disk points to, counted once for being open."""
    cdef Inode inode
    cdef str path
    cdef bint writable
    cdef int lock               # what closing gives back: -1 exclusive, 1 shared, 0 none


cdef class MemoryFileSystem(FileSystem):
    cdef Tree tree
    cdef readonly dict counts           # operation -> how often it was called
    cdef readonly int preads_with_gil   # those whose caller didn't let go of the GIL
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
    # What the table's functions do.
    cdef Handle open_file(self, str path, int mode)
    cdef int write_at(self, Handle handle, bytes content, uint64_t offset) except -1
    cdef int begin_writing_back(self, str operation, Handle handle) except -1
    cdef int sync_file(self, Handle handle) except -1
    cdef int allocate_file(self, Handle handle, uint64_t size) except -1
    cdef int truncate_file(self, Handle handle, uint64_t size) except -1
    cdef int rename_node(self, str old, str new) except -1
    cdef int link_file(self, str old, str new) except -1
    cdef int unlink_file(self, str path) except -1
    cdef int add_directory(self, str path) except -1
    cdef int drop_directory(self, str path) except -1
    cdef int sync_names(self, str path) except -1
    cdef Handle lock_file(self, str path)
    cdef int add_fault(self, str operation, int error, int at, bint always, str path) except -1
    cdef object directory(self, str path)
    cdef object file(self, str path)
