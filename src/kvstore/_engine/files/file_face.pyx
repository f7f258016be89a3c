"""A Python face of the table of file.pxd, so that tests can hold every disk to the same rules."""

import os

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from kvstore._engine.files.native cimport FileSystem, list_directory

MODES = {"read": 0, "write": 1, "create": 2, "exclusive": 3}


cdef int64_t checked(int64_t result, str path) except -1:
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class OpenFile:
    """A file of some disk; every method raises OSError with the table's errno."""
    cdef FileSystem filesystem
    cdef str path
    cdef void* file

    cdef int check(self) except -1:
        if self.file == NULL:
            raise ValueError("the file is not open")
        return 0

    def pwrite(self, const uint8_t[::1] data not None, uint64_t offset):
        cdef size_t size = data.shape[0]
        cdef const uint8_t* at = &data[0] if size else NULL
        cdef int result
        self.check()
        with nogil:
            result = self.filesystem.ops.pwrite(self.filesystem.disk, self.file, at, size, offset)
        checked(result, self.path)

    def pread(self, size_t size, uint64_t offset):
        cdef bytearray into = bytearray(size + 1)
        cdef uint8_t* at = <uint8_t*> (<char*> into)
        cdef int64_t result
        self.check()
        with nogil:
            result = self.filesystem.ops.pread(self.filesystem.disk, self.file, at, size, offset)
        return bytes(into[: checked(result, self.path)])

    def write_back(self, uint64_t offset, uint64_t size):
        cdef int result
        self.check()
        with nogil:
            result = self.filesystem.ops.write_back(
                self.filesystem.disk, self.file, offset, size
            )
        checked(result, self.path)

    def datasync(self):
        cdef int result
        self.check()
        with nogil:
            result = self.filesystem.ops.datasync(self.filesystem.disk, self.file)
        checked(result, self.path)

    def allocate(self, uint64_t size):
        self.check()
        checked(self.filesystem.ops.allocate(self.filesystem.disk, self.file, size), self.path)

    def truncate(self, uint64_t size):
        self.check()
        checked(self.filesystem.ops.truncate(self.filesystem.disk, self.file, size), self.path)

    def size(self):
        self.check()
        return checked(self.filesystem.ops.size(self.filesystem.disk, self.file), self.path)

    def close(self):
        cdef void* file = self.file
        self.file = NULL
        if file != NULL:
            checked(self.filesystem.ops.close(self.filesystem.disk, file), self.path)


def open_file(FileSystem filesystem not None, str path, str mode="create"):
    cdef OpenFile result = OpenFile()
    cdef bytes raw = os.fsencode(path)
    result.filesystem = filesystem
    result.path = path
    cdef void* file = NULL
    checked(filesystem.ops.open(filesystem.disk, raw, MODES[mode], &file), path)
    result.file = file
    return result


def lock(FileSystem filesystem not None, str path):
    cdef OpenFile result = OpenFile()
    cdef bytes raw = os.fsencode(path)
    result.filesystem = filesystem
    result.path = path
    cdef void* file = NULL
    checked(filesystem.ops.lock(filesystem.disk, raw, &file), path)
    result.file = file
    return result


def rename(FileSystem filesystem not None, str old, str new):
    checked(filesystem.ops.rename(filesystem.disk, os.fsencode(old), os.fsencode(new)), old)


def link(FileSystem filesystem not None, str old, str new):
    checked(filesystem.ops.link(filesystem.disk, os.fsencode(old), os.fsencode(new)), old)


def unlink(FileSystem filesystem not None, str path):
    checked(filesystem.ops.unlink(filesystem.disk, os.fsencode(path)), path)


def make_directory(FileSystem filesystem not None, str path):
    checked(filesystem.ops.make_directory(filesystem.disk, os.fsencode(path)), path)


def remove_directory(FileSystem filesystem not None, str path):
    checked(filesystem.ops.remove_directory(filesystem.disk, os.fsencode(path)), path)


def sync_directory(FileSystem filesystem not None, str path):
    checked(filesystem.ops.sync_directory(filesystem.disk, os.fsencode(path)), path)


def names(FileSystem filesystem not None, str path):
    return list_directory(filesystem, path)


def kind(FileSystem filesystem not None, str path):
    """1 a file, 2 a directory."""
    return checked(filesystem.ops.kind(filesystem.disk, os.fsencode(path)), path)


def free_bytes(FileSystem filesystem not None, str path):
    return checked(filesystem.ops.free_bytes(filesystem.disk, os.fsencode(path)), path)
