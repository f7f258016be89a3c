"""Errors that go away by themselves; see retry.pxd.

The reserve is a file of a mebibyte. On a disk that is full, giving it back lets the log, a flush or
a compaction write what makes room: the log of deletes, a small table, the new manifest.
"""

import os
import time
from errno import EDQUOT, EMFILE, ENFILE, ENOSPC

from libc.stdint cimport int64_t

from kvstore._engine.files.native cimport remove_file
from kvstore._engine.files.native cimport OPEN_CREATE, FileSystem

from kvstore.errors import StorageError

cdef enum:
    RESERVE_BYTES = 1 << 20
    MOST_PASSED_OVER = 64
    ROOM_BYTES = 8 << 20        # so much must be free for it to be taken again

cdef double FIRST_DELAY_SECONDS = 0.1
cdef double LAST_DELAY_SECONDS = 5.0


cdef bint is_retryable(object error):
    return isinstance(error, MemoryError) or (isinstance(error, StorageError) and error.retryable)


cdef bint is_lack_of_space(object error):
    return isinstance(error, StorageError) and error.errno in (ENOSPC, EDQUOT)


cdef bint is_lack_of_descriptors(object error):
    return isinstance(error, StorageError) and error.errno in (EMFILE, ENFILE)


cdef class Retry:
    cdef int failed(self, object error) except -1:
        self.error = error
        self.delay_seconds = min(
            max(self.delay_seconds * 2, FIRST_DELAY_SECONDS), LAST_DELAY_SECONDS
        )
        self.due = time.monotonic() + self.delay_seconds
        self.pass_over = min(max(self.pass_over * 2, 1), MOST_PASSED_OVER)
        self.passed_over = 0
        return 0

    cdef int succeeded(self) except -1:
        self.error = None
        self.delay_seconds = self.due = 0
        self.pass_over = self.passed_over = 0
        return 0

    cdef double seconds_left(self) except -1:
        return max(0.0, self.due - <double> time.monotonic()) if self.due else 0.0

    cdef bint due_here(self) noexcept:
        if self.passed_over == self.pass_over:
            return True
        self.passed_over += 1
        return False


cdef bint take_reserve(FileSystem disk, str directory):
    cdef bytes raw = os.fsencode(f"{directory}/{RESERVE}")
    cdef const char* path = raw
    cdef void* file = NULL
    cdef int result
    with nogil:
        result = disk.ops.open(disk.disk, path, OPEN_CREATE, &file)
        if result >= 0:
            if disk.ops.size(disk.disk, file) < RESERVE_BYTES:
                result = disk.ops.allocate(disk.disk, file, RESERVE_BYTES)
            disk.ops.close(disk.disk, file)
            if result < 0:
                # A part of it is no help to anybody.
                disk.ops.unlink(disk.disk, path)
    return result >= 0


cdef bint has_room(FileSystem disk, str directory):
    cdef bytes raw = os.fsencode(directory)
    cdef const char* at = raw
    cdef int64_t free_bytes
    with nogil:
        free_bytes = disk.ops.free_bytes(disk.disk, at)
    return free_bytes >= ROOM_BYTES


cdef bint release_reserve(FileSystem disk, str directory):
    try:
        return remove_file(disk, f"{directory}/{RESERVE}")
    except StorageError:
        return False
