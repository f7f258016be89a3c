"""The one durable log. Bytes: log_format.pxd. Opening: log_recovery.pyx. Ownership: log.pxd.

Appending fills memory; one flusher at a time moves what gathered into the segment's file and, when
asked, makes it durable with one sync (group commit). The first write or sync that fails ends the
log: nothing is tried again, because after a failed sync the kernel may report pages as clean that
never reached the disk ("Can Applications Recover from fsync Failures?", ATC'20). Only the lack of
space for a new segment is no failure: it shows before anything was written, and within a segment
the space is reserved.

A segment appears under its name only after its header is durable, and its header only after all
records of the segment before it are: what log_recovery.pyx proves rests on this order.
"""

import os
import threading

from cython.operator cimport dereference
cimport cython
from libc.errno cimport EEXIST, ENOENT
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    IO_ERROR,
    OK,
    Slice,
    Status,
    crc32c_extend,
    slice_of,
    status_clear,
    status_error,
    status_os_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystem, os_failure
from kvstore._engine.files.native import PosixFileSystem

from kvstore.errors import ClosedError, InvalidArgumentError


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    ssize_t os_write "write"(int fd, const void* data, size_t size)
    int os_close "close"(int fd)


cdef enum:
    MIN_SEGMENT_BYTES = 4096
    DEFAULT_SEGMENT_BYTES = 67108864
    FORGET_BYTES = 4194304      # steps in which a map's memory is given back
    SYNC_FORGET_BYTES = 65536   # so much of it is given back before a sync
    DIRECT_BYTES = 1048576      # the largest record that is written without the log's own copy of it
    # Kept free at the end of a segment, so that the mark of a close always fits, and the file of a
    # log that was closed is always shorter than its segment.
    CLOSE_BYTES = RECORD_HEADER_BYTES + TERMINATOR_BYTES


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class Log:
    def __cinit__(self):
        self.event = -1
        # Until __init__ has gone through.
        self.closed = self.stopping = True
        status_clear(&self.failure)

    def __init__(
        self, path, *, FileSystem filesystem=None, uint64_t segment_bytes=DEFAULT_SEGMENT_BYTES,
        sticky_kinds=(), bint read_only=False, bint maps=False,
    ):
        if self.ops != NULL:
            raise InvalidArgumentError("a log object opens once")
        if not MIN_SEGMENT_BYTES <= segment_bytes <= 1 << 40:
            raise InvalidArgumentError(
                f"segment_bytes={segment_bytes} is not within {MIN_SEGMENT_BYTES} and 1 TiB"
            )
        for kind in sticky_kinds:
            check_kind(kind)
        self.filesystem = PosixFileSystem() if filesystem is None else filesystem
        self.ops = self.file.ops = self.filesystem.ops
        self.disk = self.file.disk = self.filesystem.disk
        self.path = self.filesystem.resolve(os.fsdecode(path))
        self.path_bytes = os.fsencode(self.path)
        if len(self.path_bytes) > PATH_BYTES - 32:
            raise InvalidArgumentError(f"path of {len(self.path_bytes)} bytes is too long")
        self.folder = self.file.folder = self.path_bytes
        self.file.segment_bytes = segment_bytes
        self.read_only = read_only
        self.file.maps = maps
        if not read_only:
            self.make_folder()
        self.start_from(recover(self.filesystem, self.path, frozenset(sticky_kinds), not read_only))
        for kind in sticky_kinds:
            self.sticky[<int> kind].wanted = True
        self.closed = self.stopping = False

    def __reduce__(self):
        raise TypeError("an open log can't be copied or pickled: hand on its path")

    cdef int make_folder(self) except -1:
        cdef int result = self.ops.make_directory(self.disk, self.folder)
        if result < 0 and result != -EEXIST:
            raise os_failure(result, b"making the log's directory", self.path)
        # Also where it exists: whoever made it may have died before this.
        parent = os.path.dirname(self.path)
        result = self.ops.sync_directory(self.disk, os.fsencode(parent))
        if result < 0:
            raise os_failure(result, b"syncing the directory above the log", parent)
        return 0

    cdef int start_from(self, Recovered found) except -1:
        cdef bytes content
        cdef Sticky* held
        self.recovery = found.summary
        self.found = sorted(found.max_index)
        for number, max_index in found.max_index.items():
            self.sealed[<uint64_t> number] = max_index
        for kind, (index, term, payload) in found.sticky.items():
            content = payload
            held = &self.sticky[<int> kind]
            held.known = True
            held.index = index
            held.term = term
            held.payload.assign(
                <const uint8_t*> (<const char*> content),
                <const uint8_t*> (<const char*> content) + len(content),
            )
        self.append_segment = found.number
        self.append_offset = found.end
        self.chain = found.chain
        return 0

    # --- appending; all under `monitor` ----------------------------------------------------------

    cdef int make_room(self, size_t payload_bytes, Status* status) noexcept nogil:
        """Begins a segment if the next record needs one."""
        if payload_bytes > MAX_PAYLOAD_BYTES:
            return status_set(status, INVALID_RECORD, b"log record larger than the limit", -1)
        if self.failure.code:
            status[0] = self.failure
            return -1
        if self.stopping:
            return status_set(status, IO_ERROR, b"the log is closed", -1)
        if self.append_offset + record_bytes(payload_bytes) > self.append_limit:
            self.begin_segment()
        return 0

    cdef void begin_segment(self) noexcept nogil:
        cdef SegmentHeader header
        cdef uint8_t scratch[SEGMENT_HEADER_BYTES]
        cdef Sticky* held
        cdef int kind
        header.number = self.append_segment + 1
        header.previous_end = self.append_offset
        header.chain = self.chain
        if self.append_limit:
            self.sealed[self.append_segment] = self.append_max_index
        self.seed = encode_segment_header(scratch, &header)
        self.append_segment = header.number
        self.append_offset = SEGMENT_HEADER_BYTES
        self.append_max_index = 0
        self.append_limit = self.file.segment_bytes - CLOSE_BYTES
        self.pending.push_back(Chunk())
        cdef Chunk* chunk = &self.pending.back()
        chunk.segment = header.number
        chunk.offset = SEGMENT_HEADER_BYTES
        chunk.previous_end = header.previous_end
        chunk.chain = header.chain
        chunk.bytes.resize(TERMINATOR_BYTES)
        for kind in range(KIND_USER_MAX + 1):
            held = &self.sticky[kind]
            if held.wanted and held.known:
                self.put_record(
                    kind, held.index, held.term, slice_of(held.payload.data(), held.payload.size())
                )

    cdef void put_record(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil:
        """Encodes one record at the end of what is pending."""
        cdef Chunk* chunk
        cdef size_t start
        if self.pending.empty():
            self.pending.push_back(Chunk())
            chunk = &self.pending.back()
            chunk.segment = self.append_segment
            chunk.offset = self.append_offset
            chunk.bytes.resize(TERMINATOR_BYTES)
        chunk = &self.pending.back()
        start = chunk.bytes.size() - TERMINATOR_BYTES
        chunk.bytes.resize(chunk.bytes.size() + record_bytes(payload.size))
        self.encode(chunk.bytes.data() + start, kind, index, term, payload)

    cdef void encode(
        self, uint8_t* at, int kind, uint64_t index, uint64_t term, Slice payload
    ) noexcept nogil:
        """Writes one record and the terminator after it, and counts the record as appended."""
        cdef RecordHeader header
        cdef uint64_t size = record_bytes(payload.size)
        # The padding and the terminator, which stand next to each other.
        memset(at + RECORD_HEADER_BYTES + payload.size, 0,
               size - RECORD_HEADER_BYTES - payload.size + TERMINATOR_BYTES)
        if payload.size:
            memcpy(at + RECORD_HEADER_BYTES, payload.data, payload.size)
        header.kind = kind
        header.payload_bytes = <uint32_t> payload.size
        header.segment = <uint32_t> self.append_segment
        header.chain = self.chain
        header.index = index
        header.term = term
        header.synced = self.durable_offset if self.durable_segment == self.append_segment else 0
        header.payload_crc = crc32c_extend(0, payload.data, payload.size)
        encode_record_header(at, &header, self.seed)
        self.chain = header.header_crc
        self.append_offset += size
        self.appended += size
        if index > self.append_max_index and not self.sticky[kind].wanted:
            self.append_max_index = index

    cdef bint fits_file(self, size_t payload_bytes) noexcept nogil:
        """Whether the next record may go into the file past `pending` and the flusher."""
        return (
            self.file.memory != NULL
            and self.flusher != WRITING
            and self.append_segment == self.file.segment
            and self.pending.empty()
            and self.append_offset + record_bytes(payload_bytes) + TERMINATOR_BYTES <= self.file.capacity
        )

    cdef void store(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil:
        """Encodes one record right into the file, through the map."""
        cdef uint8_t* pages = NULL
        cdef size_t forgettable
        self.encode(self.file.memory + self.append_offset, kind, index, term, payload)
        self.file.end = self.append_offset
        self.written = self.appended
        # All but the newest part of the map would else count as memory of this process.
        forgettable = log_file_forgettable(&self.file, FORGET_BYTES, &pages)
        if forgettable:
            self.ops.forget(self.disk, pages, forgettable)

    cdef int write_directly(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil:
        """Writes one record with a call. Under `monitor`, which it gives up for the disk's work."""
        cdef uint64_t offset = self.append_offset
        cdef size_t size = record_bytes(payload.size) + TERMINATOR_BYTES
        cdef uint64_t target
        cdef int result
        if self.direct.size() < size:
            self.direct.resize(size)
        self.encode(self.direct.data(), kind, index, term, payload)
        target = self.appended
        self.flusher = WRITING
        self.monitor.unlock()
        result = log_file_write(&self.file, self.direct.data(), size, offset, False, status)
        self.monitor.lock()
        if result == 0:
            self.file.end = offset + size - TERMINATOR_BYTES
            self.written = target
        else:
            self.fail(status)
        self.flusher = IDLE
        self.monitor.call_next()
        return result

    cdef int append_slice(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil:
        cdef Sticky* held = &self.sticky[kind]
        self.monitor.lock()
        cdef int result = self.make_room(payload.size, status)
        if result == 0:
            self.put_record(kind, index, term, payload)
            if held.wanted:
                held.known = True
                held.index = index
                held.term = term
                held.payload.assign(payload.data, payload.data + payload.size)
        self.monitor.unlock()
        return result

    cdef int append_through(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil:
        cdef bint done = False
        self.monitor.lock()
        cdef int result = self.make_room(payload.size, status)
        if result == 0 and self.fits_file(payload.size):
            if payload.size < CALL_BYTES or (self.flusher == SYNCING and payload.size <= DIRECT_BYTES):
                self.store(kind, index, term, payload)
                done = True
            elif payload.size <= DIRECT_BYTES:
                result = self.write_directly(kind, index, term, payload, status)
                done = True
        self.monitor.unlock()
        if result or done:
            return result
        return self.append_slice(kind, index, term, payload, status) or 1

    cdef uint64_t position(self) noexcept nogil:
        self.monitor.lock()
        cdef uint64_t result = self.appended
        self.monitor.unlock()
        return result

    def append(self, int kind, uint64_t index, uint64_t term, const uint8_t[::1] payload not None):
        cdef Status status
        cdef Slice content = slice_of(&payload[0] if payload.shape[0] else NULL, payload.shape[0])
        self.check_writable()
        check_kind(kind)
        if content.size > MAX_PAYLOAD_BYTES:
            raise InvalidArgumentError(f"log record of {content.size} bytes is above the limit of 1 GiB")
        if self.append_slice(kind, index, term, content, &status):
            raise self.error(&status)
        return self.position()

    def append_many(self, records):
        for kind, index, term, payload in records:
            self.append(kind, index, term, payload)
        return self.position()

    # --- writing and syncing: the flusher --------------------------------------------------------

    cdef void fail(self, const Status* status) noexcept nogil:
        """Ends the log. Under `monitor`; whoever waits in line is told in turn."""
        self.failure = status[0]
        self.monitor.notify()

    cdef int flush(self, uint64_t ticket, bint durably, Status* status) noexcept nogil:
        cdef deque[Chunk] taken
        cdef uint64_t target
        cdef int result = 0
        cdef bint waited = False
        status_clear(status)
        self.monitor.lock()
        while True:
            if self.failure.code:
                status[0] = self.failure
                result = -1
            if result or (self.durable if durably else self.written) >= ticket:
                self.monitor.call_next()
                self.monitor.unlock()
                return result
            if self.flusher == IDLE:
                break
            self.monitor.wait_in_line(waited)
            waited = True
        self.flusher = WRITING
        taken.swap(self.pending)
        target = self.appended
        self.monitor.unlock()

        while result == 0 and not taken.empty():
            result = self.write_chunk(&taken.front(), durably, status)
            if result == 0:
                taken.pop_front()

        self.monitor.lock()
        self.starved = result == RETRY
        if result == RETRY:
            put_back(self.pending, taken)
        elif result == 0:
            self.written = target
            if durably:
                result = self.sync_written(target, status)
        if result == -1:
            self.fail(status)
        self.flusher = IDLE
        # What was asked for may be durable although the mark after it failed; the next call says so.
        cdef bint reached = (self.durable if durably else self.written) >= ticket
        self.monitor.call_next()
        self.monitor.unlock()
        return 0 if reached else -1

    cdef int sync_written(self, uint64_t target, Status* status) noexcept nogil:
        """The flusher's second half. Under `monitor`, which it gives up for the disk's work."""
        cdef uint64_t end = self.file.end
        cdef uint8_t* pages = NULL
        # The sync would take each page of the map back from this process one by one, and interrupt
        # every CPU that runs a thread of it for each.
        cdef size_t forgettable = log_file_forgettable(&self.file, SYNC_FORGET_BYTES, &pages)
        self.flusher = SYNCING
        self.monitor.unlock()
        if forgettable:
            self.ops.forget(self.disk, pages, forgettable)
        cdef int result = self.ops.datasync(self.disk, self.file.file)
        self.monitor.lock()
        if result < 0:
            return status_os_error(status, -result, b"syncing the log", -1)
        self.syncs += 1
        self.durable = target
        self.durable_segment = self.file.segment
        self.durable_offset = end
        # No record follows that would say so: a mark does. It needs no sync of its own, and those
        # who wait need not wait for it.
        if (
            self.appended > target
            or self.stopping
            or self.append_offset + RECORD_HEADER_BYTES > self.append_limit
        ):
            return 0
        return self.leave_mark(status)

    cdef int leave_mark(self, Status* status) noexcept nogil:
        cdef deque[Chunk] mark
        cdef int result
        # By a call, not through the map: the page that a store dirties may be part of a large folio,
        # all of which the next sync would write (docs/performance.md).
        self.put_record(KIND_SYNC_MARK, 0, 0, slice_of(NULL, 0))
        mark.swap(self.pending)
        self.durable = self.appended
        self.flusher = WRITING
        self.written = self.appended
        self.monitor.call_next()
        self.monitor.unlock()
        result = self.write_chunk(&mark.front(), True, status)
        self.monitor.lock()
        return result

    cdef int write_chunk(self, Chunk* chunk, bint durably, Status* status) noexcept nogil:
        cdef uint64_t end = chunk.offset + chunk.bytes.size() - TERMINATOR_BYTES
        cdef size_t size = chunk.bytes.size()
        cdef int result
        if chunk.segment != self.file.segment:
            result = self.enter_segment(chunk, status)
            if result:
                return result
        result = log_file_write(
            &self.file, chunk.bytes.data(), size, chunk.offset, durably, status
        )
        if result == 0:
            self.file.end = end
        return result

    cdef int enter_segment(self, Chunk* chunk, Status* status) noexcept nogil:
        """Leaves the current segment and begins the chunk's; RETRY if there is no space for it."""
        cdef SegmentHeader header
        cdef uint64_t recycled
        header.number = chunk.segment
        header.previous_end = chunk.previous_end
        header.chain = chunk.chain
        self.monitor.lock()
        recycled = self.spare
        self.spare = 0
        self.monitor.unlock()
        return log_file_begin(
            &self.file, &header, recycled, chunk.offset + chunk.bytes.size() + CLOSE_BYTES, status
        )

    cdef int write_out(self, Status* status) noexcept nogil:
        return self.flush(self.position(), False, status)

    cdef int sync_to(self, uint64_t ticket, Status* status) noexcept nogil:
        return self.flush(ticket, True, status)

    def write(self):
        cdef Status status
        cdef int result
        self.check_writable()
        with nogil:
            result = self.write_out(&status)
        if result:
            raise self.error(&status)

    def sync(self):
        cdef Status status
        cdef int result
        self.check_writable()
        with nogil:
            result = self.sync_to(self.position(), &status)
        if result:
            raise self.error(&status)

    # --- the writer thread -----------------------------------------------------------------------

    def start_writer(self):
        self.check_writable()
        if self.writer is not None:
            raise InvalidArgumentError("the log's writer thread runs already")
        self.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.event < 0:
            raise OSError("no event descriptor for the log's writer thread")
        self.writer = threading.Thread(target=run_writer, args=(self,), name="kvstore-log", daemon=True)
        self.writer.start()
        return self.event

    cdef void run_writer(self) noexcept nogil:
        cdef uint64_t one = 1
        cdef uint64_t ticket
        cdef Status status
        while True:
            self.monitor.lock()
            while (
                (self.submitted <= self.durable or self.starved)
                and not self.stopping and not self.failure.code
            ):
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
        cdef uint64_t ticket = self.appended
        self.submitted = ticket
        self.starved = False
        self.monitor.notify()
        self.monitor.unlock()
        return ticket

    @property
    def durable_ticket(self):
        self.check_failed()
        self.monitor.lock()
        cdef uint64_t ticket = self.durable
        self.monitor.unlock()
        return ticket

    @property
    def out_of_space(self):
        self.monitor.lock()
        cdef bint starved = self.starved
        self.monitor.unlock()
        return starved

    @property
    def notify_fd(self):
        return self.event

    # --- keeping it small ------------------------------------------------------------------------

    def remove_before(self, uint64_t index):
        cdef uint64_t number
        self.check_writable()
        removed = 0
        while True:
            self.monitor.lock()
            number = 0
            # The sync that covered a later segment made its copies of the sticky records durable.
            if (
                not self.sealed.empty()
                and dereference(self.sealed.begin()).first < self.durable_segment
                and dereference(self.sealed.begin()).second < index
            ):
                number = dereference(self.sealed.begin()).first
            self.monitor.unlock()
            if not number:
                return removed
            self.remove_segment(number)
            removed += 1

    cdef int remove_segment(self, uint64_t number) except -1:
        """Removes the oldest segment, or puts it aside to be recycled."""
        cdef char name[PATH_BYTES]
        cdef char spare[PATH_BYTES]
        cdef int result
        self.monitor.lock()
        cdef bint recycle = self.spare == 0
        self.monitor.unlock()
        segment_path(name, self.folder, number, b"wal")
        segment_path(spare, self.folder, number, b"spare")
        with nogil:
            if recycle:
                result = self.ops.rename(self.disk, name, spare)
            else:
                result = self.ops.unlink(self.disk, name)
            # One by one and in order, so that no crash can leave a gap between segments.
            if result == 0 or result == -ENOENT:
                recycle = recycle and result == 0
                result = self.ops.sync_directory(self.disk, self.folder)
        if result < 0:
            raise os_failure(result, b"removing a log segment", segment_name(self.path, number))
        self.monitor.lock()
        self.sealed.erase(number)
        if recycle:
            self.spare = number
        self.monitor.unlock()
        return 0

    # --- reading back ----------------------------------------------------------------------------

    def replay(self):
        return LogReplay(self, list(self.found))

    # --- ending ----------------------------------------------------------------------------------

    def close(self):
        cdef Status status
        cdef int result = 0
        if self.closed:
            return
        self.closed = True
        self.monitor.lock()
        self.stopping = True
        self.monitor.notify()
        self.monitor.unlock()
        if self.writer is not None:
            self.writer.join()
        self.monitor.lock()
        status = self.failure
        if status.code == OK and self.append_limit:
            self.put_record(KIND_CLEAN_CLOSE, 0, 0, slice_of(NULL, 0))
        self.monitor.unlock()
        if self.append_limit and status.code == OK:
            with nogil:
                result = self.sync_to(self.position(), &status)
        if result == 0 and status.code == OK:
            # Tells the next opening, too, that the sync of all before it went well.
            log_file_trim(&self.file)
        self.release()
        if result:
            raise self.error(&status)

    cdef void release(self) noexcept:
        log_file_close(&self.file)
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

    # --- saying what is wrong --------------------------------------------------------------------

    cdef object error(self, Status* status):
        return status_error(status, self.path)

    cdef int check_failed(self) except -1:
        cdef Status status
        self.monitor.lock()
        status = self.failure
        self.monitor.unlock()
        if status.code:
            raise self.error(&status)
        return 0

    cdef int check_writable(self) except -1:
        if self.closed:
            raise ClosedError(f"the log {self.path} is closed")
        if self.read_only:
            raise InvalidArgumentError(f"the log {self.path} was opened for reading only")
        return self.check_failed()

    def stats(self):
        self.monitor.lock()
        cdef uint64_t appended = self.appended
        cdef uint64_t durable = self.durable
        cdef uint64_t syncs = self.syncs
        cdef uint64_t segment = self.append_segment
        cdef uint64_t segments = self.sealed.size() + (1 if self.append_limit else 0)
        self.monitor.unlock()
        return {
            "appended_bytes": appended,
            "durable_bytes": durable,
            "syncs": syncs,
            "segments": segments,
            "segment": segment,
        }


def run_writer(Log log not None):
    with nogil:
        log.run_writer()


cdef int check_kind(kind) except -1:
    if not 1 <= kind <= KIND_USER_MAX:
        raise InvalidArgumentError(f"log record kind {kind} is not within 1 and {KIND_USER_MAX}")
    return 0


@cython.no_gc_clear
cdef class LogReplay:
    """Iterates over the records that opening found; streams, one segment open at a time."""
    cdef Log log
    cdef list numbers
    cdef SegmentReader reader
    cdef bint reading
    cdef str where

    def __init__(self, Log log not None, list numbers not None):
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
                self.where = segment_name(self.log.path, self.numbers.pop(0))
                raw = os.fsencode(self.where)
                self.reading = True
                if segment_open(&self.reader, self.log.ops, self.log.disk, raw, &status):
                    raise status_error(&status, self.where)
            result = segment_next(&self.reader, &record, &payload, &status)
            if result < 0:
                raise status_error(&status, self.where)
            if result == 0:
                segment_close(&self.reader)
                self.reading = False
            elif record.kind <= KIND_USER_MAX:
                return record.kind, record.index, record.term, <bytes> payload[: record.payload_bytes]

    def __dealloc__(self):
        if self.reading:
            segment_close(&self.reader)
