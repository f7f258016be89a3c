"""The disk of a database that holds its directory's lock.

Files are opened, renamed and removed by path, and while the database is open somebody may move the
directory, or remove it, or LOCK, and let another database begin at that path. So before anything
that makes, renames or removes a name, or syncs a directory, one look tells whether LOCK is still
the file that is held. Once it isn't, all of that fails for good with ESTALE. What goes through
files that are open, reads and writes, stays with the files and needs no look.
"""

from libc.stdint cimport uint64_t


cdef struct GuardedDisk:
    const FileSystemOps* ops    # of the disk below, with `disk`; borrowed
    void* disk
    void* held                  # LOCK as it is held; NULL: nothing is checked yet
    const char* path            # of LOCK; borrowed
    uint64_t gone               # atomic; 1: no name may be changed any more
    uint64_t looking            # atomic: looks at LOCK under way


cdef class GuardedFileSystem(FileSystem):
    cdef FileSystem below
    cdef bytes path
    cdef GuardedDisk guarded
    # From here on names change only while this lock is where it was.
    cdef int hold(self, DirectoryLock lock) noexcept
    # Before the lock is given back; waits for looks under way.
    cdef int let_go(self) noexcept
    # The same in a child, whose parent's other threads never come back from theirs.
    cdef int let_go_after_fork(self) noexcept
    # StorageError where it isn't.
    cdef int check(self) except -1


# `path`: of LOCK.
cdef GuardedFileSystem guard(FileSystem below, str path)
