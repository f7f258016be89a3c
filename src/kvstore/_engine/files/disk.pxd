"""Whole files, as the manifest and the upkeep of a directory need them, over the table of file.pxd.

The GIL is released around each call of the disk.
"""

from libc.stdint cimport int64_t, uint64_t



# The most bytes of a file of a few lines, as IDENTITY and CURRENT are.
cdef enum:
    LINES_BYTES_MAX = 4096

# All bytes; StorageError (errno ENOENT among them) where it can't be read, CorruptionError where it
# has more than `most`: its size is damaged, and might be more than there is memory.
cdef bytes read_whole(FileSystem disk, str path, int64_t most)
# Under `path` + ".new", synced, renamed onto `path`, the directory synced.
cdef int replace_whole(FileSystem disk, str directory, str name, bytes data) except -1
# 0 absent, 1 file, 2 directory.
cdef int kind_of(FileSystem disk, str path) except -1
# False if it wasn't there.
cdef bint remove_file(FileSystem disk, str path) except -1
cdef int rename_file(FileSystem disk, str old, str new) except -1
cdef int link_file(FileSystem disk, str old, str new) except -1
# False if it was there.
cdef bint make_directory(FileSystem disk, str path) except -1
cdef int remove_directory(FileSystem disk, str path) except -1
cdef int sync_directory(FileSystem disk, str path) except -1


cdef struct Overwrite:
    # A piece of a file to be written in place, durably; the file is made where there is none.
    const char* path
    uint64_t offset
    const uint8_t* data
    size_t size
    int result                  # -errno; 0 also before it is done
    const char* what            # it was doing then


# The caller keeps both until it is done.
cdef void overwrite_of(Overwrite* piece, bytes path, uint64_t offset, bytes data) noexcept
cdef void overwrite(FileSystem disk, Overwrite* piece) noexcept nogil


cdef class Appender:
    """A file that grows at its end. One thread at a time."""
    cdef FileSystem disk
    cdef readonly str path
    cdef void* file
    cdef readonly uint64_t size
    # At the end, which stays where it was if this fails; durable only with the next sync().
    cdef int append(self, bytes data) except -1
    # A sync that fails is never tried again: nothing more may be appended after it.
    cdef int sync(self) except -1
    # Both, if the directory is still ours, with the GIL given up once. `unsure`: the data is written,
    # and whether it is durable isn't known. Once it is, `then` (NULL: nothing) is done as well: how
    # that went is for the caller to look at.
    cdef int append_synced(self, bytes data, Overwrite* then, bint* unsure) except -1
    cdef int close(self) except -1
    cdef int release(self) noexcept


# The file must not exist.
cdef Appender create_file(FileSystem disk, str path)


cdef class DirectoryLock:
    """Held until closed: the directory and the file LOCK in it."""
    cdef object __weakref__
    cdef FileSystem disk
    cdef void* file             # NULL: only the directory
    cdef void* directory        # NULL: the disk can lock files alone
    cdef int give_back(self) noexcept
    cdef int close(self) except -1


# Makes the file where there is none. AlreadyOpenError where somebody holds it.
cdef DirectoryLock lock_file(FileSystem disk, str path)
# Beside others that only read. Writes nothing; None where there is nothing that can be locked.
cdef DirectoryLock lock_file_shared(FileSystem disk, str path)
