"""The one durable log. Bytes: log_format.pxd. Opening: log_recovery.pyx. Ownership: log.pxd.

Appending fills memory; one flusher at a time moves what gathered into the segment's file and, when
asked, makes it durable with one sync (group commit). What needn't be durable yet is moved by a thread
within a millisecond or so, without the GIL ("write behind"): one call for each record would cost ten
times what a put does, and a store through a map of the file, which costs as little, is a fatal signal
where the disk fails (docs/performance.md, "The log").

The first write or sync that fails ends the log: nothing is tried again, because after a failed sync
the kernel may report pages as clean that never reached the disk ("Can Applications Recover from fsync
Failures?", ATC'20). Only what a new segment lacks (space, a descriptor, memory) is no failure: it
shows before anything was written, and within a segment the space is reserved.

An append that finds no memory leaves the log as it was. `reserve` and `roll` get everything that the
next append can want beforehand, for callers who have other things to do before it.

A segment appears under its name only after its header is durable and all records of the segment
before it are: what log_recovery.pyx proves rests on this order.
"""

import os
import threading

cimport cython
from libc.errno cimport EAGAIN, EEXIST, ENOENT, EOPNOTSUPP
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    IO_ERROR,
    OK,
    Slice,
    Status,
    buffer_append,
    buffer_free,
    buffer_init,
    crc32c_extend,
    gil_ask,
    gil_have,
    kv_free,
    kv_malloc,
    kv_realloc,
    load_acquire,
    slice_of,
    status_clear,
    status_error,
    status_no_memory,
    status_os_error,
    status_set,
    store_release,
)
from kvstore._engine.primitives.threads import is_refused
from kvstore._engine.files.native cimport (
    DirectoryLock,
    FileSystem,
    GuardedFileSystem,
    guard,
    os_failure,
)
from kvstore._engine.files.native import PosixFileSystem

from kvstore.errors import ClosedError, InvalidArgumentError, StorageError


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    ssize_t os_write "write"(int fd, const void* data, size_t size)
    int os_close "close"(int fd)


cdef enum:
    MIN_SEGMENT_BYTES = 4096
    DEFAULT_SEGMENT_BYTES = 67108864
    BEHIND_MICROSECONDS = 1000  # after so long what was appended is written
    BEHIND_WAKE_BYTES = 262144  # so much of it is written at once
    BEHIND_MOST_BYTES = 4194304 # with more of it an append waits for the file
    BEHIND_IDLE_ROUNDS = 8      # with nothing to write, before the thread sleeps until it is called
    # Kept free at the end of a segment, so that the mark of a close always fits, and the file of a
    # log that was closed is always shorter than its segment.
    CLOSE_BYTES = RECORD_HEADER_BYTES + TERMINATOR_BYTES


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class Log:
    def __cinit__(self):
        self.event = -1
        self.starting = threading.RLock()
        # Until __init__ has gone through.
        self.closed = self.stopping = True
        status_clear(&self.failure)
        memset(self.sticky, 0, sizeof(self.sticky))

    def __init__(
        self, path, *, FileSystem filesystem=None, uint64_t segment_bytes=DEFAULT_SEGMENT_BYTES,
        sticky_kinds=(), bint read_only=False, bytes log_id=None, bytes database_id=None,
        tuple noted=None, bint report_short=False, bint hollow=False, bint report_damage=False,
        Applier applier=None, bint folder_made=False,
    ):
        if self.ops != NULL:
            raise InvalidArgumentError("a log object opens once")
        if not MIN_SEGMENT_BYTES <= segment_bytes <= MAX_PAYLOAD_BYTES:
            raise InvalidArgumentError(
                f"segment_bytes={segment_bytes} is not within {MIN_SEGMENT_BYTES} and 1 GiB"
            )
        for kind in sticky_kinds:
            check_kind(kind)
        for given in (log_id, database_id):
            if given is not None and len(given) != ID_BYTES:
                raise InvalidArgumentError(f"an id of {len(given)} bytes; it must have {ID_BYTES}")
        self.filesystem = PosixFileSystem() if filesystem is None else filesystem
        self.ops = self.file.ops = self.filesystem.ops
        self.disk = self.file.disk = self.filesystem.disk
        self.path = self.filesystem.resolve(os.fsdecode(path))
        self.path_bytes = os.fsencode(self.path)
        if len(self.path_bytes) > PATH_BYTES - 32:
            raise InvalidArgumentError(f"path of {len(self.path_bytes)} bytes is too long")
        self.folder = self.file.folder = self.path_bytes
        self.parent_bytes = os.fsencode(os.path.dirname(self.path))
        self.parent = self.parent_bytes
        self.file.segment_bytes = segment_bytes
        self.read_only = read_only
        if not read_only:
            if not folder_made:
                self.make_folder()
            if not isinstance(self.filesystem, GuardedFileSystem):
                self.watch_folder()
        self.start_from(
            recover(
                self.filesystem, self.path, frozenset(sticky_kinds), not read_only, noted,
                report_short, hollow, report_damage, applier,
            ),
            log_id, database_id,
        )
        for kind in sticky_kinds:
            self.sticky[<int> kind].wanted = True
        self.closed = self.stopping = False

    def __reduce__(self):
        raise TypeError("an open log can't be copied or pickled: hand on its path")

    cdef int make_folder(self) except -1:
        cdef int result
        with nogil:
            result = self.ops.make_directory(self.disk, self.folder)
        if result < 0 and result != -EEXIST:
            raise os_failure(result, b"making the log's directory", self.path)
        self.names_unsynced = True
        return 0

    cdef int sync_names(self, Status* status) noexcept nogil:
        """Before the first segment of this opening has its name: what is opened to be read needs none.

        Whoever made the folder may have died before its name was durable, or with segments removed
        that a power loss brings back, beside those of the log that begins here.
        """
        cdef int result = self.ops.sync_directory(self.disk, self.parent)
        if result >= 0:
            result = self.ops.sync_directory(self.disk, self.folder)
        if result >= 0:
            self.names_unsynced = False
            return 0
        status_os_error(status, -result, b"syncing the log's directory", -1)
        return RETRY if lacks_descriptor(result) else -1

    cdef int watch_folder(self) except -1:
        """From here on no segment is begun or removed at a path that somebody else's folder has."""
        cdef DirectoryLock held = DirectoryLock.__new__(DirectoryLock)
        cdef GuardedFileSystem guarded = guard(self.filesystem, self.path)
        cdef int result
        held.disk = self.filesystem
        with nogil:
            result = self.ops.lock_directory(self.disk, self.folder, True, &held.file)
        if result < 0:
            held.file = NULL
            if result == -EOPNOTSUPP:
                return 0
            raise os_failure(result, b"opening the log's directory", self.path)
        guarded.hold(held)
        self.watched = held
        self.filesystem = guarded
        self.ops = self.file.ops = guarded.ops
        self.disk = self.file.disk = guarded.disk
        return 0

    cdef int start_from(self, Recovered found, bytes log_id, bytes database_id) except -1:
        cdef bytes content
        cdef Sticky* held
        cdef Span span
        self.recovery = found.summary
        self.found = sorted(found.spans)
        if found.number:
            check_ids(found, log_id, database_id, segment_name(self.path, found.number))
            log_id, database_id = found.log_id, found.database_id
        self.log_id = log_id if log_id is not None else os.urandom(ID_BYTES)
        self.database_id = database_id if database_id is not None else bytes(ID_BYTES)
        memcpy(self.log_id_raw, <const char*> self.log_id, ID_BYTES)
        memcpy(self.database_id_raw, <const char*> self.database_id, ID_BYTES)
        for number in self.found:
            if self.make_sealed() < 0:
                raise MemoryError("no memory for a log")
            span = found.spans[number]
            self.seal(<uint64_t> number, &span)
        for kind, (index, term, payload) in found.sticky.items():
            content = payload
            held = &self.sticky[<int> kind]
            held.known = True
            held.index = index
            held.term = term
            if buffer_append(&held.payload, <const char*> content, len(content)) < 0:
                raise MemoryError("no memory for a log")
        self.append_segment = found.number
        self.append_offset = found.end
        self.chain = found.chain
        # Opening sees to it, so that older segments can go before anything is appended.
        self.durable_segment = self.begun_segment = found.number
        self.durable_offset = found.end
        return 0

    # --- appending; all under `monitor` ----------------------------------------------------------

    cdef int make_sealed(self) noexcept nogil:
        """Room for one more older segment. -1: no memory."""
        cdef size_t capacity
        cdef Span* larger
        if self.sealed_count < self.sealed_capacity:
            return 0
        capacity = self.sealed_capacity * 2 + 16
        larger = <Span*> kv_realloc(self.sealed, capacity * sizeof(Span))
        if larger == NULL:
            return -1
        self.sealed = larger
        self.sealed_capacity = capacity
        return 0

    cdef void seal(self, uint64_t number, const Span* span) noexcept nogil:
        if self.sealed_count == 0:
            self.sealed_first = number
        self.sealed[self.sealed_count] = span[0]
        self.sealed_count += 1
        self.seals += 1

    cdef Chunk* take_chunk(self, size_t capacity) noexcept nogil:
        """An empty chunk for so many bytes, the terminator included. NULL: no memory."""
        cdef Chunk* chunk = self.spares
        if chunk == NULL or chunk.capacity < capacity:
            return chunk_new(capacity)
        self.spares = chunk.next
        self.spare_count -= 1
        return chunk

    cdef void give_chunks(self, Chunk* chunk) noexcept nogil:
        cdef Chunk* next
        while chunk != NULL:
            next = chunk.next
            if chunk.capacity == CHUNK_BYTES and self.spare_count < SPARE_CHUNKS:
                chunk.next = self.spares
                self.spares = chunk
                self.spare_count += 1
            else:
                kv_free(chunk)
            chunk = next

    cdef int check_appendable(self, size_t payload_bytes, Status* status) noexcept nogil:
        if payload_bytes > MAX_PAYLOAD_BYTES:
            return status_set(status, INVALID_RECORD, b"log record larger than the limit", -1)
        if self.failure.code:
            status[0] = self.failure
            return -1
        if self.stopping:
            return status_set(status, IO_ERROR, b"the log is closed", -1)
        return 0

    cdef bint fits(self, size_t payload_bytes) noexcept nogil:
        return load_acquire(&self.append_offset) + record_bytes(payload_bytes) <= self.append_limit

    cdef int begin_segment(self, size_t payload_bytes, bint whole) noexcept nogil:
        """The next record, of so many bytes, comes first in a new segment. -1: no memory, nothing done.

        Not `whole`: the segment may be smaller than it should be, if it holds that record.
        """
        cdef SegmentHeader header
        cdef uint8_t scratch[SEGMENT_HEADER_BYTES]
        cdef uint64_t size = record_bytes(payload_bytes)
        cdef uint64_t limit = self.file.segment_bytes - CLOSE_BYTES
        cdef Sticky* held
        cdef Chunk* chunk
        cdef int kind
        for kind in range(KIND_USER_MAX + 1):
            held = &self.sticky[kind]
            if held.wanted and held.known:
                size += record_bytes(held.payload.size)
        if self.append_limit and self.make_sealed() < 0:
            return -1
        chunk = self.take_chunk(<size_t> size + TERMINATOR_BYTES)
        if chunk == NULL:
            return -1
        self.fill_header(&header)
        if self.append_limit:
            self.append_span.bytes = self.append_offset
            self.seal(self.append_segment, &self.append_span)
        self.seed = encode_segment_header(scratch, &header)
        # The mark of a sync may come before the record that this is for.
        self.append_limit = max(limit, SEGMENT_HEADER_BYTES + size + RECORD_HEADER_BYTES)
        self.append_segment = header.number
        store_release(&self.append_offset, SEGMENT_HEADER_BYTES)
        span_clear(&self.append_span)
        chunk_place(chunk, header.number, SEGMENT_HEADER_BYTES)
        chunk.segment_bytes = CLOSE_BYTES + (
            self.append_limit if whole else SEGMENT_HEADER_BYTES + size + RECORD_HEADER_BYTES
        )
        chunk.previous_end = header.previous_end
        chunk.chain = header.chain
        chunks_push(&self.pending, chunk)
        for kind in range(KIND_USER_MAX + 1):
            held = &self.sticky[kind]
            if held.wanted and held.known:
                self.put_record(
                    kind, held.index, held.term, slice_of(held.payload.data, held.payload.size)
                )
        return 0

    cdef void fill_header(self, SegmentHeader* header) noexcept nogil:
        header.number = self.append_segment + 1
        header.previous_end = self.append_offset
        header.chain = self.chain
        header.read_only_compatible = 0
        memcpy(header.log_id, self.log_id_raw, ID_BYTES)
        memcpy(header.database_id, self.database_id_raw, ID_BYTES)

    cdef int put_record(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil:
        """Encodes one record at the end of what is pending. -1: no memory, nothing changed."""
        cdef Chunk* chunk = self.pending.last
        cdef size_t size = record_bytes(payload.size)
        if chunk == NULL or chunk.size + size > chunk.capacity:
            chunk = self.reserved
            if chunk != NULL and size + TERMINATOR_BYTES <= chunk.capacity:
                self.reserved = NULL
            else:
                chunk = self.take_chunk(size + TERMINATOR_BYTES)
                if chunk == NULL:
                    return -1
            chunk_place(chunk, self.append_segment, self.append_offset)
            chunks_push(&self.pending, chunk)
        self.encode(chunk_bytes(chunk) + chunk.size - TERMINATOR_BYTES, kind, index, term, payload)
        chunk.size += size
        return 0

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
        store_release(&self.append_offset, self.append_offset + size)
        self.appended += size
        if not self.sticky[kind].wanted:
            span_note(&self.append_span, index)

    cdef int append_one(self, Record* record, Status* status) noexcept nogil:
        """-1: nothing changed, but that an empty segment may have been begun."""
        cdef Sticky* held = &self.sticky[record.kind]
        cdef Sticky fresh
        fresh.wanted = fresh.known = True
        fresh.index = record.index
        fresh.term = record.term
        buffer_init(&fresh.payload)
        if self.check_appendable(record.payload.size, status):
            return -1
        if (
            (held.wanted and buffer_append(
                &fresh.payload, record.payload.data, record.payload.size) < 0)
            or (not self.fits(record.payload.size) and self.begin_segment(record.payload.size, True) < 0)
            or self.put_record(record.kind, record.index, record.term, record.payload) < 0
        ):
            buffer_free(&fresh.payload)
            return status_no_memory(status, b"memory for a log record")
        if held.wanted:
            record.replaced = held[0]
            held[0] = fresh
        return 0

    cdef void note_state(self, AppendState* state) noexcept nogil:
        state.segment = self.append_segment
        state.offset = self.append_offset
        state.span = self.append_span
        state.limit = self.append_limit
        state.appended = self.appended
        state.seals = self.seals
        state.chain = self.chain
        state.seed = self.seed
        state.last = self.pending.last
        state.last_size = self.pending.last.size if self.pending.last != NULL else 0

    cdef void return_to(self, const AppendState* state) noexcept nogil:
        """Undoes what was appended since, none of which is with a flusher."""
        self.append_segment = state.segment
        store_release(&self.append_offset, state.offset)
        self.append_span = state.span
        self.append_limit = state.limit
        self.appended = state.appended
        # Meanwhile others may have removed from the front; what was sealed since is at the end.
        self.sealed_count -= self.seals - state.seals
        self.seals = state.seals
        self.chain = state.chain
        self.seed = state.seed
        if state.last == NULL:
            self.give_chunks(self.pending.first)
            self.pending.first = NULL
        else:
            self.give_chunks(state.last.next)
            state.last.next = NULL
            state.last.size = state.last_size
            memset(chunk_bytes(state.last) + state.last_size - TERMINATOR_BYTES, 0, TERMINATOR_BYTES)
        self.pending.last = state.last

    cdef int append_records(self, Record* records, size_t count, Status* status) noexcept nogil:
        cdef AppendState before
        cdef size_t done = 0
        cdef size_t i
        cdef Sticky* held
        cdef int result = 0
        self.monitor.lock()
        self.note_state(&before)
        while done < count and result == 0:
            result = self.append_one(&records[done], status)
            done += result == 0
        if result:
            while done > 0:
                done -= 1
                held = &self.sticky[records[done].kind]
                if held.wanted:
                    buffer_free(&held.payload)
                    held[0] = records[done].replaced
            self.return_to(&before)
        for i in range(done):
            if self.sticky[records[i].kind].wanted:
                buffer_free(&records[i].replaced.payload)
        self.monitor.unlock()
        return result

    cdef int append_slice(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil:
        cdef Record record
        record.kind = kind
        record.index = index
        record.term = term
        record.payload = payload
        return self.append_records(&record, 1, status)

    cdef int append_through(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil:
        cdef uint64_t waiting
        self.monitor.lock()
        if (
            self.sticky[kind].wanted or not self.writes_behind or self.failure.code or self.stopping
            or not self.fits(payload.size) or self.put_record(kind, index, term, payload) < 0
        ):
            self.monitor.unlock()
            return self.append_slice(kind, index, term, payload, status) or 1
        waiting = self.appended - self.written
        if self.asleep or (waiting >= BEHIND_WAKE_BYTES and not self.woken):
            self.asleep = False
            self.woken = True
            self.monitor.notify()
        self.monitor.unlock()
        return waiting > BEHIND_MOST_BYTES

    cdef int reserve(self, size_t payload_bytes) noexcept nogil:
        cdef size_t size = record_bytes(payload_bytes) + TERMINATOR_BYTES
        cdef Chunk* chunk
        if (
            self.reserved == NULL
            or self.reserved.capacity < size
            # One that a large record wanted that then came to nothing.
            or (self.reserved.capacity > CHUNK_BYTES and size <= CHUNK_BYTES)
        ):
            self.monitor.lock()
            chunk = self.take_chunk(size)
            if chunk != NULL:
                if self.reserved != NULL:
                    self.reserved.next = NULL
                    self.give_chunks(self.reserved)
                self.reserved = chunk
            self.monitor.unlock()
            if chunk == NULL:
                return -1
        if load_acquire(&self.rolling):
            return 1
        # The mark of a sync may come before the record.
        if self.fits(payload_bytes + RECORD_HEADER_BYTES):
            return 0
        self.monitor.lock()
        store_release(&self.rolling, 1)
        self.monitor.unlock()
        return 1

    cdef int roll(self, size_t payload_bytes, Status* status) noexcept nogil:
        cdef AppendState before
        cdef int result
        status_clear(status)
        self.monitor.lock()
        if not self.await_turn() or self.stopping or not self.rolling:
            result = 0
            if self.failure.code:
                status[0] = self.failure
                result = -1
            elif self.stopping:
                result = status_set(status, IO_ERROR, b"the log is closed", -1)
            self.monitor.call_next()
            self.monitor.unlock()
            return result
        result = self.write_pending(False, status) if self.pending.first != NULL else 0
        if result == 0:
            self.note_state(&before)
            if self.begin_segment(payload_bytes, False) < 0:
                status_no_memory(status, b"memory for a log segment")
                result = RETRY
            else:
                result = self.write_pending(False, status)
                if result == RETRY:
                    self.return_to(&before)
                elif result == 0:
                    self.append_limit = min(self.append_limit, self.file.capacity - CLOSE_BYTES)
        store_release(&self.rolling, 0)
        self.monitor.call_next()
        self.monitor.unlock()
        return result

    cdef bint await_turn(self) noexcept nogil:
        """Under `monitor`: waits until nobody else writes or syncs. False: the log has failed."""
        cdef bint waited = False
        while not self.failure.code:
            if not self.writing and not self.syncing:
                return True
            self.monitor.wait_in_line(waited)
            waited = True
        return False

    cdef uint64_t position(self) noexcept nogil:
        self.monitor.lock()
        cdef uint64_t result = self.appended
        self.monitor.unlock()
        return result

    def append(self, kind, index, term, payload):
        return self.append_many(((kind, index, term, payload),))

    def append_many(self, records):
        cdef Status status
        cdef list held = []             # the bytes that the records refer to
        cdef Record* made
        cdef Record* record
        cdef bytes content
        cdef int result = 0
        self.check_writable()
        for kind, index, term, payload in records:
            check_kind(kind)
            content = payload if type(payload) is bytes else bytes(memoryview(payload))
            if len(content) > MAX_PAYLOAD_BYTES:
                raise InvalidArgumentError(
                    f"log record of {len(content)} bytes is above the limit of 1 GiB"
                )
            held.append((kind, index, term, content))
        made = <Record*> kv_malloc(len(held) * sizeof(Record) + 1)
        if made == NULL:
            raise MemoryError("no memory for log records")
        try:
            record = made
            for kind, index, term, content in held:
                record.kind = kind
                record.index = index
                record.term = term
                record.payload = slice_of(<const char*> content, len(content))
                record += 1
            result = self.append_records(made, len(held), &status)
        finally:
            kv_free(made)
        if result:
            raise self.error(&status)
        return self.position()

    # --- writing and syncing: the flusher --------------------------------------------------------

    cdef void fail(self, const Status* status) noexcept nogil:
        """Ends the log. Under `monitor`; whoever waits in line is told in turn."""
        self.failure = status[0]
        self.monitor.notify()
        self.monitor.ask()

    cdef int flush(self, uint64_t ticket, bint durably, Status* status) noexcept nogil:
        cdef int result = 0
        cdef bint reached
        cdef bint waited = False
        status_clear(status)
        self.monitor.lock()
        while True:
            reached = (self.durable if durably else self.written) >= ticket
            if reached or self.failure.code:
                if self.failure.code:
                    status[0] = self.failure
                    result = -1
                self.monitor.call_next()
                self.monitor.unlock()
                return result
            # Beside a sync another may write, but not leave the file that is synced.
            if not self.writing and (
                not self.syncing or (not durably and self.append_segment == self.file.segment)
            ):
                break
            self.monitor.wait_in_line(waited)
            waited = True
        self.syncing = self.syncing or durably
        result = self.write_pending(durably, status)
        if durably:
            if result == 0:
                result = self.sync_written(status)
            self.syncing = False
        # What was asked for may be durable although the mark after it failed; the next call says so.
        reached = (self.durable if durably else self.written) >= ticket
        self.monitor.call_next()
        self.monitor.unlock()
        return 0 if reached else -1

    cdef int write_pending(self, bint durably, Status* status) noexcept nogil:
        """All that is pending into the file. Under `monitor`, which it gives up for the disk's work."""
        cdef Chunk* taken = self.pending.first
        cdef Chunk* last = self.pending.last
        cdef Chunk* left = taken
        cdef Chunk* done = NULL
        cdef uint64_t target = self.appended
        cdef int result = 0
        self.pending.first = self.pending.last = NULL
        self.writing = True
        self.monitor.unlock()
        while left != NULL:
            result = self.write_chunk(left, durably and left.next == NULL, status)
            if result:
                break
            done = left
            left = left.next
        self.monitor.lock()
        self.writing = False
        self.woken = False
        self.starved = result == RETRY
        chunks_put_back(&self.pending, left, last)
        if done != NULL:
            done.next = NULL
            self.give_chunks(taken)
        if result == 0:
            self.written = target
        elif result != RETRY:
            self.fail(status)
        return result

    cdef int sync_written(self, Status* status) noexcept nogil:
        """The flusher's second half. Under `monitor`, which it gives up for the disk's work."""
        cdef uint64_t end = self.file.end
        cdef uint64_t target = self.written
        self.monitor.unlock()
        cdef int result = self.ops.datasync(self.disk, self.file.file)
        self.monitor.lock()
        if result < 0:
            status_os_error(status, -result, b"syncing the log", -1)
            self.fail(status)
            return -1
        self.syncs += 1
        self.durable = target
        self.durable_segment = self.file.segment
        self.durable_offset = end
        # No record follows that would say so: a mark does. It needs no sync of its own, and those
        # who wait need not wait for it.
        if (
            self.appended > target
            or self.stopping
            or self.rolling
            or self.append_offset + RECORD_HEADER_BYTES > self.append_limit
        ):
            return 0
        return self.leave_mark(status)

    cdef int leave_mark(self, Status* status) noexcept nogil:
        cdef uint8_t mark[RECORD_HEADER_BYTES + TERMINATOR_BYTES]
        cdef uint64_t offset = self.append_offset
        cdef int result
        self.encode(mark, KIND_SYNC_MARK, 0, 0, slice_of(NULL, 0))
        self.durable = self.appended
        self.written = self.appended
        self.writing = True
        self.monitor.call_next()
        self.monitor.unlock()
        result = log_file_write(&self.file, mark, sizeof(mark), offset, True, status)
        self.monitor.lock()
        self.writing = False
        if result:
            self.fail(status)
        else:
            self.file.end = offset + RECORD_HEADER_BYTES
        return result

    cdef int write_chunk(self, Chunk* chunk, bint durably, Status* status) noexcept nogil:
        cdef int result
        if chunk.segment != self.file.segment:
            result = self.enter_segment(chunk, status)
            if result:
                return result
        result = log_file_write(
            &self.file, chunk_bytes(chunk), chunk.size, chunk.offset, durably, status
        )
        if result == 0:
            self.file.end = chunk.offset + chunk.size - TERMINATOR_BYTES
        return result

    cdef int enter_segment(self, Chunk* chunk, Status* status) noexcept nogil:
        """Leaves the current segment and begins the chunk's; RETRY if something is lacking for it."""
        cdef SegmentHeader header
        cdef uint64_t recycled
        cdef int result
        if self.names_unsynced:
            result = self.sync_names(status)
            if result:
                return result
        self.fill_header(&header)
        header.number = chunk.segment
        header.previous_end = chunk.previous_end
        header.chain = chunk.chain
        self.monitor.lock()
        recycled = self.spare
        self.spare = 0
        self.monitor.unlock()
        result = log_file_begin(&self.file, &header, recycled, chunk.segment_bytes, status)
        if result == RETRY and recycled:
            self.give_spare(recycled)
        if result == 0:
            self.monitor.lock()
            self.begun_segment = chunk.segment
            self.monitor.unlock()
        return result

    cdef void give_spare(self, uint64_t number) noexcept nogil:
        """An old segment for recycling again; one that was put aside meanwhile stays instead."""
        cdef char name[PATH_BYTES]
        self.monitor.lock()
        cdef bint taken = self.spare == 0
        if taken:
            self.spare = number
        self.monitor.unlock()
        if not taken:
            segment_path(name, self.folder, number, b"spare")
            self.ops.unlink(self.disk, name)

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

    # --- the writer thread, and the one that writes behind ---------------------------------------

    def start_writer(self):
        self.check_writable()
        if self.writer is not None:
            raise InvalidArgumentError("the log's writer thread runs already")
        self.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.event < 0:
            raise OSError("no event descriptor for the log's writer thread")
        try:
            self.tell(self.event)
        except (StorageError, MemoryError):
            os_close(self.event)
            self.event = -1
            raise
        return self.event

    def tell(self, int event):
        self.check_writable()
        self.need_writer()
        self.monitor.lock()
        cdef int result = self.events.push(event, kv_realloc)
        self.monitor.unlock()
        if result < 0:
            raise MemoryError("no memory to tell of a sync")

    def forget(self, int event):
        cdef size_t i
        self.monitor.lock()
        for i in range(self.events.size()):
            if self.events[i] == event:
                self.events[i] = self.events.back()
                self.events.resize(self.events.size() - 1, kv_realloc)
                break
        self.monitor.unlock()

    cdef int need_writer(self) except -1:
        with self.starting:
            self.check_writable()
            if self.writer is None:
                start_thread(self, run_writer, False)
        return 0

    cdef void run_writer(self) noexcept nogil:
        cdef uint64_t ticket
        cdef uint64_t handed_over
        cdef Status status
        while True:
            self.monitor.lock()
            while not (
                self.asked or self.asked_to_write or self.stopping or self.failure.code
            ):
                self.monitor.wait_until_asked()
            if self.stopping or self.failure.code:
                # Whoever waits for a ticket must look, and find the failure.
                self.signal()
                self.monitor.unlock()
                return
            # Another thread's sync may have been for it, too.
            ticket = self.submitted if self.asked and self.durable < self.submitted else 0
            handed_over = self.handed_over if self.asked_to_write else 0
            self.asked = self.asked_to_write = False
            self.monitor.unlock()
            if ticket:
                self.sync_to(ticket, &status)
            if handed_over:
                self.flush(handed_over, False, &status)
            self.monitor.lock()
            self.signal()
            self.monitor.unlock()

    cdef void signal(self) noexcept nogil:
        """Under `monitor`, so that nobody is told after forget(), when the number is another's."""
        cdef uint64_t one = 1
        cdef size_t i
        for i in range(self.events.size()):
            os_write(self.events[i], &one, 8)

    def start_write_behind(self):
        self.check_writable()
        with self.starting:
            self.check_writable()
            if self.behind is not None:
                raise InvalidArgumentError("a thread writes behind already")
            start_thread(self, run_write_behind, True)
            self.writes_behind = True

    cdef void run_write_behind(self) noexcept nogil:
        cdef Status status
        cdef int idle = 0
        self.monitor.lock()
        while not self.stopping and not self.failure.code:
            if self.written != self.appended:
                idle = 0
                if not self.writing and (
                    not self.syncing or self.append_segment == self.file.segment
                ):
                    self.write_pending(False, &status)
                    self.monitor.call_next()
                    if self.appended - self.written >= BEHIND_WAKE_BYTES:
                        continue
            elif idle < BEHIND_IDLE_ROUNDS:
                idle += 1
            else:
                self.asleep = True
                while self.asleep and not self.stopping and not self.failure.code:
                    self.monitor.wait()
                idle = 0
                continue
            self.monitor.wait_microseconds(BEHIND_MICROSECONDS)
        self.asleep = False
        self.monitor.unlock()

    def submit(self):
        self.check_writable()
        self.monitor.lock()
        cdef uint64_t ticket = self.appended
        self.submitted = ticket
        self.asked = True
        self.starved = False
        self.monitor.unlock()
        # Not before: who is woken would only wait for the lock.
        self.monitor.ask()
        return ticket

    def hand_over(self):
        self.check_writable()
        self.monitor.lock()
        cdef uint64_t ticket = self.appended
        self.handed_over = ticket
        self.asked_to_write = True
        self.starved = False
        self.monitor.unlock()
        self.monitor.ask()
        return ticket

    @property
    def durable_ticket(self):
        self.check_failed()
        self.monitor.lock()
        cdef uint64_t ticket = self.durable
        self.monitor.unlock()
        return ticket

    @property
    def synced_ticket(self):
        return self.durable_position()

    cdef uint64_t durable_position(self) noexcept nogil:
        self.monitor.lock()
        cdef uint64_t position = self.durable
        self.monitor.unlock()
        return position

    @property
    def written_ticket(self):
        return self.written_position()

    cdef uint64_t written_position(self) noexcept nogil:
        self.monitor.lock()
        cdef uint64_t position = self.written
        self.monitor.unlock()
        return position

    cdef bint is_behind(self) noexcept nogil:
        self.monitor.lock()
        cdef bint behind = self.appended - self.written > BEHIND_MOST_BYTES
        self.monitor.unlock()
        return behind

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

    def begin_next_segment(self):
        cdef Status status
        cdef int result
        self.check_writable()
        with nogil:
            self.monitor.lock()
            store_release(&self.rolling, 1)
            self.monitor.unlock()
            result = self.roll(0, &status)
        if result:
            raise self.error(&status)
        return self.append_segment

    @property
    def oldest_segment(self):
        self.monitor.lock()
        cdef uint64_t number = self.sealed_first if self.sealed_count else self.append_segment
        self.monitor.unlock()
        return number

    def remove_before(self, uint64_t index):
        cdef uint64_t number
        self.check_writable()
        removed = 0
        while True:
            self.monitor.lock()
            number = self.sealed_first if self.count_removable(index) else 0
            self.monitor.unlock()
            if not number:
                return removed
            self.remove_segment(number)
            removed += 1

    def remove_segments_before(self, uint64_t number):
        cdef uint64_t failed
        cdef int result
        self.check_writable()
        with nogil:
            result = self.drop_segments_before(number, &failed)
        if result < 0:
            raise self.removal_error(result, failed)

    cdef int drop_segments_before(self, uint64_t number, uint64_t* failed) noexcept nogil:
        cdef int result
        while True:
            self.monitor.lock()
            failed[0] = self.sealed_first if self.sealed_count else number
            self.monitor.unlock()
            if failed[0] >= number:
                return 0
            result = self.drop_segment(failed[0])
            if result < 0:
                return result

    cdef object removal_error(self, int result, uint64_t number):
        return os_failure(result, b"removing a log segment", segment_name(self.path, number))

    cdef bint needs_any(self, uint64_t index) noexcept nogil:
        """Whether it holds anything of that index or above, or may soon. Under `monitor`."""
        cdef size_t i
        if self.append_limit:
            return True
        for i in range(self.sealed_count):
            if self.sealed[i].highest >= index:
                return True
        return False

    cdef uint64_t bytes_held(self) noexcept nogil:
        cdef uint64_t size = 0
        cdef size_t i
        self.monitor.lock()
        for i in range(self.sealed_count):
            size += self.sealed[i].bytes
        if self.append_limit:
            size += self.append_offset
        self.monitor.unlock()
        return size

    cdef bint is_needed(self, uint64_t index) noexcept nogil:
        self.monitor.lock()
        cdef bint needed = self.needs_any(index)
        self.monitor.unlock()
        return needed

    cdef uint64_t beyond_unneeded(self, uint64_t index) noexcept nogil:
        self.monitor.lock()
        cdef uint64_t number = 0 if self.needs_any(index) else self.append_segment + 1
        self.monitor.unlock()
        return number

    cdef bint begin_rest(self, uint64_t index) noexcept nogil:
        self.monitor.lock()
        if (
            self.failure.code or self.stopping or not self.append_limit or self.rolling
            or self.writing or self.syncing or self.pending.first != NULL
            or self.durable != self.appended or self.durable_segment != self.append_segment
            or self.append_span.highest >= index or self.make_sealed() < 0
        ):
            self.monitor.unlock()
            return False
        self.append_span.bytes = self.append_offset
        self.seal(self.append_segment, &self.append_span)
        self.rest_limit = self.append_limit
        self.append_limit = 0
        self.rested = self.append_segment
        self.monitor.unlock()
        return True

    cdef void cancel_rest(self) noexcept nogil:
        self.monitor.lock()
        if self.rests() and self.removing < self.rested:
            self.sealed_count -= 1
            self.seals -= 1
            self.append_limit = self.rest_limit
            self.rested = 0
        self.monitor.unlock()

    cdef bint rests(self) noexcept nogil:
        """Whether nothing was begun since begin_rest(), nor is about to be. Under `monitor`."""
        return (
            self.rested != 0 and self.rested == self.append_segment and self.append_limit == 0
            and self.file.segment == self.rested and self.file.file != NULL
            and not self.writing and not self.syncing
        )

    cdef void leave_rested(self) noexcept nogil:
        """The file of a segment that was removed: its space is in use while it is open."""
        self.monitor.lock()
        if self.rests():
            self.writing = True
            self.monitor.unlock()
            log_file_close(&self.file)
            self.monitor.lock()
            self.writing = False
            self.monitor.call_next()
        self.monitor.unlock()

    def durable_places(self, uint64_t index):
        self.monitor.lock()
        if not self.needs_any(index) or self.is_let_go(index):
            self.monitor.unlock()
            return 0, 0, 0
        # A segment that isn't durable yet need not be there after a crash.
        cdef uint64_t first = self.sealed_first + self.count_removable(index)
        if not self.sealed_count or first > self.durable_segment:
            first = self.durable_segment
        cdef uint64_t segment = self.durable_segment
        cdef uint64_t end = self.durable_offset
        self.monitor.unlock()
        return first, segment, end

    cdef bint is_let_go(self, uint64_t index) noexcept nogil:
        """Whether nothing that is known to be durable is needed from that index on, so that it may be
        gone: a segment after it isn't known to be durable yet. Under `monitor`.
        """
        cdef size_t i
        if self.durable_segment > max(self.rested, self.removing):
            return False
        for i in range(self.sealed_count):
            if self.sealed_first + i <= self.durable_segment and self.sealed[i].highest >= index:
                return False
        return True

    def newest_place(self, uint64_t index=0):
        self.monitor.lock()
        cdef uint64_t segment = self.durable_segment
        cdef uint64_t offset = self.durable_offset
        if not self.needs_any(index) or self.is_let_go(index):
            segment = offset = 0
        if self.begun_segment > self.durable_segment and self.begun_segment > self.rested:
            segment = self.begun_segment
            offset = SEGMENT_HEADER_BYTES
        self.monitor.unlock()
        return segment, offset

    cdef size_t count_removable(self, uint64_t index) noexcept nogil:
        """Of the oldest segments, how many hold only indexes below `index`. Under `monitor`."""
        cdef size_t count = 0
        while (
            # The sync that covered a later segment made its copies of the sticky records durable.
            count < self.sealed_count
            and self.sealed_first + count < self.durable_segment
            and self.sealed[count].highest < index
        ):
            count += 1
        return count

    cdef int remove_segment(self, uint64_t number) except -1:
        cdef int result
        with nogil:
            result = self.drop_segment(number)
            gil_ask()
        gil_have()
        if result < 0:
            raise self.removal_error(result, number)
        return 0

    cdef int drop_segment(self, uint64_t number) noexcept nogil:
        """Removes the oldest segment, or puts it aside to be recycled. 0 or -errno."""
        cdef char name[PATH_BYTES]
        cdef char spare[PATH_BYTES]
        cdef int result
        self.monitor.lock()
        # Nothing is kept for a log that rests: it may do so for long.
        cdef bint recycle = self.spare == 0 and self.append_limit != 0
        # Whoever reads it from here on may find another segment's bytes, and no damage.
        self.removing = max(self.removing, number)
        self.monitor.unlock()
        segment_path(name, self.folder, number, b"wal")
        segment_path(spare, self.folder, number, b"spare")
        if recycle:
            result = self.ops.rename(self.disk, name, spare)
        else:
            result = self.ops.unlink(self.disk, name)
        # One by one and in order, so that no crash can leave a gap between segments.
        if result == 0 or result == -ENOENT:
            recycle = recycle and result == 0
            result = self.ops.sync_directory(self.disk, self.folder)
        if result < 0:
            return result
        self.monitor.lock()
        self.sealed_count -= 1
        self.sealed_first += 1
        if number == self.append_segment:
            self.rested = number
        memmove(self.sealed, self.sealed + 1, self.sealed_count * sizeof(Span))
        if recycle:
            self.spare = number
        self.monitor.unlock()
        if number == self.rested:
            self.leave_rested()
        return 0

    # --- reading back ----------------------------------------------------------------------------

    def replay(self, uint64_t index=0):
        cdef size_t skipped = 0
        self.monitor.lock()
        while skipped + 1 < self.sealed_count and self.sealed[skipped].highest < index:
            skipped += 1
        self.monitor.unlock()
        return LogReplay(self, self.found[skipped:])

    def newest(self, kind):
        check_kind(kind)
        cdef Sticky* held = &self.sticky[<int> kind]
        cdef object payload = None
        self.monitor.lock()
        cdef bint known = held.known
        self.monitor.unlock()
        if known:
            payload = <bytes> held.payload.data[: held.payload.size]
        return payload

    @property
    def first_index(self):
        cdef uint64_t lowest = 0
        cdef size_t i
        self.monitor.lock()
        for i in range(self.sealed_count):
            if self.sealed[i].lowest and (lowest == 0 or self.sealed[i].lowest < lowest):
                lowest = self.sealed[i].lowest
        if self.append_limit and self.append_span.lowest:
            if lowest == 0 or self.append_span.lowest < lowest:
                lowest = self.append_span.lowest
        self.monitor.unlock()
        return lowest

    def first_of_tail(self, uint64_t least_bytes):
        cdef uint64_t size, index = 0
        cdef size_t i
        self.monitor.lock()
        size = self.append_offset if self.append_limit else 0
        i = self.sealed_count
        while i > 0 and size < least_bytes:
            i -= 1
            size += self.sealed[i].bytes
        while i > 0:
            i -= 1
            index = max(index, self.sealed[i].highest)
        self.monitor.unlock()
        return index + 1

    cdef bint find_place(self, uint64_t first, Place* place) noexcept nogil:
        """The newest segment that has the entry. Under `monitor`. False: none that can be read."""
        cdef Span* span
        cdef size_t i = self.sealed_count + 1
        place.limit = 0xFFFFFFFFFFFFFFFF
        if not self.append_limit:
            i -= 1
        while i > 0:
            i -= 1
            span = &self.append_span if i == self.sealed_count else &self.sealed[i]
            if span.lowest and span.lowest <= first <= span.highest:
                place.span = span[0]
                place.segment = self.append_segment if i == self.sealed_count else self.sealed_first + i
                place.end = (
                    self.durable_offset if place.segment == self.durable_segment else span.bytes
                )
                return self.removing < place.segment <= self.durable_segment
            if span.lowest:
                place.limit = min(place.limit, span.lowest)
        return False

    cdef bint is_gone(self, uint64_t segment) noexcept nogil:
        self.monitor.lock()
        cdef bint gone = segment <= self.removing
        self.monitor.unlock()
        return gone

    def read_entries(self, uint64_t first, uint64_t last, size_t bytes_max):
        cdef Place place
        cdef RangeEntries found
        cdef SegmentReader reader
        cdef RangeEntry* entry
        cdef Status status
        cdef bytes name
        cdef const char* raw
        cdef size_t i
        cdef int result
        if self.closed:
            raise ClosedError(f"the log {self.path} is closed")
        if not 1 <= first <= last:
            raise InvalidArgumentError(f"entries {first} to {last} of a log")
        self.monitor.lock()
        cdef bint there = self.find_place(first, &place)
        self.monitor.unlock()
        if not there:
            return None
        where = segment_name(self.path, place.segment)
        name = os.fsencode(where)
        raw = name
        status_clear(&status)
        memset(&found, 0, sizeof(RangeEntries))
        try:
            with nogil:
                result = segment_open(&reader, self.ops, self.disk, raw, &status)
                if result == 0:
                    result = read_place(
                        &reader, &place, self.log_id_raw, first, last, bytes_max, &found, &status
                    )
                segment_close(&reader)
            if result:
                if self.is_gone(place.segment):
                    return None
                raise status_error(&status, where)
            entries = []
            for i in range(range_count(&found)):
                entry = range_entry(&found, i)
                entries.append((
                    entry.kind, entry.index, entry.term,
                    <bytes> found.payloads.data[entry.start : entry.start + entry.size],
                ))
            return entries
        finally:
            range_free(&found)

    # --- ending ----------------------------------------------------------------------------------

    cdef void remove_spare(self) noexcept nogil:
        """It is of no use to a log that rests. Where that fails the next opening does it."""
        cdef char name[PATH_BYTES]
        if self.spare:
            segment_path(name, self.folder, self.spare, b"spare")
            self.ops.unlink(self.disk, name)
            self.spare = 0

    def close(self):
        cdef Status status
        cdef int result = 0
        if self.closed and not self.closing:
            return
        self.closed = self.closing = True
        self.monitor.lock()
        self.stopping = True
        self.monitor.notify()
        self.monitor.ask()
        self.monitor.unlock()
        # A signal's handler may raise here, and only here.
        with self.starting:
            threads = (self.behind, self.writer)
        for thread in threads:
            # Not alive is also one that this call, in a signal's handler, found being started.
            if thread is not None and thread.is_alive():
                thread.join()
        if not self.closing:
            return              # another thread was as far first
        self.closing = False
        self.monitor.lock()
        self.events.resize(0, kv_realloc)
        status = self.failure
        # Without memory for the mark the next opening takes the log for one that was not closed.
        cdef bint clean = self.append_limit and status.code == OK and (
            self.put_record(KIND_CLEAN_CLOSE, 0, 0, slice_of(NULL, 0)) == 0
        )
        self.monitor.unlock()
        if self.append_limit and status.code == OK:
            with nogil:
                result = self.sync_to(self.position(), &status)
        with nogil:
            if result == 0 and status.code == OK and clean:
                # Tells the next opening, too, that the sync of all before it went well.
                log_file_trim(&self.file)
            if not self.read_only:
                self.remove_spare()
        self.release()
        if self.watched is not None:
            (<GuardedFileSystem> self.filesystem).let_go()
            self.watched.close()
        if result:
            raise self.error(&status)

    cdef void release(self) noexcept:
        cdef int kind
        with nogil:
            log_file_close(&self.file)
        chunks_free(self.pending.first)
        chunks_free(self.spares)
        kv_free(self.reserved)
        self.pending.first = self.pending.last = self.spares = self.reserved = NULL
        for kind in range(KIND_USER_MAX + 1):
            buffer_free(&self.sticky[kind].payload)
        if self.event >= 0:
            os_close(self.event)
            self.event = -1

    def __dealloc__(self):
        if self.ops != NULL:
            self.release()
        kv_free(self.sealed)

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
        cdef uint64_t segments = self.sealed_count + (1 if self.append_limit else 0)
        self.monitor.unlock()
        return {
            "appended_bytes": appended,
            "durable_bytes": durable,
            "syncs": syncs,
            "segments": segments,
            "segment": segment,
        }


cdef int start_thread(Log log, object target, bint behind) except -1:
    """One of the log's own; where the system has no thread for it the log is as it was."""
    thread = threading.Thread(target=target, args=(log,), name="kvstore-log", daemon=True)
    # Before it starts: a signal's handler may raise once it runs.
    log.behind = thread if behind else log.behind
    log.writer = log.writer if behind else thread
    try:
        thread.start()
    except RuntimeError as error:
        if not is_refused(error):
            raise
        if behind:
            log.behind = None
        else:
            log.writer = None
        raise StorageError(
            f"no thread for the log's writer ({error})", path=log.path, errno=EAGAIN
        ) from error
    return 0


def run_writer(Log log not None):
    with nogil:
        log.run_writer()


def run_write_behind(Log log not None):
    with nogil:
        log.run_write_behind()


cdef int check_ids(Recovered found, bytes log_id, bytes database_id, str where) except -1:
    cdef Status status
    status_clear(&status)
    if log_id is not None and found.log_id != log_id:
        status_set(&status, INVALID_RECORD, b"segment of another log", 40)
        raise status_error(&status, where)
    if database_id is not None and found.database_id != database_id:
        status_set(&status, INVALID_RECORD, b"log of another database", 56)
        raise status_error(&status, where)
    return 0


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
    cdef set hollows

    def __init__(self, Log log not None, list numbers not None):
        self.log = log
        self.numbers = numbers
        self.hollows = {(hollow.path, hollow.offset) for hollow in log.recovery.hollows}

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
                if self.reader.hollow and (self.where, self.reader.position) in self.hollows:
                    segment_pass(&self.reader, &record)
                    return record.kind, record.index, record.term, None
                segment_close(&self.reader)
                self.reading = False
            elif record.kind <= KIND_USER_MAX:
                return record.kind, record.index, record.term, <bytes> payload[: record.payload_bytes]

    def __dealloc__(self):
        if self.reading:
            segment_close(&self.reader)
