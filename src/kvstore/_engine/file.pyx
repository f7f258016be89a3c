"""FileSystem is the base of the disks that an engine can stand on; see file.pxd."""

import os

from kvstore._engine.status cimport Status, status_error, status_os_error


cdef class FileSystem:
    def __init__(self):
        if type(self) is FileSystem:
            raise TypeError("FileSystem is abstract; use PosixFileSystem or MemoryFileSystem")


cdef int collect_name(void* context, const char* name) noexcept nogil:
    with gil:
        (<list> context).append(os.fsdecode(<bytes> name))
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
