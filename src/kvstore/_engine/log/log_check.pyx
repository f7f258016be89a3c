"""The check of a segment that is written no more, a piece at a time, beside the log that is open."""

import os

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    OK,
    Status,
    status_clear,
    status_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystem


# Freeing it still needs the disk: the collector must not clear the reference first.
@cython.no_gc_clear
cdef class SegmentCheck:
    """Every record of one segment, and that it ends where the segment after it says.

    That one must be there: the newest segment is still written. One thread at a time.
    """
    cdef FileSystem disk
    cdef str path
    cdef uint64_t number
    cdef SegmentReader reader
    cdef bint opened

    def __init__(self, FileSystem disk not None, str path, uint64_t number):
        if self.disk is not None:
            raise TypeError("a segment is checked once")
        self.disk = disk
        self.path = path
        self.number = number

    def __dealloc__(self):
        if self.opened:
            segment_close(&self.reader)

    def step(self, uint64_t bytes_max, *, bint forget=True):
        """Check about so many more bytes, a record at least: returns how many, 0 after the end."""
        cdef Status status
        cdef RecordHeader record
        cdef const uint8_t* payload = NULL
        cdef bytes raw = os.fsencode(segment_name(self.path, self.number))
        cdef const char* name = raw
        cdef uint64_t first = self.reader.position
        cdef int result = 1
        if self.disk is None:
            raise TypeError("a segment that was not named")
        status_clear(&status)
        with nogil:
            if not self.opened:
                self.opened = True
                result = -1 if segment_open(
                    &self.reader, self.disk.ops, self.disk.disk, name, &status
                ) else 1
                if result > 0 and self.reader.header.number != self.number:
                    result = status_set(
                        &status, INVALID_RECORD, b"log segment under the name of another one", 8
                    )
            if result > 0 and forget:
                self.disk.ops.forget(self.disk.disk, self.reader.file, first, bytes_max)
            while result > 0 and self.reader.position < first + bytes_max:
                result = segment_next(&self.reader, &record, &payload, &status)
            if result >= 0 and forget:
                self.disk.ops.forget(
                    self.disk.disk, self.reader.file, first, self.reader.position - first
                )
        if result == 0:
            self.check_end()
        elif result < 0:
            raise status_error(&status, segment_name(self.path, self.number))
        return self.reader.position - first

    cdef int check_end(self) except -1:
        """The successor says where this one ends: the rest is zeros, or an older use of the file."""
        cdef Status status
        cdef SegmentReader after
        cdef str where = segment_name(self.path, self.number + 1)
        cdef bytes raw = os.fsencode(where)
        cdef const char* name = raw
        cdef int result
        status_clear(&status)
        try:
            with nogil:
                result = segment_open(&after, self.disk.ops, self.disk.disk, name, &status)
            if result:
                raise status_error(&status, where)
            if (
                after.header.previous_end == self.reader.position
                and after.header.chain == self.reader.chain
                and memcmp(after.header.log_id, self.reader.header.log_id, ID_BYTES) == 0
            ):
                return 0
        finally:
            segment_close(&after)
        if self.reader.stop.code != OK:
            raise status_error(&self.reader.stop, segment_name(self.path, self.number))
        status_set(
            &status, INVALID_RECORD, b"log segment ends elsewhere than the next one says",
            <int64_t> self.reader.position,
        )
        raise status_error(&status, segment_name(self.path, self.number))
