"""The one durable log. Bytes: log_format.pxd. Reading: log_read.pyx. Ownership: log.pxd.

Appending fills memory; one flusher at a time moves what gathered into the segment's file and, when
asked, makes it durable with one sync (group commit). The first write or sync that fails ends the
log: nothing is tried again, because after a failed sync the kernel may report pages as clean that
never reached the disk ("Can Applications Recover from fsync Failures?", ATC'20).

Crash rules. A segment appears under its name only after its header is durable. Before the next one
begins, all records of a segment are durable, and the next header says where they end. So the end of
every segment but the newest is known exactly, and in the newest one a record's `synced` field
proves how far the log had been durable when that record was made: whatever lies below is never cut.
"""

import os
import threading
from typing import NamedTuple

from cython.operator cimport dereference
from libc.errno cimport EEXIST, ENOENT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kvstore._engine.crc32c cimport crc32c_extend
from kvstore._engine.file cimport (
    OPEN_CREATE,
    OPEN_READ,
    OPEN_WRITE,
    FileSystem,
    list_directory,
    os_failure,
)
from kvstore._engine.log_format cimport (
    KIND_CLEAN_CLOSE,
    KIND_SYNC_MARK,
    KIND_USER_MAX,
    MAX_PAYLOAD_BYTES,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    RecordHeader,
    SegmentHeader,
    encode_record_header,
    encode_segment_header,
    record_bytes,
)
from kvstore._engine.log_read cimport (
    SegmentReader,
    segment_close,
    segment_end_was_durable,
    segment_next,
    segment_open,
)
from kvstore._engine.posix import PosixFileSystem
from kvstore._engine.slice cimport Slice, slice_of
from kvstore._engine.status cimport (
    CHECKSUM_MISMATCH,
    INVALID_MAGIC,
    INVALID_RECORD,
    OK,
    TRUNCATED_RECORD,
    Status,
    status_clear,
    status_error,
    status_os_error,
    status_set,
)
from kvstore.errors import ClosedError, InvalidArgumentError


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    ssize_t os_write "write"(int fd, const void* data, size_t size)
    int os_close "close"(int fd)


cdef enum:
    PATH_BYTES = 4096
    MIN_SEGMENT_BYTES = 4096
    DEFAULT_SEGMENT_BYTES = 67108864


class Recovery(NamedTuple):
    """What opening a log found. Its docstring is in log.pyi."""

    records: int
    segments: int
    cut_bytes: int
    cut_path: str | None
    cut_offset: int
    clean: bool


cdef void segment_path(char* into, const char* folder, uint64_t number, const char* suffix) noexcept nogil:
    snprintf(into, PATH_BYTES, b"%s/%06llu.%s", folder, <unsigned long long> number, suffix)


cdef class Log:
    def __cinit__(self):
        self.event = -1
        status_clear(&self.failure)

    def __init__(
        self, path, *, FileSystem filesystem=None, uint64_t segment_bytes=DEFAULT_SEGMENT_BYTES,
        sticky_kinds=(), bint read_only=False, bint maps=False,
    ):
        if segment_bytes < MIN_SEGMENT_BYTES:
            raise InvalidArgumentError(f"segment_bytes={segment_bytes} is below {MIN_SEGMENT_BYTES}")
        self.filesystem = PosixFileSystem() if filesystem is None else filesystem
        self.ops = self.filesystem.ops
        self.disk = self.filesystem.disk
        self.path = os.fspath(path)
        self.path_bytes = os.fsencode(self.path)
        if len(self.path_bytes) > PATH_BYTES - 32:
            raise InvalidArgumentError(f"path of {len(self.path_bytes)} bytes is too long")
        self.segment_bytes = segment_bytes
        self.read_only = read_only
        self.maps = maps
        self.sealed = {}
        self.sticky = [None] * (KIND_USER_MAX + 1)
        for kind in sticky_kinds:
            self.sticky[kind] = False
        cdef int result
        self.folder = self.path_bytes
        if not read_only:
            result = self.ops.make_directory(self.disk, self.folder)
            if result < 0 and result != -EEXIST:
                raise os_failure(result, b"making the log's directory", self.path)
        self.recover()

    # --- opening -------------------------------------------------------------------------------

    cdef void recover(self) except *:
        cdef SegmentReader reader
        cdef Status status
        cdef RecordHeader record
        cdef const uint8_t* payload = NULL
        cdef uint64_t number = 0, previous = 0, end = 0, max_index, records = 0, cut = 0
        cdef uint32_t chain = 0
        cdef int result
        cdef bint clean = True
        cdef bytes raw
        numbers = []
        for name in list_directory(self.filesystem, self.path):
            stem, _, suffix = name.partition(".")
            if suffix == "wal" and stem.isdecimal():
                numbers.append(int(stem))
            elif suffix in ("spare", "trusted") and not self.read_only:
                raw = os.fsencode(f"{self.path}/{name}")
                self.ops.unlink(self.disk, raw)
        numbers.sort()
        for number in numbers:
            where = self.segment_name(number)
            if previous and number != previous + 1:
                status_set(&status, INVALID_RECORD, b"a log segment before this one is missing", -1)
                raise status_error(&status, where)
            raw = os.fsencode(where)
            status_clear(&status)
            try:
                if segment_open(&reader, self.ops, self.disk, raw, &status):
                    raise status_error(&status, where)
                if reader.header.number != number:
                    status_set(&status, INVALID_RECORD, b"log segment under another one's name", 8)
                    raise status_error(&status, where)
                if previous and (reader.header.previous_end != end or reader.header.chain != chain):
                    # Not `where`: the segment before is the one that doesn't end where it did.
                    raise self.broken_end(previous, end, reader.header.previous_end)
                max_index = 0
                while True:
                    result = segment_next(&reader, &record, &payload, &status)
                    if result <= 0:
                        break
                    if record.kind > KIND_USER_MAX:
                        continue
                    records += 1
                    max_index = max(max_index, record.index)
                    if self.sticky[record.kind] is not None:
                        self.sticky[record.kind] = (
                            record.index, record.term, <bytes> payload[: record.payload_bytes]
                        )
                if result < 0:
                    raise status_error(&status, where)
                end = reader.position
                chain = reader.chain
                clean = reader.clean
                if number == numbers[len(numbers) - 1]:
                    cut = self.judge_end(&reader, where)
                self.sealed[number] = max_index
            finally:
                segment_close(&reader)
            previous = number
        self.append_segment = previous
        self.append_offset = end
        self.chain = chain
        if previous and not clean and not self.read_only:
            self.trust_tail(previous, end)
        self.recovery = Recovery(
            records=records, segments=len(numbers), cut_bytes=cut,
            cut_path=self.segment_name(previous) if cut else None, cut_offset=end if cut else 0,
            clean=clean and not cut,
        )

    def broken_end(self, uint64_t number, uint64_t end, uint64_t promised):
        """The error for a segment whose records don't end where its successor says they did."""
        cdef SegmentReader reader
        cdef Status status
        cdef RecordHeader record
        cdef const uint8_t* payload = NULL
        where = self.segment_name(number)
        cdef bytes raw = os.fsencode(where)
        status_clear(&status)
        try:
            if segment_open(&reader, self.ops, self.disk, raw, &status) == 0:
                while segment_next(&reader, &record, &payload, &status) > 0:
                    pass
                if status.code == OK:
                    status = reader.stop
        finally:
            segment_close(&reader)
        if status.code == OK:
            status_set(
                &status, TRUNCATED_RECORD if end < promised else INVALID_RECORD,
                b"log segment does not end where the next one says", <int64_t> end,
            )
        return status_error(&status, where)

    cdef uint64_t judge_end(self, SegmentReader* reader, str where) except? 0xFFFFFFFFFFFFFFFF:
        """Bytes of a torn tail that may be cut from the newest segment; raises where it is damage."""
        cdef Status status
        status_clear(&status)
        cdef int code = reader.stop.code
        cdef int durable
        if code not in (OK, CHECKSUM_MISMATCH, TRUNCATED_RECORD, INVALID_MAGIC):
            # The header is intact, so no torn write made it.
            raise status_error(&reader.stop, where)
        durable = segment_end_was_durable(reader, &status)
        if durable < 0:
            raise status_error(&status, where)
        if durable:
            if code == OK:
                status_set(
                    &reader.stop, TRUNCATED_RECORD, b"durable log records are gone",
                    <int64_t> reader.position,
                )
            raise status_error(&reader.stop, where)
        return reader.file_bytes - reader.position if code != OK else 0

    cdef void trust_tail(self, uint64_t number, uint64_t end) except *:
        """Replaces the newest segment with a synced copy of its valid part.

        The pages that were read may be a cache's memory of a write that the disk refused.
        """
        cdef char name[PATH_BYTES]
        cdef char copy[PATH_BYTES]
        cdef bytes buffer = bytes(1 << 20)
        cdef uint8_t* raw = <uint8_t*> (<char*> buffer)
        cdef void* source = NULL
        cdef void* target = NULL
        cdef uint64_t offset = 0
        cdef int64_t count
        cdef int result
        segment_path(name, self.folder, number, b"wal")
        segment_path(copy, self.folder, number, b"trusted")
        result = self.ops.open(self.disk, name, OPEN_READ, &source)
        if result == 0:
            result = self.ops.open(self.disk, copy, OPEN_CREATE, &target)
        with nogil:
            while result == 0 and offset < end:
                count = self.ops.pread(
                    self.disk, source, raw, <size_t> min(<uint64_t> (1 << 20), end - offset), offset
                )
                if count <= 0:
                    result = <int> count if count < 0 else -5
                    break
                result = self.ops.pwrite(self.disk, target, raw, <size_t> count, offset)
                offset += <uint64_t> count
            if result == 0:
                result = self.ops.datasync(self.disk, target)
        if source != NULL:
            self.ops.close(self.disk, source)
        if target != NULL:
            self.ops.close(self.disk, target)
        if result == 0:
            result = self.ops.rename(self.disk, copy, name)
        if result == 0:
            result = self.ops.sync_directory(self.disk, self.folder)
        if result < 0:
            raise os_failure(result, b"making the log's tail durable", self.segment_name(number))

    def segment_name(self, uint64_t number):
        return f"{self.path}/{number:06d}.wal"

    # --- appending -----------------------------------------------------------------------------

    cdef void begin_segment(self) except *:
        """The next record opens a new segment. Under `monitor`, with the GIL."""
        cdef Slice payload
        cdef uint64_t previous = self.append_segment
        self.pending.push_back(Chunk())
        cdef Chunk* chunk = &self.pending.back()
        if previous:
            self.sealed[previous] = max(self.append_max_index, self.sealed.get(previous, 0))
        self.append_segment = previous + 1
        chunk.segment = self.append_segment
        chunk.offset = SEGMENT_HEADER_BYTES
        chunk.previous_end = self.append_offset
        chunk.chain = self.chain
        self.append_offset = SEGMENT_HEADER_BYTES
        self.append_max_index = 0
        self.segment_limit = self.segment_bytes
        for kind, held in enumerate(self.sticky):
            if held:
                index, term, content = held
                payload = slice_of(<const char*> (<bytes> content), len(<bytes> content))
                self.put_record(kind, index, term, payload)

    cdef void put_record(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil:
        """Encodes one record at the end of what is pending. Under `monitor`."""
        cdef RecordHeader header
        cdef Chunk* chunk
        cdef uint64_t size = record_bytes(payload.size)
        if self.pending.empty() or self.pending.back().segment != self.append_segment:
            self.pending.push_back(Chunk())
            chunk = &self.pending.back()
            chunk.segment = self.append_segment
            chunk.offset = self.append_offset
        chunk = &self.pending.back()
        cdef size_t start = chunk.bytes.size()
        chunk.bytes.resize(start + size)
        cdef uint8_t* at = chunk.bytes.data() + start
        header.kind = kind
        header.payload_bytes = <uint32_t> payload.size
        header.segment = <uint32_t> self.append_segment
        header.chain = self.chain
        header.index = index
        header.term = term
        header.synced = self.durable_offset if self.durable_segment == self.append_segment else 0
        header.payload_crc = crc32c_extend(0, payload.data, payload.size)
        encode_record_header(at, &header)
        if payload.size:
            memcpy(at + RECORD_HEADER_BYTES, payload.data, payload.size)
        self.chain = header.header_crc
        self.append_offset += size
        self.appended += size
        if index > self.append_max_index:
            self.append_max_index = index

    cdef int append_slice(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ):
        if payload.size > MAX_PAYLOAD_BYTES:
            return status_set(status, INVALID_RECORD, b"log record larger than the limit", -1)
        self.monitor.lock()
        if self.failure.code:
            status[0] = self.failure
            self.monitor.unlock()
            return -1
        if self.append_offset + record_bytes(payload.size) > self.segment_limit and (
            self.append_offset > SEGMENT_HEADER_BYTES or self.segment_limit == 0
        ):
            self.begin_segment()
        self.put_record(kind, index, term, payload)
        self.monitor.unlock()
        return 0

    def append(self, int kind, uint64_t index, uint64_t term, const uint8_t[::1] payload):
        cdef Status status
        cdef Slice content = slice_of(&payload[0] if payload.shape[0] else NULL, payload.shape[0])
        self.check_writable()
        if not 1 <= kind <= KIND_USER_MAX:
            raise InvalidArgumentError(f"log record kind {kind} is not within 1 and {KIND_USER_MAX}")
        if self.append_slice(kind, index, term, content, &status):
            raise self.error(&status)
        if self.sticky[kind] is not None:
            self.sticky[kind] = (index, term, bytes(payload))
        return self.appended

    def append_many(self, records):
        for kind, index, term, payload in records:
            self.append(kind, index, term, payload)
        return self.appended

    # --- writing and syncing -------------------------------------------------------------------

    cdef int leave_segment(self, Status* status) noexcept nogil:
        """Makes the current segment durable and lets go of it."""
        if self.file == NULL:
            return 0
        cdef int result = self.ops.datasync(self.disk, self.file)
        if self.memory != NULL:
            self.ops.unmap(self.disk, self.file, self.memory, <size_t> self.file_capacity)
            self.memory = NULL
        self.ops.close(self.disk, self.file)
        self.file = NULL
        return status_os_error(status, -result, b"syncing the log", -1) if result < 0 else 0

    cdef int enter_segment(self, Chunk* chunk, Status* status) noexcept nogil:
        cdef char name[PATH_BYTES]
        cdef char spare[PATH_BYTES]
        cdef uint8_t header_bytes[SEGMENT_HEADER_BYTES]
        cdef SegmentHeader header
        cdef uint64_t recycled
        cdef int result
        cdef uint64_t wanted = chunk.offset + chunk.bytes.size()
        cdef int64_t size
        if self.leave_segment(status):
            return -1
        self.monitor.lock()
        recycled = self.spare
        self.spare = 0
        self.monitor.unlock()
        segment_path(name, self.folder, chunk.segment, b"wal")
        segment_path(spare, self.folder, recycled if recycled else chunk.segment, b"spare")
        result = self.ops.open(self.disk, spare, OPEN_WRITE if recycled else OPEN_CREATE, &self.file)
        if result < 0:
            self.file = NULL
            return status_os_error(status, -result, b"opening a new log segment", -1)
        size = self.ops.size(self.disk, self.file)
        self.file_capacity = max(self.segment_bytes, wanted)
        if size >= <int64_t> self.file_capacity:
            self.file_capacity = <uint64_t> size
        else:
            result = self.ops.allocate(self.disk, self.file, self.file_capacity)
            if result < 0:
                return status_os_error(status, -result, b"allocating a log segment", -1)
        header.number = chunk.segment
        header.previous_end = chunk.previous_end
        header.chain = chunk.chain
        encode_segment_header(header_bytes, &header)
        result = self.ops.pwrite(self.disk, self.file, header_bytes, SEGMENT_HEADER_BYTES, 0)
        if result == 0:
            result = self.ops.datasync(self.disk, self.file)
        if result == 0:
            result = self.ops.rename(self.disk, spare, name)
        if result == 0:
            result = self.ops.sync_directory(self.disk, self.folder)
        if result < 0:
            return status_os_error(status, -result, b"beginning a log segment", -1)
        self.file_segment = chunk.segment
        self.file_end = SEGMENT_HEADER_BYTES
        if self.maps and self.ops.map(self.disk, self.file, <size_t> self.file_capacity, &self.memory) < 0:
            self.memory = NULL
        return 0

    cdef int write_chunk(self, Chunk* chunk, bint durably, Status* status) noexcept nogil:
        cdef uint64_t end = chunk.offset + chunk.bytes.size()
        cdef int result
        if chunk.segment != self.file_segment and self.enter_segment(chunk, status):
            return -1
        # A store through the map costs a quarter of a call of the system, but a page that is
        # stored to after each sync faults each time: so only for what is not synced at once.
        if self.memory != NULL and not durably and end <= self.file_capacity:
            memcpy(self.memory + chunk.offset, chunk.bytes.data(), chunk.bytes.size())
        else:
            result = self.ops.pwrite(
                self.disk, self.file, chunk.bytes.data(), chunk.bytes.size(), chunk.offset
            )
            if result < 0:
                return status_os_error(status, -result, b"writing the log", <int64_t> chunk.offset)
        self.file_end = end
        return 0

    cdef int flush(self, uint64_t ticket, bint durably, Status* status) noexcept nogil:
        cdef deque[Chunk] taken
        cdef uint64_t target
        cdef int result = 0
        self.monitor.lock()
        while True:
            if self.failure.code:
                status[0] = self.failure
                self.monitor.unlock()
                return -1
            if (self.durable if durably else self.written) >= ticket:
                self.monitor.unlock()
                return 0
            if not self.flushing:
                break
            self.monitor.wait()
        self.flushing = True
        taken.swap(self.pending)
        target = self.appended
        self.monitor.unlock()

        status_clear(status)
        while result == 0 and not taken.empty():
            result = self.write_chunk(&taken.front(), durably, status)
            taken.pop_front()
        if result == 0 and durably:
            result = self.ops.datasync(self.disk, self.file)
            if result < 0:
                status_os_error(status, -result, b"syncing the log", -1)

        self.monitor.lock()
        if result == 0:
            self.written = target
            if durably:
                self.durable = target
                self.durable_segment = self.file_segment
                self.durable_offset = self.file_end
                self.syncs += 1
                if self.pending.empty() and not self.stopping:
                    result = self.leave_mark(status)
        if status.code:
            self.failure = status[0]
        self.flushing = False
        self.monitor.notify()
        self.monitor.unlock()
        # What was asked for may be durable although the mark after it failed; the next call says so.
        return 0 if (self.durable if durably else self.written) >= ticket else -1

    cdef int leave_mark(self, Status* status) noexcept nogil:
        """Writes, unsynced, that all so far is durable, since no record follows that would say it.

        Under `monitor`, with nothing pending; so short a write is not worth letting go of it.
        """
        cdef Chunk chunk
        self.put_record(KIND_SYNC_MARK, 0, 0, slice_of(NULL, 0))
        chunk = self.pending.back()
        self.pending.clear()
        self.written = self.durable = self.appended
        return self.write_chunk(&chunk, True, status)

    cdef int write_out(self, Status* status) noexcept nogil:
        return self.flush(self.appended, False, status)

    cdef int sync_to(self, uint64_t ticket, Status* status) noexcept nogil:
        return self.flush(ticket, True, status)

    def write(self):
        cdef Status status
        self.check_writable()
        cdef int result
        with nogil:
            result = self.write_out(&status)
        if result:
            raise self.error(&status)

    def sync(self):
        cdef Status status
        cdef int result
        self.check_writable()
        cdef uint64_t ticket = self.appended
        with nogil:
            result = self.sync_to(ticket, &status)
        if result:
            raise self.error(&status)

    # --- the writer thread ---------------------------------------------------------------------

    def start_writer(self):
        self.check_writable()
        if self.writer is not None:
            raise InvalidArgumentError("the log's writer thread runs already")
        self.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.event < 0:
            raise OSError("no event descriptor for the log's writer thread")
        self.writer = threading.Thread(target=self._write_loop, name="kvstore-log", daemon=True)
        self.writer.start()
        return self.event

    def _write_loop(self):
        with nogil:
            self.run_writer()

    cdef void run_writer(self) noexcept nogil:
        cdef uint64_t one = 1
        cdef uint64_t ticket
        cdef Status status
        while True:
            self.monitor.lock()
            while self.submitted <= self.durable and not self.stopping and not self.failure.code:
                self.monitor.wait()
            if self.stopping or self.failure.code:
                self.monitor.unlock()
                # Whoever waits for a ticket must look, and find the failure.
                os_write(self.event, &one, 8)
                return
            ticket = self.submitted
            self.monitor.unlock()
            self.sync_to(ticket, &status)
            os_write(self.event, &one, 8)

    def submit(self):
        self.check_writable()
        self.monitor.lock()
        self.submitted = self.appended
        self.monitor.notify()
        self.monitor.unlock()
        return self.submitted

    @property
    def durable_ticket(self):
        self.check_failed()
        return self.durable

    @property
    def notify_fd(self):
        return self.event

    # --- keeping it small ----------------------------------------------------------------------

    def remove_before(self, uint64_t index):
        cdef char name[PATH_BYTES]
        cdef char spare[PATH_BYTES]
        cdef int result
        cdef uint64_t number
        cdef bint recycle
        self.check_writable()
        removed = 0
        for number in sorted(self.sealed):
            # The newest sealed segment may still be the flusher's; the one appended to is not here.
            if self.sealed[number] >= index or number >= self.append_segment:
                break
            self.monitor.lock()
            busy = number >= self.file_segment and self.file != NULL
            unflushed = not self.pending.empty() and self.pending.front().segment <= number
            recycle = self.spare == 0
            self.monitor.unlock()
            if busy or unflushed:
                break
            segment_path(name, self.folder, number, b"wal")
            segment_path(spare, self.folder, number, b"spare")
            with nogil:
                result = (
                    self.ops.rename(self.disk, name, spare) if recycle
                    else self.ops.unlink(self.disk, name)
                )
                # One by one and in order, so that no crash can leave a gap between segments.
                if result == 0 or result == -ENOENT:
                    result = self.ops.sync_directory(self.disk, self.folder)
            if result < 0:
                raise os_failure(result, b"removing a log segment", self.segment_name(number))
            if recycle:
                self.monitor.lock()
                self.spare = number
                self.monitor.unlock()
            del self.sealed[number]
            removed += 1
        return removed

    # --- reading back --------------------------------------------------------------------------

    def replay(self):
        return LogReplay(self, sorted(self.sealed))

    # --- ending --------------------------------------------------------------------------------

    def close(self):
        cdef Status status
        cdef int result = 0
        if self.closed:
            return
        self.closed = True
        status_clear(&status)
        self.monitor.lock()
        self.stopping = True
        self.monitor.notify()
        self.monitor.unlock()
        if self.writer is not None:
            self.writer.join()
        if not self.read_only and self.failure.code == OK and self.append_segment and self.segment_limit:
            with nogil:
                result = self.sync_to(self.appended, &status)
                if result == 0:
                    self.monitor.lock()
                    self.put_record(KIND_CLEAN_CLOSE, 0, 0, slice_of(NULL, 0))
                    self.monitor.unlock()
                    result = self.sync_to(self.appended, &status)
                if result == 0 and self.memory == NULL:
                    # Gives back what was preallocated and not used.
                    self.ops.truncate(self.disk, self.file, self.file_end)
        self.release()
        if result:
            raise self.error(&status)

    cdef void release(self) noexcept:
        cdef Status status
        if self.file != NULL:
            if self.memory != NULL:
                self.ops.unmap(self.disk, self.file, self.memory, <size_t> self.file_capacity)
                self.memory = NULL
                if self.closed and self.failure.code == OK:
                    self.ops.truncate(self.disk, self.file, self.file_end)
            self.ops.close(self.disk, self.file)
            self.file = NULL
        if self.event >= 0:
            os_close(self.event)
            self.event = -1

    def __dealloc__(self):
        if self.ops != NULL:
            self.release()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # --- saying what is wrong ------------------------------------------------------------------

    cdef object error(self, Status* status):
        return status_error(status, self.path)

    def check_failed(self):
        if self.failure.code:
            raise self.error(&self.failure)

    def check_writable(self):
        if self.closed:
            raise ClosedError(f"the log {self.path} is closed")
        if self.read_only:
            raise InvalidArgumentError(f"the log {self.path} was opened for reading only")
        self.check_failed()

    def stats(self):
        return {
            "appended_bytes": self.appended,
            "durable_bytes": self.durable,
            "syncs": self.syncs,
            "segments": len(self.sealed) + (self.append_segment not in self.sealed),
            "segment": self.append_segment,
        }


cdef class LogReplay:
    """Iterates over the records of a log's sealed segments; streams, one segment open at a time."""
    cdef Log log
    cdef list numbers
    cdef SegmentReader reader
    cdef bint reading

    def __init__(self, Log log, list numbers):
        self.log = log
        self.numbers = numbers

    def __iter__(self):
        return self

    def __next__(self):
        cdef Status status
        cdef RecordHeader record
        cdef const uint8_t* payload = NULL
        cdef int result
        cdef bytes raw
        status_clear(&status)
        while True:
            if not self.reading:
                if not self.numbers:
                    raise StopIteration
                where = self.log.segment_name(self.numbers.pop(0))
                raw = os.fsencode(where)
                self.reading = True
                if segment_open(&self.reader, self.log.ops, self.log.disk, raw, &status):
                    raise status_error(&status, where)
            result = segment_next(&self.reader, &record, &payload, &status)
            if result < 0:
                raise status_error(&status, self.log.path)
            if result == 0:
                segment_close(&self.reader)
                self.reading = False
            elif record.kind <= KIND_USER_MAX:
                return record.kind, record.index, record.term, <bytes> payload[: record.payload_bytes]

    def __dealloc__(self):
        if self.reading:
            segment_close(&self.reader)
