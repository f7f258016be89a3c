"""LogTail: see log_tail.pxd.

How far segments reach is the log's word: the newest one's as of its last sync, the older ones' as of
their end. Records below that don't change any more, so they are read without a lock.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    OK,
    Status,
    TRUNCATED_RECORD,
    status_set,
)


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class LogTail:
    def __init__(self, Log log not None):
        self.close()
        self.log = log
        self.segment = self.offset = 0
        self.at_head = False
        log.monitor.lock()
        self.end_segment = log.durable_segment
        self.end_offset = log.durable_offset
        log.monitor.unlock()

    def __dealloc__(self):
        self.close()

    def __reduce__(self):
        raise TypeError("a place in a log can't be copied or pickled")

    cdef void go_to_end(self) noexcept nogil:
        self.close()
        self.log.monitor.lock()
        self.segment = self.log.append_segment
        self.offset = self.log.append_offset
        self.chain = self.log.chain
        # Of a log that rests the last segment may be gone.
        self.at_head = self.segment != 0 and self.segment == self.log.rested
        self.segment += self.at_head
        self.log.monitor.unlock()

    cdef bint go_before(self, uint64_t index, uint64_t kept, uint64_t* oldest) noexcept:
        cdef Log log = self.log
        cdef Span* span
        cdef uint64_t number = 0
        cdef bint found = False
        oldest[0] = 0
        self.close()
        log.monitor.lock()
        cdef size_t i = log.sealed_count + (1 if log.append_limit else 0)
        while i > 0 and not found:
            i -= 1
            span = &log.append_span if i == log.sealed_count else &log.sealed[i]
            number = log.append_segment if i == log.sealed_count else log.sealed_first + i
            if number < kept:
                break
            if span.lowest:
                oldest[0] = span.lowest
                found = span.lowest <= index
        log.monitor.unlock()
        if found:
            self.segment = number
            self.at_head = True
        return found

    cdef int make_durable(self, Status* status) noexcept nogil:
        if not self.log.read_only and self.log.sync_to(self.log.position(), status):
            return -1
        self.log.monitor.lock()
        self.end_segment = self.log.durable_segment
        self.end_offset = self.log.durable_offset
        self.log.monitor.unlock()
        return 0

    cdef bint find_end(self, uint64_t* end) noexcept nogil:
        """Up to where its segment may be read. False: the segment is gone."""
        cdef bint there = True
        if self.segment == self.end_segment:
            end[0] = self.end_offset
            return True
        end[0] = 0
        if self.segment == 0 or self.segment > self.end_segment:
            return True
        self.log.monitor.lock()
        there = self.log.sealed_first <= self.segment < self.log.sealed_first + self.log.sealed_count
        if there:
            end[0] = self.log.sealed[self.segment - self.log.sealed_first].bytes
        self.log.monitor.unlock()
        return there

    cdef uint64_t position(self) noexcept nogil:
        if self.reading:
            return self.reader.position
        return SEGMENT_HEADER_BYTES if self.at_head else self.offset

    cdef int next(self, RecordHeader* record, const uint8_t** payload, Status* status) noexcept nogil:
        cdef uint64_t end
        cdef int result
        while True:
            if not self.find_end(&end):
                return status_set(status, INVALID_RECORD, b"the log segment is gone", -1)
            if self.position() >= end:
                if self.segment >= self.end_segment:
                    return 0
                self.leave()
                continue
            if not self.reading and self.enter(status):
                return -1
            self.reader.file_bytes = end
            result = segment_next(&self.reader, record, payload, status)
            if result < 0:
                return -1
            if result == 0:
                status[0] = self.reader.stop
                if status.code == OK:
                    status_set(
                        status, TRUNCATED_RECORD, b"log records are gone",
                        <int64_t> self.reader.position,
                    )
                return -1
            if record.kind <= KIND_USER_MAX:
                return 1

    cdef int enter(self, Status* status) noexcept nogil:
        """Opens the segment that the place is in."""
        cdef char name[PATH_BYTES]
        segment_path(name, self.log.folder, self.segment, b"wal")
        if segment_open(&self.reader, self.log.ops, self.log.disk, name, status):
            segment_close(&self.reader)
            return -1
        if self.reader.header.number != self.segment or memcmp(
            self.reader.header.log_id, self.log.log_id_raw, ID_BYTES
        ):
            segment_close(&self.reader)
            return status_set(status, INVALID_RECORD, b"log segment under another one's name", 8)
        # What it has read beyond wasn't there yet, perhaps.
        self.reader.buffer_size = SEGMENT_HEADER_BYTES
        if not self.at_head:
            self.reader.position = self.offset
            self.reader.chain = self.chain
        self.reading = True
        return 0

    cdef void leave(self) noexcept nogil:
        """To the head of the next segment."""
        self.close()
        self.segment += 1
        self.at_head = True

    cdef void close(self) noexcept nogil:
        if self.reading:
            self.offset = self.reader.position
            self.chain = self.reader.chain
            self.at_head = False
            segment_close(&self.reader)
            self.reading = False


cdef uint64_t segment_of_tail(Log log, uint64_t least_bytes) noexcept nogil:
    cdef uint64_t size, number
    log.monitor.lock()
    cdef size_t i = log.sealed_count
    size = log.append_offset if log.append_limit else 0
    while i > 0 and size < least_bytes:
        i -= 1
        size += log.sealed[i].bytes
    number = 0 if size < least_bytes else log.sealed_first + i if log.sealed_count else log.append_segment
    log.monitor.unlock()
    return number


cdef uint64_t oldest_sealed(Log log) noexcept nogil:
    log.monitor.lock()
    cdef uint64_t number = log.sealed_first if log.sealed_count else 0
    log.monitor.unlock()
    return number
