"""The contents of an in-memory disk: what a reader sees, and what would survive a power loss.

Everything here is used under the GIL.
"""

from libc.stdint cimport uint64_t


cdef class Inode:
    cdef bytearray data         # what a reader sees
    cdef bytearray durable      # what the device holds
    # What the device does not hold yet, in order: (sequence, offset, bytes written) or
    # (sequence, new size, None).
    cdef list journal
    cdef bint given_back        # it lost its last name: who has it open reads nothing
    cdef int locks              # -1 an exclusive one, else how many shared ones

    cdef void write(self, uint64_t sequence, uint64_t offset, bytes content) except *
    cdef void resize(self, uint64_t sequence, uint64_t size) except *
    cdef void sync(self) except *
    cdef void forget(self) except *


cdef class Directory:
    cdef dict entries           # name -> Inode or Directory, as seen
    cdef dict durable           # name -> Inode or Directory, as on the device


cdef class Tree:
    cdef Directory root
    # Changes of directories that are not durable, in order: (sequence, ((directory, name, node or
    # None), ...)). Each is one step of a journaling file system: all of it survives or nothing.
    cdef list journal
    cdef uint64_t sequence

    cdef uint64_t next_sequence(self) noexcept
    cdef object find(self, str path)
    cdef tuple parent_of(self, str path)
    cdef bint names(self, Inode inode) except -1
    cdef void change(self, tuple changes) except *
    cdef void sync_directory(self, Directory directory) except *
    cdef list inodes(self)
    cdef int inodes_below(self, object top, set seen, list result) except -1
    cdef Tree copy(self)
    # What a power loss may leave, of a copy: it draws from `random`, and threads come between.
    cdef Tree survivor(self, str keep, object random)
