"""The one durable log: the library's write-ahead log and a replica's Raft log.

Positions are counted in bytes over all segments and only grow; a ticket is a position. Appending
only fills memory; `write_out` moves what was appended into the file, `sync_to` makes it durable.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, PodVector, Slice, Status
from kvstore._engine.files.native cimport (
    DirectoryLock,
    FileSystem,
    FileSystemOps,
)


cdef extern from "kvstore/_engine/log/log_monitor.h" namespace "kvstore_log" nogil:
    cdef cppclass Monitor:
        void lock()
        void unlock()
        void wait()
        void wait_microseconds(long microseconds)
        void notify()
        void wait_until_asked()
        void ask()
        void wait_in_line(bint again)
        void call_next()


cdef struct Sticky:
    # The newest record of a kind that is written again at the head of each segment.
    bint wanted
    bint known
    uint64_t index
    uint64_t term
    Buffer payload


cdef struct Record:
    # One to be appended.
    int kind
    uint64_t index
    uint64_t term
    Slice payload               # borrowed
    Sticky replaced             # of a sticky kind: what was the newest before


cdef struct AppendState:
    # Where appending stands; see the fields of Log.
    uint64_t segment
    uint64_t offset
    Span span
    uint64_t limit
    uint64_t appended
    uint64_t seals
    uint32_t chain
    uint32_t seed
    Chunk* last
    size_t last_size


cdef class Log:
    cdef FileSystem filesystem
    cdef DirectoryLock watched          # the folder, open; None: who opened this log sees to that
    cdef const FileSystemOps* ops
    cdef void* disk
    cdef readonly str path
    cdef readonly object recovery
    cdef readonly bytes log_id          # of all its segments
    cdef readonly bytes database_id
    cdef uint8_t[ID_BYTES] log_id_raw   # the same, for code without the GIL
    cdef uint8_t[ID_BYTES] database_id_raw
    cdef bytes path_bytes
    cdef bytes parent_bytes
    cdef const char* parent             # the directory that `folder` is in
    # Once a segment is to be begun, names that another process made or removed must be durable.
    cdef bint names_unsynced
    cdef const char* folder             # path_bytes, for code without the GIL
    cdef bint read_only
    cdef bint closed
    cdef bint closing                   # close() has begun, and a second one resumes it
    cdef list found                     # numbers of the segments that opening found, for replay()
    cdef object starting                # RLock: threads are started under it, and not once `closed`
    cdef object writer                  # the thread that syncs what is submitted, once started
    cdef object behind                  # the one that writes behind, once started
    cdef int event                      # eventfd of start_writer(), or -1

    # Guarded by `monitor`. Whoever holds it neither calls the disk nor takes the GIL, so it may be
    # taken with the GIL held.
    cdef Monitor monitor
    cdef ChunkList pending              # appended, not yet with a flusher
    cdef Chunk* spares                  # empty ones, to be used again
    cdef int spare_count
    cdef Sticky[256] sticky
    cdef Span* sealed                   # of each older segment
    cdef size_t sealed_count
    cdef size_t sealed_capacity
    cdef uint64_t seals                 # how many segments were sealed in all
    cdef uint64_t sealed_first          # number of the oldest of them; the others follow
    cdef uint64_t removing              # segments up to this number are gone, or are about to be
    cdef Status failure                 # the first one; every later call repeats it
    cdef bint writing                   # a flusher writes into the file: there is one at a time
    cdef bint syncing                   # likewise; beside it another may write
    cdef bint stopping
    cdef bint starved                   # a new segment lacks something; `pending` waits for it
    cdef bint asked                     # the writer thread is to sync up to `submitted`
    cdef bint asked_to_write            # and to write up to `handed_over`
    cdef PodVector[int] events          # eventfds that it signals then
    cdef bint writes_behind             # a thread writes what append_through() leaves
    cdef bint asleep                    # it waits to be told
    cdef bint woken                     # it was told that there is much to write
    cdef uint64_t appended              # positions, see above
    cdef uint64_t written
    cdef uint64_t durable
    cdef uint64_t submitted             # what the writer thread was asked for
    cdef uint64_t handed_over           # likewise
    cdef uint64_t durable_segment       # the last sync covered this segment
    cdef uint64_t durable_offset        # up to this offset
    cdef uint64_t begun_segment         # the newest one whose name and header are durable
    cdef uint64_t rested                # number of the last segment that begin_rest() left
    cdef uint64_t rest_limit            # what `append_limit` was then
    cdef uint64_t spare                 # number of an old segment kept for recycling, 0 none
    cdef uint64_t syncs
    cdef uint64_t append_segment        # where the next record goes
    cdef uint64_t append_offset         # atomic: reserve() looks at it with the GIL alone
    cdef Span append_span
    cdef uint64_t append_limit          # records end before it; 0 forces a new segment
    cdef uint32_t chain
    cdef uint32_t seed

    # Changed with both the GIL and `monitor`; read with either.
    cdef Chunk* reserved                # for the next record, if the last chunk has no room for it
    # Atomic. 1: nothing is appended until a new segment was begun. Set as above, taken back by roll().
    cdef uint64_t rolling

    # The flusher's while it is writing; else under `monitor`.
    cdef LogFile file

    # Copies the payload into memory; ends with its ticket. -1: the log is as it was, see `status`.
    cdef int append_slice(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil
    # The short way for a single record that is not to be synced. 0: it is left to the thread that
    # writes behind; 1: only appended, write_out() is to follow without the GIL; -1: as it was.
    cdef int append_through(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil
    # With the GIL, which is then held until the append. 0: one record with up to so many bytes can
    # be appended whatever memory and disk have left; 1: call roll() without the GIL, then this
    # again; -1: no memory.
    cdef int reserve(self, size_t payload_bytes) noexcept nogil
    # Begins a segment with room for so many bytes. RETRY: something is lacking, the log is as it was.
    cdef int roll(self, size_t payload_bytes, Status* status) noexcept nogil
    # Leaves the segment that is written, so that it may go, where all that was appended is durable and
    # of an index below; the next record begins another one. With the GIL. False: nothing was done.
    cdef bint begin_rest(self, uint64_t index) noexcept nogil
    # It isn't to go after all: goes on in it, unless another one was begun meanwhile. With the GIL.
    cdef void cancel_rest(self) noexcept nogil
    # Of all segments, up to their last records.
    cdef uint64_t bytes_held(self) noexcept nogil
    cdef int sync_names(self, Status* status) noexcept nogil
    # Whether anything of this index or above is in it, or may soon be.
    cdef bint is_needed(self, uint64_t index) noexcept nogil
    # Where it isn't, the number beyond all segments that there are; else 0.
    cdef uint64_t beyond_unneeded(self, uint64_t index) noexcept nogil
    # All that was appended so far is in the file: it survives the process, not the machine.
    cdef int write_out(self, Status* status) noexcept nogil
    # All up to position `ticket` survives the machine. Concurrent callers share one sync.
    cdef int sync_to(self, uint64_t ticket, Status* status) noexcept nogil
    # The ticket of the last record that was appended.
    cdef uint64_t position(self) noexcept nogil
    # The exception for a status that one of these filled.
    cdef object error(self, Status* status)
    cdef int check_failed(self) except -1
    cdef int check_writable(self) except -1

    cdef int make_folder(self) except -1
    cdef int remove_segment(self, uint64_t number) except -1
    cdef int drop_segment(self, uint64_t number) noexcept nogil
    # All segments before that one, as remove_segments_before(). -errno: `failed` could not be removed.
    cdef int drop_segments_before(self, uint64_t number, uint64_t* failed) noexcept nogil
    cdef object removal_error(self, int result, uint64_t number)

    cdef int start_from(self, Recovered found, bytes log_id, bytes database_id) except -1
    cdef int make_sealed(self) noexcept nogil
    cdef void seal(self, uint64_t number, const Span* span) noexcept nogil
    cdef Chunk* take_chunk(self, size_t capacity) noexcept nogil
    cdef void give_chunks(self, Chunk* chunk) noexcept nogil
    cdef int check_appendable(self, size_t payload_bytes, Status* status) noexcept nogil
    cdef bint fits(self, size_t payload_bytes) noexcept nogil
    cdef int watch_folder(self) except -1
    cdef int begin_segment(self, size_t payload_bytes, bint whole) noexcept nogil
    cdef void fill_header(self, SegmentHeader* header) noexcept nogil
    cdef int put_record(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil
    cdef void encode(
        self, uint8_t* at, int kind, uint64_t index, uint64_t term, Slice payload
    ) noexcept nogil
    cdef int append_one(self, Record* record, Status* status) noexcept nogil
    cdef int append_records(self, Record* records, size_t count, Status* status) noexcept nogil
    cdef void note_state(self, AppendState* state) noexcept nogil
    cdef void return_to(self, const AppendState* state) noexcept nogil
    cdef bint await_turn(self) noexcept nogil
    cdef void fail(self, const Status* status) noexcept nogil
    cdef int flush(self, uint64_t ticket, bint durably, Status* status) noexcept nogil
    cdef int write_pending(self, bint durably, Status* status) noexcept nogil
    cdef int sync_written(self, Status* status) noexcept nogil
    cdef int leave_mark(self, Status* status) noexcept nogil
    cdef int write_chunk(self, Chunk* chunk, bint durably, Status* status) noexcept nogil
    cdef void give_spare(self, uint64_t number) noexcept nogil
    cdef int enter_segment(self, Chunk* chunk, Status* status) noexcept nogil
    cdef void run_writer(self) noexcept nogil
    cdef void signal(self) noexcept nogil
    cdef int need_writer(self) except -1
    # More waits for the thread that writes behind, or for a sync, than appending should add to.
    cdef bint is_behind(self) noexcept nogil
    # All up to here is durable; in the file.
    cdef uint64_t durable_position(self) noexcept nogil
    cdef uint64_t written_position(self) noexcept nogil
    cdef void run_write_behind(self) noexcept nogil
    cdef bint needs_any(self, uint64_t index) noexcept nogil
    cdef bint is_let_go(self, uint64_t index) noexcept nogil
    cdef bint rests(self) noexcept nogil
    cdef void leave_rested(self) noexcept nogil
    cdef void remove_spare(self) noexcept nogil
    cdef size_t count_removable(self, uint64_t index) noexcept nogil
    cdef bint find_place(self, uint64_t first, Place* place) noexcept nogil
    cdef bint is_gone(self, uint64_t segment) noexcept nogil
    cdef void release(self) noexcept
