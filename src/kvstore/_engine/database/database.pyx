"""Database: writes, reads and the running of background work.

A write goes into the mutable memtable and the log under the GIL, in one order. It is not seen
until `visible` reaches its sequence: at once when it needn't be durable, else after the sync. A
write behind others that await their sync waits with them, so that what is seen is always a prefix
of what was written. A write that fails after it was begun is never seen, and the store is
read-only from then on.
"""

import os
import resource
import threading
import time
from collections import deque

cimport cython
from libc.errno cimport EAGAIN, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    KIND_DELETE,
    KIND_PUT,
    KIND_RANGE_DELETE,
    PodVector,
    Slice,
    Status,
    buffer_free,
    buffer_init,
    buffer_reserve,
    get_fixed32,
    gil_ask,
    gil_have,
    gil_is_asked_for,
    gil_step_aside,
    internal_trailer,
    internal_user_key,
    kv_realloc,
    max_sequence,
    trailer_kind,
    put_fixed32,
    slice_compare,
    slice_of,
    status_clear,
    status_error,
    status_no_memory,
    store_release,
    view_close,
    view_open,
)
from kvstore._engine.primitives.threads import is_not_begun
from kvstore._engine.files.native cimport FileSystem, guard
from kvstore._engine.log.native cimport Log, MAX_PAYLOAD_BYTES, RETRY
from kvstore._engine.memtable.native cimport (
    RangeTombstone,
    memtable_add,
    memtable_delete_ranges,
    memtable_is_empty,
    memtable_largest,
    memtable_new,
    memtable_prefetch,
    memtable_provide,
    memtable_used,
)
from kvstore._engine.table.native cimport cache_new
from kvstore._engine.version.native cimport (
    LEVELS,
    Level,
    open_tables_leave_to,
    open_tables_new,
    open_tables_has_unwanted,
    open_tables_remove_unwanted,
    version_empty,
)

from kvstore._engine.version.native import Edit

from kvstore._engine.database.background import OPEN_STORES
from kvstore.errors import InternalError, InvalidArgumentError, OverloadedError, StorageError


cdef enum:
    MAX_FOUND_SEGMENTS = 8      # with more of them opening flushes, so that they can go
    LOG_BEHIND_BYTES = 8 << 20  # written to the log since a background thread last synced it
    OPERATION_BYTES = 64        # an operation takes at most so much beside its key and value
    KEPT_SCRATCH_BYTES = 1 << 20
    FEWEST_OPEN_TABLES = 16
    OTHER_DESCRIPTORS = 64      # of those that the process may have, left to everything else
    MOST_READINGS = 100         # of what a batch expects, while flushes make them void
    LOOKS = 64                  # at the pace that a memtable is filled, at least
    LOOK_BYTES = 65536          # between two of them at most
    HANDED_OVER_FIRST = 128     # writes that are handed to the system one by one before a thread does it
    APPLY_AHEAD = 3             # operations between the one applied and the one prefetched


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class Database(Store):
    def __init__(self, str name, FileSystem filesystem not None, options, int compression):
        cdef bytes raw
        if self.version != NULL:
            raise InvalidArgumentError("a database object opens once")
        buffer_init(&self.scratch)
        self.closed_flag = ClosedFlag()
        self.work = EventCount()
        self.closers = set()
        self.name = name
        self.options = options
        self.write_buffer_bytes = options.write_buffer_size
        self.max_frozen = options.max_write_buffers - 1
        self.max_file_bytes = options.max_file_size
        self.level_base_bytes = options.level_size_base
        self.level_multiplier = options.level_size_multiplier
        self.compaction_trigger = options.compaction_trigger
        self.slowdown_files = options.slowdown_files
        self.stop_files = options.stop_files
        self.uses_log = options.wal
        self.read_only = options.read_only
        self.background = options.background and not self.read_only
        if options.history_prefixes is not None:
            self.history = history_of(options.history_prefixes, self.history_bounds)
        self.table_options.block_bytes = options.block_size
        self.table_options.restart_interval = options.block_restart_interval
        self.table_options.bloom_bits = options.bloom_filter_bits
        self.table_options.compression = compression
        self.path = filesystem.resolve(name)
        raw = os.fsencode(self.path)
        if len(raw) > 3500:
            raise InvalidArgumentError(f"{name!r} is no usable path")
        self.disk = self.guard = guard(filesystem, f"{self.path}/LOCK")
        self.version = version_empty()
        self.memory = memtable_new(self.write_buffer_bytes)
        self.cache = cache_new(options.lru_cache_size, index_cache_bytes(options.lru_cache_size))
        self.tables = open_tables_new(
            self.disk.ops, self.disk.disk, self.cache, raw, most_open_tables(options.max_open_files)
        )
        if self.version == NULL or self.memory == NULL or self.tables == NULL or self.cache == NULL:
            raise MemoryError("no memory for a database")
        self.tables.read_only = self.read_only
        self.tables.mapped = options.mmap_reads
        try:
            if self.read_only:
                self.open_to_read(self.path)
            else:
                self.open_directory(self.path)
                self.recover(options.create_if_missing, options.error_if_exists)
            self.open = True
            if options.paranoid_checks:
                self.verify()
            self.refresh_attention()
            if not self.read_only:
                self.flush_recovered()
            OPEN_STORES.add(self)
            if self.frozen_count or self.flush_retry.error is not None:
                self.call_threads()
            self.call_for_compaction()
        except BaseException:
            self.open = False
            self.attention = True
            # What it was refused for is left as it was found: END isn't written at its end.
            self.manifest_stands = False
            OPEN_STORES.discard(self)
            try:
                self.stop_threads()
            finally:
                self.shut_quietly()
            raise

    cdef int write_behind(self) except -1:
        """From here on a thread hands over what isn't synced, where that is worth one."""
        self.handed_over += 1
        if self.handed_over < HANDED_OVER_FIRST or not self.background or (
            self.options.write_through or not self.open
        ):
            return 0
        self.handed_over = 0        # where there is no thread to be had it is tried again
        try:
            self.log.start_write_behind()
        except (ClosedError, InvalidArgumentError):
            pass                    # another thread was as far first, or closes it
        except StorageError as error:
            if error.errno != EAGAIN:
                raise
        return 0

    cdef int stop_threads(self) except -1:
        """Those of a database that isn't open any more; again where it was interrupted."""
        store_release(&self.stop_jobs, 1)
        self.work.advance()
        self.arrivals.advance()
        self.changed.advance()
        for thread in self.threads:
            if thread is not threading.current_thread():
                try:
                    thread.join()
                except RuntimeError as error:
                    # One that is about to start sees that there is nothing to do any more.
                    if not is_not_begun(error):
                        raise
        if self.held is not None:
            self.held.end()
        return 0

    cdef int flush_recovered(self) except -1:
        try:
            while flush_oldest(self):
                pass
        except Exception as error:
            # As in any other write: it waits in memory, and in the log.
            if self.failure is not None or not is_retryable(error) or not self.uses_log:
                raise
        if self.log is not None and (
            sum(number >= self.log_first for number in self.log.found) > MAX_FOUND_SEGMENTS
        ):
            # Many short openings, each with a segment of its own that nothing was due to flush.
            try:
                self.flush_all()
            except Exception as error:
                if self.failure is not None or not is_retryable(error):
                    raise
        if not self.uses_log and self.log is not None:
            # Written by an earlier opening with a log: into tables, then the log is done with.
            self.flush_all()
            self.log.close()
            self.log = None
            with self.installing:
                self.say_that_no_log_is_needed()
        return 0

    def __dealloc__(self):
        buffer_free(&self.scratch)

    def _after_fork(self):
        self.closed_flag.closed = True
        super()._after_fork()

    def __del__(self):
        if (self.open or self.closing) and not self.forked:
            try:
                self.close()
            except (OSError, StorageError):
                pass            # as a file's: nobody is there to be told

    # --- writing ------------------------------------------------------------------------------

    def put(self, key, value, *, bint sync=False):
        cdef BytesView key_view
        cdef BytesView value_view
        view_open(key, &key_view, "key")
        value_view.held = False
        try:
            view_open(value, &value_view, "value")
            self.put_one(KIND_PUT, key_view.slice, value_view.slice, sync)
        finally:
            view_close(&key_view)
            view_close(&value_view)

    def delete(self, key, *, bint sync=False):
        cdef BytesView key_view
        view_open(key, &key_view, "key")
        try:
            self.put_one(KIND_DELETE, key_view.slice, slice_of(NULL, 0), sync)
        finally:
            view_close(&key_view)

    def __setitem__(self, key, value):
        self.put(key, value)

    def __delitem__(self, key):
        cdef BytesView view
        self.check_open()
        view_open(key, &view, "key")
        try:
            if not is_there(self, view.slice, self.visible):
                raise KeyError(key)
            self.put_one(KIND_DELETE, view.slice, slice_of(NULL, 0), False)
        finally:
            view_close(&view)

    cdef int put_one(self, int kind, Slice key, Slice value, int how) except -1:
        cdef uint64_t sequence
        cdef int waits
        check_sizes(key, value)
        if how == LEFT:
            if would_wait(self, key.size + value.size + OPERATION_BYTES):
                return 1
        else:
            if gil_is_asked_for():
                gil_step_aside()
            if self.attention:
                self.settle()
            if memtable_used(self.memory) >= self.look_at:
                self.look(kind == KIND_DELETE)
        if self.log is not None:
            if key.size + value.size > MAX_PAYLOAD_BYTES - OPERATION_BYTES:
                raise InvalidArgumentError(
                    f"a write of {key.size + value.size} bytes is over "
                    f"{MAX_PAYLOAD_BYTES - OPERATION_BYTES}, the most that the log takes"
                )
            # Of LEFT ones would_wait() had it reserved: this says 0.
            waits = self.log.reserve(key.size + value.size + OPERATION_BYTES)
            if waits:
                self.reserve_log(
                    key.size + value.size + OPERATION_BYTES, waits, kind == KIND_DELETE
                )
            self.scratch.size = BATCH_HEADER_BYTES
            if self.scratch.capacity < BATCH_HEADER_BYTES:
                self.scratch.size = 0
                if buffer_reserve(&self.scratch, 256) < 0:
                    raise MemoryError("no memory for a write")
                self.scratch.size = BATCH_HEADER_BYTES
            put_fixed32(self.scratch.data, 1)
            if encode_operation(
                &self.scratch, kind, False, 0, slice_of(NULL, 0), key, value
            ) < 0:
                raise MemoryError("no memory for a write")
        self.check_sequences_left(1)
        sequence = self.assigned + 1
        if memtable_add(self.memory, key, sequence, kind, value, False) < 0:
            raise MemoryError("no memory for a write")
        self.assigned = sequence
        if kind == KIND_PUT:
            dead_put(&self.dead, key, sequence)
        self.user_bytes += key.size + value.size
        if self.log is None:
            self.visible = sequence
            return 0
        self.log_write(sequence, slice_of(self.scratch.data, self.scratch.size), how)
        if self.scratch.capacity > KEPT_SCRATCH_BYTES:
            buffer_free(&self.scratch)
        return 0

    def write(self, WriteBatch batch not None, *, bint sync=False, sequence=None, applied_index=None):
        cdef int i
        if batch.expectations is not None:
            forget_read(batch)
        for i in range(MOST_READINGS):
            self.check_open()
            if batch.expectations is not None:
                read_expected(self, batch)
            if applied_index is None:
                self.prepare_write()
            else:
                self.prepare_numbered_write()
            written = self.write_now(batch, sync, sequence, applied_index)
            if written is not None:
                return written
        raise OverloadedError(f"between reading and writing came a flush, {MOST_READINGS} times")

    cdef int prepare_write(self) except -1:
        """What may let other threads in before a write."""
        if gil_is_asked_for():
            gil_step_aside()
        if self.attention:
            self.settle()
        if memtable_used(self.memory) >= self.look_at:
            self.look(False)
        return 0

    cdef int prepare_numbered_write(self) except -1:
        """As prepare_write, but whoever keeps a log paces itself: make_room and write_delay say how."""
        if gil_is_asked_for():
            gil_step_aside()
        if self.attention:
            self.check_writable()
        if self.memory_is_full():
            self.provide_room()
        return 0

    cdef object write_now(self, WriteBatch batch, int how, object sequence, object applied_index):
        cdef uint64_t first
        cdef Slice payload
        cdef int waits
        # From here on nothing lets other threads in, until all of it is in the memtable and the log,
        # but for a log that begins a segment.
        if (sequence is not None or applied_index is not None or batch.numbered) and self.uses_log:
            raise InvalidArgumentError("sequence= and applied_index= are for wal=False")
        if applied_index is not None and applied_index < self.applied_index:
            raise InvalidArgumentError(
                f"applied_index {applied_index} is below {self.applied_index}, the last one"
            )
        if batch.numbered and sequence is None:
            raise InvalidArgumentError("the batch's operations are numbered: give sequence=, too")
        if sequence is not None and not self.assigned <= sequence <= max_sequence():
            raise InvalidArgumentError(
                f"sequence {sequence} is below {self.assigned}, the last one, or over 2**56 - 1"
            )
        payload = batch.payload()
        if self.uses_log and payload.size > MAX_PAYLOAD_BYTES:
            raise InvalidArgumentError(
                f"a batch of {payload.size} bytes is over {MAX_PAYLOAD_BYTES}, the most that the log takes"
            )
        if sequence is None:
            self.check_sequences_left(batch.count)
        if batch.numbered or (batch.has_ranges and sequence is not None):
            check_numbers(payload, sequence)
        if batch.count and self.log is not None:
            waits = self.log.reserve(payload.size)
            if waits:
                # Others may write meanwhile; numbered batches and applied indexes are for wal=False.
                self.reserve_log(payload.size, waits, only_deletes(payload))
                payload = batch.payload()
        if batch.expectations is not None and not is_as_expected(self, batch):
            return None
        if batch.count:
            first = self.assigned + 1 if sequence is None else sequence
            self.apply(payload, first, sequence is not None, False, batch.has_ranges)
        if applied_index is not None:
            self.applied_index = applied_index
        if batch.count == 0:
            if how == SYNCED:
                self.sync()
            return self.visible
        if self.log is None:
            self.visible = self.assigned
        else:
            self.log_write(first, payload, how)
        return self.visible

    cdef int reserve_log(self, size_t payload_bytes, int answer, bint deletes) except -1:
        """What Log.reserve() wants done before the log can take a record; nothing is written yet.

        Once it returns the GIL is not given up before the record is appended. Deletes may use up the
        reserve of a full disk.
        """
        cdef Status status
        cdef Log log = self.log
        cdef int result
        while answer:
            if answer < 0:
                status_no_memory(&status, b"memory for a record of the log")
                raise status_error(&status, log.path)
            with nogil:
                result = log.roll(payload_bytes, &status)
            if result < 0:
                self.check_open()
                error = status_error(&status, log.path)
                if result != RETRY:
                    self.fail(error)
                elif (
                    self.make_descriptors(error) or self.give_up_kept_log(error)
                    or (deletes and self.make_space(error))
                ):
                    answer = log.reserve(payload_bytes)
                    continue
                raise error
            if result == 0:
                # Should it be lost, nothing in the log would say that it was there.
                self.log_rolled = True
                if self.threads_begun:
                    self.work.advance()
                else:
                    self.note_rolled_log()
                self.renew_reserve()
            if self.attention:
                self.settle()
            if self.memory_is_full():
                self.provide_room()
            answer = log.reserve(payload_bytes)
        return 0

    cdef int note_rolled_log(self) except -1:
        self.log_rolled = False
        with self.installing:
            self.note_manifest()
        return 0

    cdef bint give_up_kept_log(self, object error) except -1:
        if not is_lack_of_space(error):
            return False
        with self.flushing:
            self.check_open()
            return remove_kept_log(self)

    cdef int write_ascending(self, Slice payload) except -1:
        cdef uint64_t first
        cdef int waits
        if gil_is_asked_for():
            gil_step_aside()
        if self.attention:
            self.settle()
        if memtable_used(self.memory) >= self.look_at:
            self.look(False)
        if self.log is not None:
            waits = self.log.reserve(payload.size)
            if waits:
                self.reserve_log(payload.size, waits, False)
        self.check_sequences_left(get_fixed32(payload.data))
        first = self.assigned + 1
        self.apply(payload, first, False, True, False)
        if self.log is None:
            self.visible = self.assigned
            return 0
        return self.log_write(first, payload, False)

    def sync(self):
        cdef Status status
        cdef uint64_t ticket
        cdef int result
        cdef Log log = self.log
        self.check_writable()
        if log is None:
            return
        if self.is_holding():
            self.held.wait_behind()
        status_clear(&status)
        ticket = log.position()
        with nogil:
            result = log.sync_to(ticket, &status)
        if result < 0:
            error = status_error(&status, self.path)
            self.fail(error)
            raise error
        if self.unseen:
            self.show_left()

    cdef int apply_ranges(self, Slice payload, uint64_t first, bint numbered) except -1:
        cdef const uint8_t* at = payload.data + BATCH_HEADER_BYTES
        cdef const uint8_t* end = payload.data + payload.size
        cdef uint32_t count = get_fixed32(payload.data)
        cdef uint64_t sequence = first
        cdef PodVector[RangeTombstone] ranges
        cdef RangeTombstone tombstone
        cdef Operation operation
        cdef uint32_t i
        for i in range(count):
            at = decode_operation(at, end, &operation)
            if operation.numbered:
                sequence = operation.sequence
            elif not numbered:
                sequence = first + i
            if operation.kind == KIND_RANGE_DELETE:
                range_of(&operation, sequence, &tombstone)
                if ranges.push(tombstone, kv_realloc) < 0:
                    raise MemoryError("no memory for a batch")
        if memtable_delete_ranges(self.memory, ranges.data(), ranges.size()) < 0:
            raise MemoryError("no memory for a batch")
        return 0

    cdef int apply(
        self, Slice payload, uint64_t first, bint numbered, bint ascending, bint has_ranges
    ) except -1:
        """All operations into the memtable, unseen as yet, or none of them."""
        cdef const uint8_t* at = payload.data + BATCH_HEADER_BYTES
        cdef const uint8_t* end = payload.data + payload.size
        cdef uint32_t count = get_fixed32(payload.data)
        cdef uint64_t sequence = first
        cdef const uint8_t* ahead = at
        cdef Operation operation
        cdef Operation later
        cdef uint32_t i
        if memtable_provide(self.memory, count, payload.size) < 0:
            raise MemoryError("no memory for a batch")
        if has_ranges:
            # The last thing that may lack memory.
            self.apply_ranges(payload, first, numbered)
        for i in range(min(count, <uint32_t> APPLY_AHEAD)):
            ahead = decode_operation(ahead, end, &later)
        for i in range(count):
            if i + APPLY_AHEAD < count:
                # Each addition misses the CPU's cache in its own node: let the misses overlap.
                ahead = decode_operation(ahead, end, &later)
                memtable_prefetch(self.memory, later.key, ascending and i > 0)
            at = decode_operation(at, end, &operation)
            if operation.numbered:
                sequence = operation.sequence
            elif not numbered:
                sequence = first + i
            if operation.kind != KIND_RANGE_DELETE and memtable_add(
                self.memory, operation.key, sequence, operation.kind, operation.value,
                ascending and i > 0,
            ) < 0:
                # A key or value beyond every limit: its batch was refused before.
                error = InternalError("an operation of a batch doesn't fit the memtable")
                self.assigned += 1
                self.fail(error)
                raise error
            if operation.kind == KIND_PUT:
                dead_put(&self.dead, operation.key, sequence)
            self.user_bytes += operation.key.size + operation.value.size
        self.assigned = sequence
        return 0

    cdef int log_write(self, uint64_t first, Slice payload, int how) except -1:
        cdef Status status
        cdef uint64_t ticket
        cdef uint64_t last = self.assigned
        # A write behind others that await their sync waits with them; one that waits for nothing is
        # seen with them.
        cdef bint syncs = how == SYNCED or (how != LEFT and self.awaiting_sync != 0)
        cdef bint behind = self.visible != first - 1
        cdef int result
        cdef Log log = self.log
        status_clear(&status)
        if how == LEFT or not (syncs or behind):
            result = log.append_through(LOG_KIND_BATCH, first, 0, payload, &status)
            # 1 of a LEFT one: its future waits for that (told()), where no thread can be had.
            if result == 0 or (result == 1 and how == LEFT):
                if not log.writes_behind:
                    self.handed_over = HANDED_OVER_FIRST
                    self.write_behind()
                self.log_behind += payload.size
                if self.log_behind >= LOG_BEHIND_BYTES and self.background:
                    self.call_log_sync()
                if behind:
                    return self.leave_unseen(last)
                self.visible = last
                if self.feeds_wait:
                    self.tell_feeds()
                return 0
        else:
            result = log.append_slice(LOG_KIND_BATCH, first, 0, payload, &status)
        if result >= 0:
            self.attention = True
            ticket = log.position()
            if syncs:
                self.sync_ticket = ticket
                self.awaiting_sync += 1
                with nogil:
                    result = log.sync_to(ticket, &status)
                self.awaiting_sync -= 1
            else:
                # No thread writes behind, or it doesn't keep up.
                self.write_ticket = ticket
                with nogil:
                    result = log.write_out(&status)
        if result < 0:
            error = status_error(&status, self.path)
            self.fail(error)
            raise error
        if last > self.visible:
            self.visible = last
        if not syncs and not log.writes_behind:
            self.write_behind()
        if self.feeds_wait:
            self.tell_feeds()
        if self.unseen:
            self.show_left()
        self.refresh_attention()
        return 0

    cdef int leave_unseen(self, uint64_t last) except -1:
        self.attention = True
        if self.unseen is None:
            self.unseen = deque()
        self.unseen.append((self.sync_ticket, self.write_ticket, last))
        return 0

    cdef int show_left(self) except -1:
        cdef uint64_t durable = self.log.durable_position()
        cdef uint64_t written = self.log.written_position()
        cdef uint64_t last = 0
        while self.unseen and self.unseen[0][0] <= durable and self.unseen[0][1] <= written:
            last = self.unseen.popleft()[2]
        if last > self.visible:
            self.visible = last
            if self.feeds_wait:
                self.tell_feeds()
            self.refresh_attention()
        return 0

    cdef int tell_feeds(self) except -1:
        self.feeds_wait = False
        self.arrivals.advance()
        return 0

    cdef int call_log_sync(self) except -1:
        """So that the end of a segment, where a writer waits for the disk, finds little to sync."""
        self.log_behind = 0
        self.log_due = True
        return self.call_threads()

    cdef int settle(self) except -1:
        """What keeps a write from the short way, but for those that wait: refuse it, or let others go first."""
        self.check_writable()
        if self.is_holding():
            # Those came first.
            self.held.wait_behind()
            self.check_writable()
        return 0

    cdef int look(self, bint deletes) except -1:
        """So much was written that the memtable may be full, or the writer too fast."""
        cdef size_t used = memtable_used(self.memory)
        cdef size_t since
        cdef size_t step = min(self.write_buffer_bytes // LOOKS, <size_t> LOOK_BYTES)
        if used >= self.write_buffer_bytes:
            self.provide_room_to_delete() if deletes else self.provide_room()
            self.let_flush_in()
            return self.check_writable()
        since = used - self.looked_at
        # Before others are let in, who may freeze it.
        self.looked_at = used
        self.look_at = min(used + step, self.write_buffer_bytes)
        return keep_pace(self, since) if self.threads_begun and not self.draining else 0

    cdef bint memory_is_full(self) noexcept:
        return memtable_used(self.memory) >= self.write_buffer_bytes

    cdef int provide_room(self) except -1:
        """Freeze the full memtable; wait where too many are frozen, or level 0 is too full."""
        cdef double began
        self.check_writable()
        if not self.has_threads():
            return self.provide_room_here()
        if self.must_stop():
            self.stalls += 1
            began = time.monotonic()
            # Whoever froze memory may have been interrupted before it called the flush.
            self.work.advance()
            while True:
                seen = self.changed.count
                if not self.must_stop() or not self.threads_begun:
                    break
                self.check_writable()
                self.check_flushes()
                self.changed.wait(seen)
            self.stall_seconds += time.monotonic() - began
            self.check_writable()
            if not self.threads_begun:
                return self.provide_room_here()
        # Another thread may have frozen it meanwhile.
        if self.memory_is_full():
            self.freeze()
            self.call_threads()
        # Whoever starts or notifies threads may lose the GIL, and find the database closed.
        return self.check_writable()

    cdef int let_flush_in(self) noexcept:
        """The thread that was called wakes up without the GIL, and would wait for it first of all."""
        if self.flush_sleeps:
            gil_ask()
            gil_step_aside()
            gil_have()
        return 0

    cdef int provide_room_to_delete(self) except -1:
        """As provide_room; but the full disk that a put waits for is what deleting may mend."""
        try:
            self.provide_room()
        except StorageError as error:
            if (
                self.failure is not None or not is_lack_of_space(error)
                or memtable_used(self.memory) >= 2 * self.write_buffer_bytes
            ):
                raise
        return 0

    cdef int provide_room_here(self) except -1:
        """Without threads: what is due is done in this one."""
        if self.frozen_count >= self.max_frozen:
            if not self.flush_retry.due_here():
                self.check_flushes()
            flush_oldest(self)
        self.freeze()
        try:
            self.background_work()
        except Exception as error:
            # There is room for this write, whatever becomes of the flush.
            if self.failure is not None or not is_retryable(error):
                raise
        return self.check_writable()

    cdef int check_flushes(self) except -1:
        """Raises, for one write, why there is no room for it; it may go well later."""
        error = self.flush_retry.error
        if error is None:
            return 0
        raise StorageError(
            f"no room for the write: memory waits for a flush, which failed ({error}) and is "
            "tried again", path=self.path, errno=getattr(error, "errno", ENOMEM),
        )

    cdef bint must_stop(self) except -1:
        """A write must wait: for a flush, or for a compaction of level 0 if there can be one."""
        if not self.memory_is_full():
            return False
        return self.frozen_count >= self.max_frozen or (
            self.version.levels[0].count >= self.stop_files
            and self.compaction_retry.error is None and not self.damaged_tables
        )

    def make_room(self, *, bint wait=True):
        self.check_writable()
        if not self.memory_is_full():
            return True
        if not wait and self.has_threads() and self.must_stop():
            self.check_flushes()
            return False
        self.provide_room()
        return True

    @property
    def write_delay(self):
        self.check_open()
        return self.delay_wanted() if self.threads_begun else 0.0

    cdef double delay_wanted(self) noexcept:
        """Seconds, the more the more tables level 0 has; none below `slowdown_files`."""
        cdef int over = self.version.levels[0].count - self.slowdown_files + 1
        cdef int room = self.stop_files - self.slowdown_files
        return 0.001 * min(over, room) / room if over > 0 else 0.0

    # --- background work ----------------------------------------------------------------------

    cdef int background_work(self) except -1:
        """All that is due, in this thread."""
        if self.flush_retry.due_here():
            while flush_oldest(self):
                pass
            self.nothing_is_due(self.flush_retry)
        if self.compaction_retry.due_here():
            while compact_once(self):
                pass
            self.nothing_is_due(self.compaction_retry)
        return 0

    cdef int nothing_is_due(self, Retry retry) except -1:
        """What failed needn't be tried again, so nothing stands in its way."""
        if retry.error is None:
            return 0
        if retry is self.flush_retry and self.frozen_count == 0:
            # It may have been the manifest alone.
            self.retry_manifest()
        elif retry is self.compaction_retry and compaction_score(self) < 1:
            self.job_done(retry)
        return 0

    cdef int retry_manifest(self) except -1:
        with self.installing:
            try:
                self.need_manifest()
            except Exception as error:
                self.job_failed(self.flush_retry, error)
                raise
        return self.job_done(self.flush_retry)

    cdef int sync_log(self) except -1:
        try:
            self.log.sync()
        except Exception as error:
            if self.log_has_failed() or not is_retryable(error):
                self.fail(error)
            raise
        return 0

    def resume(self):
        cdef int level, i
        self.check_writable()
        # Perhaps they can be read again.
        for level in range(LEVELS):
            for i in range(self.version.levels[level].count):
                self.version.levels[level].files[i].damaged = False
        tried = self.compaction_retry.error is not None or self.damaged_tables
        self.damaged_tables = {}
        while flush_oldest(self):
            pass
        self.retry_manifest()
        if tried:
            compact_once(self)
            if self.damaged_tables:
                raise next(iter(self.damaged_tables.values()))
            self.job_done(self.compaction_retry)
        self.call_threads()

    cdef int flush_all(self) except -1:
        self.check_writable()
        if not memtable_is_empty(self.memory) or self.applied_index > self.flushed_applied:
            while self.frozen_count >= self.max_frozen and flush_oldest(self):
                pass
            self.freeze()
        while flush_oldest(self):
            pass
        return 0

    def flush(self):
        self.check_writable()
        self.flush_all()
        if self.background:
            self.call_for_compaction()
        if not self.background or (not self.threads_begun and compaction_score(self) >= 1):
            self.background_work()

    def compact_range(self, *, start=None, stop=None):
        self.check_writable()
        self.flush_all()
        # The files of tables that somebody still reads are theirs to remove.
        self.has_threads()
        self.check_writable()
        compact_range(self, start, stop)

    # --- reading ------------------------------------------------------------------------------

    def get(
        self, key, default=None, *, bint verify_checksums=False, bint fill_cache=True, sequence=None
    ):
        cdef BytesView view
        if self.attention:
            self.check_open()
        view_open(key, &view, "key")
        try:
            return lookup(
                self, view.slice,
                self.visible if sequence is None else readable_sequence(self, sequence), default,
                reading_of(fill_cache, verify_checksums),
            )
        finally:
            view_close(&view)

    def get_cached(self, key, default=None, *, cold=None):
        cdef BytesView view
        if self.attention:
            self.check_open()
        view_open(key, &view, "key")
        try:
            return lookup_cached(self, view.slice, self.visible, default, cold)
        finally:
            view_close(&view)

    def get_versioned(self, key, sequence=None, *, bint fill_cache=True):
        cdef BytesView view
        if self.attention:
            self.check_open()
        view_open(key, &view, "key")
        try:
            return lookup_versioned(
                self, view.slice,
                self.visible if sequence is None else readable_sequence(self, sequence), fill_cache,
            )
        finally:
            view_close(&view)

    def get_versioned_cached(self, key, sequence=None, *, cold=None):
        cdef BytesView view
        if self.attention:
            self.check_open()
        view_open(key, &view, "key")
        try:
            return lookup_versioned_cached(
                self, view.slice,
                self.visible if sequence is None else readable_sequence(self, sequence), cold,
            )
        finally:
            view_close(&view)

    def contains_cached(self, key):
        cdef BytesView view
        if self.attention:
            self.check_open()
        view_open(key, &view, "key")
        try:
            return is_there_cached(self, view.slice, self.visible)
        finally:
            view_close(&view)

    def __contains__(self, key):
        cdef BytesView view
        if self.attention:
            self.check_open()
        view_open(key, &view, "key")
        try:
            return is_there(self, view.slice, self.visible)
        finally:
            view_close(&view)

    def __getitem__(self, key):
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def multi_get(self, keys, default=None, *, sequence=None):
        self.check_open()
        return lookup_many(self, list(keys), sequence, default)

    def iterator(
        self, *, bint reverse=False, start=None, stop=None, bint include_start=True,
        bint include_stop=False, prefix=None, bint include_key=True, bint include_value=True,
        bint include_sequence=False, verify_checksums=False, bint fill_cache=True, sequence=None,
        limit=None, interrupt=None,
    ):
        cdef Range how
        self.check_open()
        how.reverse = reverse
        how.include_key = include_key
        how.include_value = include_value
        how.include_sequence = include_sequence
        how.limit = limit_of(limit)
        how.fill_cache = fill_cache
        return open_iterator(
            self, sequence, how, start, stop, include_start, include_stop, prefix, b"", interrupt,
        )

    def count(
        self, start=None, stop=None, sequence=None, *, prefix=None, bint fill_cache=True,
        interrupt=None,
    ):
        self.check_open()
        return count_range(self, sequence, start, stop, prefix, b"", fill_cache, interrupt)

    def __iter__(self):
        return self.iterator()

    def raw_iterator(self, *, verify_checksums=False, bint fill_cache=True):
        self.check_open()
        return open_raw_iterator(self, None, fill_cache)

    def snapshot(self, *, sequence=None):
        self.check_open()
        return open_snapshot(self, sequence, b"")

    # --- history ------------------------------------------------------------------------------

    @property
    def last_sequence(self):
        self.check_open()
        return self.visible

    @property
    def flushed_index(self):
        self.check_open()
        return self.flushed_applied

    @property
    def retained_sequence(self):
        cdef uint64_t oldest
        self.check_open()
        oldest = (<Store> self).retain_from     # `self.retain_from` is the method
        return None if oldest == max_sequence() else oldest

    def retain_from(self, sequence):
        cdef bint first = (<Store> self).retain_from == max_sequence()
        sequence = as_sequence(sequence)
        self.check_writable()
        if not 0 <= sequence < max_sequence():
            raise InvalidArgumentError(f"sequence {sequence} is outside [0, 2**56 - 1)")
        if not first and sequence <= (<Store> self).retain_from:
            return
        if sequence > self.visible + 1:
            # It never goes back: history would be lost for good, of writes yet to come too.
            raise InvalidArgumentError(
                f"sequence {sequence} is beyond the next write's, {self.visible + 1}"
            )
        # What is gone already can't be kept.
        (<Store> self).retain_from = max(sequence, self.history_from)
        if not first:
            # A jump ahead that a crash forgets keeps more than it need; the next edit says it, and
            # no job lets go of anything before. Tables may be mostly garbage by it.
            self.call_threads()
            return
        try:
            self.install(Edit(), NULL, 0, NULL, 0)
        except Exception as error:
            # Nobody was told that it is kept.
            (<Store> self).retain_from = max_sequence()
            if self.failure is None:
                self.job_failed(self.flush_retry, error)
            raise

    # --- upkeep -------------------------------------------------------------------------------

    def delete_range(self, start=None, stop=None, *, bint sync=False):
        cdef WriteBatch batch = WriteBatch()
        cdef size_t size
        cdef int waits
        cdef bytes low = b"" if start is None else as_bytes(start, "start")
        cdef bytes high = None if stop is None else as_bytes(stop, "stop")
        self.check_open()
        if self.attention:
            self.settle()
        if memtable_used(self.memory) >= self.look_at:
            self.look(True)
        if high is None:
            # It hides nothing that is yet to come, so the end of the keys that there are will do.
            high = after_all_keys(self)
            while high is not None and self.log is not None:
                size = BATCH_HEADER_BYTES + OPERATION_BYTES + len(low) + len(high)
                waits = self.log.reserve(size)
                if not waits:
                    break
                # Others may write meanwhile.
                self.reserve_log(size, waits, True)
                high = after_all_keys(self)
            if high is None:
                return
        batch.delete_range(low, high)
        if batch.count:
            self.write_now(batch, sync, None, None)

    def verify(self):
        self.check_open()
        verify_tables(self)

    def rewrite_manifest(self):
        self.check_writable()
        with self.installing:
            self.guard.check()
            self.switch_manifest()
            self.sync_current()

    def live_tables(self):
        self.check_open()
        return live_tables(self)

    def check_table(self, uint64_t number):
        self.check_open()
        return check_of_table(self, number)

    def check_small_files(self):
        return check_small_files(self)

    def damage_of_table(self, uint64_t number):
        self.check_open()
        return damage_of_table(self, number)

    @property
    def damaged_tables_met(self):
        return tuple(self.damaged_tables.values())

    def export_range(self, *, sequence, keep_from):
        self.check_open()
        return open_range_export(self, sequence, keep_from)

    def replace_range(self, low, high, *, keep_from):
        return open_range_replacement(self, low, high, keep_from)

    def approximate_sizes(self, *ranges):
        self.check_open()
        return table_bytes_of_ranges(self, ranges)

    def get_property(self, name):
        self.check_open()
        return property_value(self, name)

    def stats(self):
        self.check_open()
        return statistics(self)

    def checkpoint(self, path):
        self.check_writable()
        self.flush_all()
        try:
            copy_tables(self, os.fsdecode(path))
        except StorageError as error:
            if not self.make_descriptors(error):
                raise
            copy_tables(self, os.fsdecode(path))

    def __enter__(self):
        self.check_open()
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    @property
    def closed(self):
        return not self.open

    cdef int check_sequences_left(self, uint64_t count) except -1:
        if count > max_sequence() - self.assigned:
            raise InvalidArgumentError(
                f"no sequence is left for it: the last one is {self.assigned}, of 2**56 - 1"
            )
        return 0

    cdef int shut_quietly(self) except -1:
        try:
            self.shut()
        except (OSError, StorageError):
            pass            # the error that opening ends with says more
        return 0

    def close(self):
        caller = threading.get_ident()
        if self.forked or not (self.open or self.closing) or caller in self.closers:
            return
        self.closers.add(caller)
        try:
            try:
                if self.held is not None:
                    # What was accepted is made, as long as the store takes writes.
                    self.draining = True
                    self.held.end()
                self.finish_closing()
            except (OSError, StorageError):
                raise
            except BaseException:
                # A signal's handler raised: first what it interrupted.
                self.finish_closing()
                raise
        finally:
            self.closers.discard(caller)

    cdef int finish_closing(self) except -1:
        """Each step may be done again."""
        self.closing = True
        self.open = False
        self.closed_flag.closed = True
        self.attention = True
        self.stop_threads()
        # Foreground jobs of other threads end soon after stop_jobs.
        while True:
            seen = self.changed.count
            if not self.running_tasks:
                break
            self.changed.wait(seen)
        with self.flushing:
            if self.forked:
                return 0
            self.close_iterators()
            self.close_feeds()
            with self.installing:
                try:
                    self.shut()
                except (OSError, StorageError):
                    self.closed_at_last()
                    raise
                self.closed_at_last()
        return 0

    cdef int closed_at_last(self) except -1:
        # Of a call that an exception ends here the next one does it again.
        if self.at_end is not None:
            self.at_end()
        self.closing = False
        OPEN_STORES.discard(self)
        return 0


cdef enum:
    INDEX_CACHE_BYTES_MIN = 8 << 20     # the partitions of 300 MiB of small entries


cdef size_t index_cache_bytes(size_t block_cache_bytes) noexcept:
    """What partitions may take beside the blocks: a lookup without them costs a second read."""
    return max(<size_t> INDEX_CACHE_BYTES_MIN, block_cache_bytes // 4)


cdef int most_open_tables(int wanted) except -1:
    """What the process may have open is for others, too: sockets, the log, other databases."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(FEWEST_OPEN_TABLES, limit - OTHER_DESCRIPTORS))


cdef bint only_deletes(Slice payload) noexcept:
    cdef const uint8_t* at = payload.data + BATCH_HEADER_BYTES
    cdef const uint8_t* end = payload.data + payload.size
    cdef Operation operation
    while at < end:
        at = decode_operation(at, end, &operation)
        if at == NULL or operation.kind == KIND_PUT:
            return False
    return True


cdef bytes after_all_keys(Store store):
    """The key that follows the largest one in memtables and tables; None where there is none."""
    cdef Slice key
    cdef Slice largest = slice_of(NULL, 0)
    cdef Level* level
    cdef bint excluded = False      # `largest` is where a deleted range stops, itself beyond all keys
    cdef bint ranged
    cdef int number, i, order
    for i in range(-1, store.frozen_count):
        if memtable_largest(store.memory if i < 0 else store.frozen[i].table, &key) and (
            largest.data == NULL or slice_compare(key, largest) > 0
        ):
            largest = key
    for number in range(LEVELS):
        level = &store.version.levels[number]
        for i in range(0 if number == 0 else max(0, level.count - 1), level.count):
            key = internal_user_key(level.files[i].largest)
            ranged = trailer_kind(internal_trailer(level.files[i].largest)) == KIND_RANGE_DELETE
            order = 1 if largest.data == NULL else slice_compare(key, largest)
            if order > 0:
                largest = key
                excluded = ranged
            elif order == 0 and not ranged:
                excluded = False
    if largest.data == NULL:
        return None
    return <bytes> largest.data[: largest.size] + (b"" if excluded else b"\0")


cdef int check_numbers(Slice payload, uint64_t first) except -1:
    """That the operations' own sequences don't descend, and no key that a deleted range is over has its number.

    A range tombstone hides what is older than its sequence, and lookups and walks that meet one ask nothing
    that was written before it: there, too, all in its range must be older.
    """
    cdef const uint8_t* at = payload.data + BATCH_HEADER_BYTES
    cdef const uint8_t* end = payload.data + payload.size
    cdef const uint8_t* same = at       # the first operation with the sequence of the present one
    cdef uint64_t sequence = first
    cdef Operation operation
    cdef const uint8_t* here
    while at < end:
        here = at
        at = decode_operation(at, end, &operation)
        if at == NULL:
            raise InvalidArgumentError("the batch is damaged")
        if operation.numbered:
            if operation.sequence < sequence:
                raise InvalidArgumentError(
                    f"sequence {operation.sequence} comes after {sequence} in the batch"
                )
            if operation.sequence > sequence:
                same = here
            sequence = operation.sequence
        if operation.kind == KIND_RANGE_DELETE:
            check_none_within(same, here, &operation, sequence)
    return 0


cdef int check_none_within(
    const uint8_t* at, const uint8_t* end, const Operation* range_delete, uint64_t sequence
) except -1:
    """None of these operations is on a key of the range."""
    cdef Operation operation
    while at < end:
        at = decode_operation(at, end, &operation)
        if operation.kind != KIND_RANGE_DELETE and (
            slice_compare(range_delete.key, operation.key) <= 0
            and slice_compare(operation.key, range_delete.value) < 0
        ):
            raise InvalidArgumentError(
                f"a range is deleted at sequence {sequence}, which a key in it has that comes before"
            )
    return 0


# --- for the Python around it: functions, so that a DB shows none of them -------------------------

def background_step(Database store not None, job):
    """One piece of work; the seconds until the next look, infinity: not before there is work.

    None at the end.
    """
    cdef Retry retry = store.flush_retry if job == "flush" else store.compaction_retry
    if job == "flush":
        store.flush_sleeps = False
        # Whoever called it lets it in: see let_flush_in.
        gil_ask()
        gil_have()
    if not store.open or store.forked:
        return None
    if job == "compact" and open_tables_has_unwanted(store.tables):
        with nogil:
            open_tables_remove_unwanted(store.tables)
    if store.failure is not None:
        return INFINITY
    try:
        if retry.seconds_left() == 0:
            if flush_oldest(store) if job == "flush" else compact_once(store):
                # A flush may make a compaction due.
                store.work.advance()
                return 0
            store.nothing_is_due(retry)
        if job == "flush" and store.log_due and store.log is not None:
            store.log_due = False
            store.sync_log()
        if job == "flush" and store.log_rolled:
            store.note_rolled_log()
    except Exception:
        # It is kept: as `failure`, or to be tried again.
        pass
    if job == "flush":
        store.flush_sleeps = True
    return retry.seconds_left() or INFINITY


def new_iterator(
    Database db not None, bytes within not None, *, bint reverse, start, stop, bint include_start,
    bint include_stop, prefix, bint include_key, bint include_value, bint include_sequence,
    bint fill_cache, sequence, limit,
):
    cdef Range how
    db.check_open()
    how.reverse = reverse
    how.include_key = include_key
    how.include_value = include_value
    how.include_sequence = include_sequence
    how.limit = limit_of(limit)
    how.fill_cache = fill_cache
    return open_iterator(
        db, sequence, how, start, stop, include_start, include_stop, prefix, within, None,
    )


def count_within(Database db not None, bytes within not None, start, stop, sequence, prefix, bint fill_cache):
    db.check_open()
    return count_range(db, sequence, start, stop, prefix, within, fill_cache, None)


def new_snapshot(Database db not None, bytes prefix not None, sequence):
    db.check_open()
    return open_snapshot(db, sequence, prefix)


def new_batch(Database db not None, bytes prefix not None, bint transaction, bint sync):
    cdef WriteBatch batch = WriteBatch()
    db.check_open()
    batch.db = db
    batch.closed_flag = db.closed_flag
    batch.transaction = transaction
    batch.sync = sync
    batch.prefix = prefix
    return batch
