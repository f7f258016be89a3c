"""The log's batches into the memtable, in the one pass in which opening checks the log.

Written in any order, each entry's place in the tree is a cache miss or two; so from some number on
they wait, and go in by the thousand in the order of their keys.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    KIND_RANGE_DELETE,
    Slice,
    Status,
    get_fixed32,
    kv_free,
    kv_malloc,
    max_sequence,
    prefetch,
    slice_of,
    status_no_memory,
)
from kvstore._engine.log.native cimport Applier, RecordHeader
from kvstore._engine.memtable.native cimport (
    RangeTombstone,
    memtable_add,
    memtable_bytes,
    memtable_delete_ranges,
    memtable_prefetch,
)

from kvstore.errors import CorruptionError, IntegrityCode


cdef enum:
    ADDED_AT_ONCE = 4096        # operations that don't wait: a small log is in cache anyway
    WAITING_OPERATIONS = 1 << 17
    WAITING_BYTES = 16 << 20    # of their keys and values

cdef enum Trouble:
    NO_TROUBLE
    UNKNOWN_KIND
    NO_BATCH
    GAP


# Freeing it still needs the store: the collector must not clear the reference first.
@cython.no_gc_clear
cdef class LogApplier(Applier):
    def __cinit__(self, Store store):
        self.store = store

    def __init__(self, Store store):
        pass

    def __dealloc__(self):
        self.let_go()

    cdef void let_go(self) noexcept nogil:
        if self.bytes != NULL:
            rows_free(&self.rows)
            kv_free(self.waiting)
            kv_free(self.bytes)
            self.bytes = NULL

    cdef int begin_waiting(self) noexcept nogil:
        """-1: no memory, and nothing waits."""
        if rows_open(&self.rows, WAITING_OPERATIONS) < 0:
            return -1
        self.waiting = <Waiting*> kv_malloc(WAITING_OPERATIONS * sizeof(Waiting))
        self.bytes = <uint8_t*> kv_malloc(WAITING_BYTES)
        if self.waiting == NULL or self.bytes == NULL:
            rows_free(&self.rows)
            kv_free(self.waiting)
            kv_free(self.bytes)
            self.bytes = NULL
            return -1
        self.used = 0
        return 0

    cdef int stop(self, int trouble, const RecordHeader* record) noexcept nogil:
        self.trouble = trouble
        self.trouble_kind = record.kind
        self.trouble_first = record.index
        return 1

    cdef int take(self, const RecordHeader* record, const uint8_t* payload, Status* status) noexcept nogil:
        cdef const uint8_t* at = payload + BATCH_HEADER_BYTES
        cdef const uint8_t* end = payload + record.payload_bytes
        cdef uint64_t first = record.index
        cdef uint64_t before = self.store.assigned
        cdef uint64_t flushed = self.store.flushed_sequence
        cdef uint64_t sequence
        cdef uint32_t count = 0
        cdef Operation operation
        cdef int result
        if record.kind != LOG_KIND_BATCH:
            return self.stop(UNKNOWN_KIND, record)
        if check_batch(payload, record.payload_bytes, &count) < 0 or count == 0 or (
            first > max_sequence() - count
        ):
            return self.stop(NO_BATCH, record)
        if first + count - 1 <= flushed:
            return 0            # kept for change feeds alone
        if first > before + 1:
            return self.stop(GAP, record)
        for sequence in range(first, first + count):
            at = decode_operation(at, end, &operation)
            # Range tombstones come in the order of their sequences.
            if sequence <= flushed or (operation.kind == KIND_RANGE_DELETE and sequence <= before):
                continue
            if operation.kind == KIND_RANGE_DELETE:
                result = self.delete_range(&operation, sequence)
            else:
                result = self.add(&operation, sequence)
            if result < 0:
                return status_no_memory(status, b"memory to replay the log")
        if first + count - 1 > before:
            self.store.assigned = first + count - 1
        return self.store.frozen_count < MAX_FROZEN and (
            memtable_bytes(self.store.memory) + self.used >= self.store.write_buffer_bytes
        )

    cdef int delete_range(self, Operation* operation, uint64_t sequence) noexcept nogil:
        cdef RangeTombstone tombstone
        range_of(operation, sequence, &tombstone)
        return memtable_delete_ranges(self.store.memory, &tombstone, 1)

    cdef int add(self, Operation* operation, uint64_t sequence) noexcept nogil:
        cdef size_t size = operation.key.size + operation.value.size
        cdef Waiting* waiting
        cdef Py_ssize_t row
        self.added += 1
        if self.added == ADDED_AT_ONCE:
            # Without memory for it they go in one by one.
            self.begin_waiting()
        if self.bytes == NULL or size > WAITING_BYTES // 2:
            # Behind what waits: of one key each is to be newer than all that are there.
            if self.add_waiting() < 0:
                return -1
            return memtable_add(
                self.store.memory, operation.key, sequence, operation.kind, operation.value, False
            )
        if self.used + size > WAITING_BYTES or self.rows.count == WAITING_OPERATIONS:
            if self.add_waiting() < 0:
                return -1
        row = self.rows.count
        waiting = &self.waiting[row]
        self.rows.keys[row] = self.copied(operation.key)
        waiting.value = self.copied(operation.value)
        waiting.sequence = sequence
        waiting.kind = operation.kind
        self.rows.count = row + 1
        return 0

    cdef Slice copied(self, Slice what) noexcept nogil:
        cdef uint8_t* at = self.bytes + self.used
        if what.size:
            memcpy(at, what.data, what.size)
        self.used += what.size
        return slice_of(at, what.size)

    cdef int add_waiting(self) noexcept nogil:
        """All that waits into the memtable. -1: no memory for all of it."""
        cdef Rows* rows = &self.rows
        cdef Waiting* waiting
        cdef Py_ssize_t i
        cdef uint32_t row
        if self.bytes == NULL or rows.count == 0:
            return 0
        # Of one key the oldest first, so that each is newer than all that are there.
        rows_sort(rows)
        for i in range(rows.count):
            if i + 2 * AHEAD < rows.count:
                row = rows.order[i + 2 * AHEAD].row
                prefetch(&rows.keys[row])
                prefetch(&self.waiting[row])
                prefetch(rows.keys[rows.order[i + AHEAD].row].data)
                memtable_prefetch(
                    self.store.memory, rows.keys[rows.order[i + APPLY_AHEAD].row], i > 0
                )
            row = rows.order[i].row
            waiting = &self.waiting[row]
            if memtable_add(
                self.store.memory, rows.keys[row], waiting.sequence, waiting.kind, waiting.value, i > 0
            ) < 0:
                return -1
        rows.count = 0
        self.used = 0
        return 0

    cdef int settle(self) except -1:
        cdef int result
        if self.trouble == UNKNOWN_KIND:
            raise self.damaged(
                f"a log record of unknown kind {self.trouble_kind}", IntegrityCode.INVALID_OPERATION
            )
        if self.trouble == NO_BATCH:
            raise self.damaged(
                f"the log record of sequence {self.trouble_first} holds no valid batch",
                IntegrityCode.INVALID_RECORD,
            )
        if self.trouble == GAP:
            raise self.damaged(
                f"the log goes on with sequence {self.trouble_first}, {self.store.assigned + 1} is "
                "missing", IntegrityCode.INVALID_RECORD,
            )
        with nogil:
            result = self.add_waiting()
        if result < 0:
            raise MemoryError("no memory to replay the log")
        if memtable_bytes(self.store.memory) >= self.store.write_buffer_bytes:
            # Flushed once everything is open; until then memory holds the log's unflushed part.
            if self.store.frozen_count < MAX_FROZEN:
                self.store.freeze()
        return 0

    cdef object damaged(self, str what, object code):
        return CorruptionError(what, code=code, path=f"{self.store.path}/{LOG_DIRECTORY}")
