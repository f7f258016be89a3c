"""FileSystem is the base of the disks that an engine can stand on; see file.pxd."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EEXIST, ENOENT, ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Status, status_error, status_os_error

from kvstore.errors import InvalidArgumentError, StorageError


cdef class FileSystem:
    def __cinit__(self):
        # Not in __init__, which a subclass need not call: `ops` must never be NULL.
        if not isinstance(self, (PosixFileSystem, MemoryFileSystem, GuardedFileSystem)):
            raise TypeError("FileSystem is abstract; use PosixFileSystem or MemoryFileSystem")

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} can't be copied or pickled")

    def resolve(self, str path):
        # Not os.path.abspath: that takes `link/..` for the directory that holds the link.
        if not path or "\0" in path:
            raise InvalidArgumentError(f"{path!r} is no usable path")
        try:
            return os.path.realpath(path)
        except OSError as error:
            # There is no working directory any more.
            raise StorageError(
                f"finding the directory: {error.strerror}", path=path, errno=error.errno
            ) from None

    # Whole-file work for Python code that is not on a hot path (snapshots, identity files). What
    # they mean is in file.pyi; failures are StorageErrors.

    def names(self, str path):
        return list_directory(self, path)

    def kind(self, str path):
        cdef bytes raw = os.fsencode(path)
        cdef const char* name = raw
        cdef int result
        with nogil:
            result = self.ops.kind(self.disk, name)
        if result == -ENOENT:
            return 0
        if result < 0:
            raise os_failure(result, b"looking at a file", path)
        return result

    def size(self, str path):
        cdef void* file = open_file(self, path, OPEN_READ)
        cdef int64_t size
        with nogil:
            size = self.ops.size(self.disk, file)
            self.ops.close(self.disk, file)
        if size < 0:
            raise os_failure(<int> size, b"reading the size of a file", path)
        return size

    def read(self, str path, uint64_t offset, size_t size):
        cdef void* file = open_file(self, path, OPEN_READ)
        cdef bytes content = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
        cdef uint8_t* into = <uint8_t*> PyBytes_AS_STRING(content)
        cdef int64_t count
        with nogil:
            count = self.ops.pread(self.disk, file, into, size, offset)
            self.ops.close(self.disk, file)
        if count < 0:
            raise os_failure(<int> count, b"reading a file", path)
        return content[:count]

    def write(self, str path, uint64_t offset, const uint8_t[::1] data not None):
        cdef void* file = open_file(self, path, OPEN_CREATE)
        cdef size_t size = <size_t> data.shape[0]
        cdef const uint8_t* source = &data[0] if size else NULL
        cdef int result
        with nogil:
            result = write_in_pieces(self, file, source, size, offset)
            self.ops.close(self.disk, file)
        if result < 0:
            raise os_failure(result, b"writing a file", path)

    def sync(self, str path):
        cdef void* file = open_file(self, path, OPEN_WRITE)
        cdef int result
        with nogil:
            result = self.ops.datasync(self.disk, file)
            self.ops.close(self.disk, file)
        if result < 0:
            raise os_failure(result, b"syncing a file", path)

    def sync_directory(self, str path):
        cdef bytes raw = os.fsencode(path)
        cdef const char* name = raw
        cdef int result
        with nogil:
            result = self.ops.sync_directory(self.disk, name)
        if result < 0:
            raise os_failure(result, b"syncing a directory", path)

    def rename(self, str old, str new):
        cdef bytes raw_old = os.fsencode(old)
        cdef bytes raw_new = os.fsencode(new)
        cdef const char* name_old = raw_old
        cdef const char* name_new = raw_new
        cdef int result
        with nogil:
            result = self.ops.rename(self.disk, name_old, name_new)
        if result < 0:
            raise os_failure(result, b"renaming a file", old)

    def make_directory(self, str path):
        cdef bytes raw = os.fsencode(path)
        cdef const char* name = raw
        cdef int result
        with nogil:
            result = self.ops.make_directory(self.disk, name)
        if result < 0 and result != -EEXIST:
            raise os_failure(result, b"making a directory", path)

    def remove_tree(self, str path):
        cdef bytes raw = os.fsencode(path)
        cdef const char* name_raw = raw
        cdef int result
        cdef int kind = self.kind(path)
        if kind == 0:
            return
        if kind == 2:
            for name in self.names(path):
                self.remove_tree(f"{path}/{name}")
            with nogil:
                result = self.ops.remove_directory(self.disk, name_raw)
        else:
            # Of a file of megabytes it may take tenths of a second.
            with nogil:
                result = self.ops.unlink(self.disk, name_raw)
        if result < 0:
            raise os_failure(result, b"removing a file", path)


cdef int write_in_pieces(
    FileSystem filesystem, void* file, const uint8_t* data, size_t size, uint64_t offset
) noexcept nogil:
    cdef size_t piece, done = 0
    cdef int result
    while done < size:
        piece = min(size - done, <size_t> PIECE_BYTES)
        result = filesystem.ops.pwrite(filesystem.disk, file, data + done, piece, offset + done)
        if result >= 0:
            result = filesystem.ops.write_back(filesystem.disk, file, offset + done, piece)
        if result < 0:
            return result
        done += piece
    return 0


cdef void* open_file(FileSystem filesystem, str path, int mode) except NULL:
    cdef bytes raw = os.fsencode(path)
    cdef const char* name = raw
    cdef void* file = NULL
    cdef int result
    with nogil:
        result = filesystem.ops.open(filesystem.disk, name, mode, &file)
    if result < 0:
        raise os_failure(result, b"opening a file", path)
    return file


cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefault(const char* name)


cdef int collect_name(void* context, const char* name) noexcept nogil:
    # In C: no signal's handler may raise here, and a name that can't be taken ends the listing.
    with gil:
        try:
            (<list> context).append(PyUnicode_DecodeFSDefault(name))
        except MemoryError:
            return -ENOMEM
    return 0


cdef object os_failure(int result, const char* what, str path):
    cdef Status status
    status_os_error(&status, -result, what, -1)
    return status_error(&status, path)


cdef list list_directory(FileSystem filesystem, str path):
    cdef list names = []
    cdef bytes encoded = os.fsencode(path)
    cdef const char* raw = encoded
    cdef int result
    with nogil:
        result = filesystem.ops.list(filesystem.disk, raw, <void*> names, collect_name)
    if result < 0:
        raise os_failure(result, b"listing a directory", path)
    names.sort()
    return names
