"""Database: what every call of a user reaches first."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice


cdef enum:
    # How a write goes: `sync` of the calls, and those of awaitable.pyx, which wait for nothing.
    UNSYNCED = 0
    SYNCED = 1
    LEFT = 2


cdef class Database(Store):
    cdef ClosedFlag closed_flag
    cdef bint draining          # close() waits for the writes that are held
    cdef bint closing           # and has gone on: a second one resumes what interrupted it
    cdef set closers            # idents of the threads that are in it
    cdef Buffer scratch         # one operation as a batch, for the log
    cdef uint64_t log_behind    # bytes logged by unsynced writes since the last call for a sync
    cdef bint log_due           # that call
    cdef bint flush_sleeps      # the thread that flushes has nothing to do, and waits to be called
    cdef int handed_over        # writes that were handed to the system before a thread did it
    cdef int awaiting_sync      # writes that wait for their sync
    cdef uint64_t sync_ticket   # the last one that a thread awaits the sync of, or did
    cdef uint64_t write_ticket  # the last one that a thread hands over itself, or did
    # deque of (sync_ticket, write_ticket, last sequence): LEFT ones that came behind those. Each of
    # these threads shows them when it is done, or the store has failed.
    cdef object unseen
    cdef object at_end          # called once it is closed, or None
    cdef int call_log_sync(self) except -1
    cdef int sync_log(self) except -1
    # 1: it would have to wait (LEFT), and nothing was done.
    cdef int put_one(self, int kind, Slice key, Slice value, int how) except -1
    # Puts in the order of their keys, as WriteBatch encodes them; each takes the next sequence.
    cdef int write_ascending(self, Slice payload) except -1
    # The deleted ranges of a batch, before all else of it; memory for their keys was provided.
    # MemoryError: nothing changed.
    cdef int apply_ranges(self, Slice payload, uint64_t first, bint numbered) except -1
    cdef int prepare_write(self) except -1
    cdef int prepare_numbered_write(self) except -1
    cdef int provide_room_to_delete(self) except -1
    cdef object write_now(self, WriteBatch batch, int how, object sequence, object applied_index)
    cdef int apply(
        self, Slice payload, uint64_t first, bint numbered, bint ascending, bint has_ranges
    ) except -1
    cdef int tell_feeds(self) except -1
    cdef int log_write(self, uint64_t first, Slice payload, int how) except -1
    cdef int leave_unseen(self, uint64_t last) except -1
    # What waits in `unseen` for no thread any more.
    cdef int show_left(self) except -1
    cdef int flush_recovered(self) except -1
    # On a full disk: what of the log is only kept for change feeds. Whether there was any.
    cdef bint give_up_kept_log(self, object error) except -1
    cdef int reserve_log(self, size_t payload_bytes, int answer, bint deletes) except -1
    cdef bint memory_is_full(self) noexcept
    cdef int let_flush_in(self) noexcept
    cdef int provide_room(self) except -1
    cdef int provide_room_here(self) except -1
    cdef int check_flushes(self) except -1
    cdef bint must_stop(self) except -1
    cdef int settle(self) except -1
    cdef int look(self, bint deletes) except -1
    cdef double delay_wanted(self) noexcept
    cdef int background_work(self) except -1
    cdef int nothing_is_due(self, Retry retry) except -1
    # Where it isn't there yet, or isn't durable.
    cdef int retry_manifest(self) except -1
    cdef int flush_all(self) except -1
    # Whether a writer has to wait for a flush or a compaction.
    cdef int check_sequences_left(self, uint64_t count) except -1
    cdef int shut_quietly(self) except -1
    cdef int write_behind(self) except -1
    # END says that a segment was begun.
    cdef int note_rolled_log(self) except -1
    cdef int finish_closing(self) except -1
    cdef int closed_at_last(self) except -1
    cdef int stop_threads(self) except -1
