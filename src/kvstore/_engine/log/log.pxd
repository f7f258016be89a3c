"""The one durable log: the library's write-ahead log and a replica's Raft log.

Positions are counted in bytes over all segments and only grow; a ticket is a position. Appending
only fills memory; `write_out` moves what was appended into the file, `sync_to` makes it durable.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp.deque cimport deque
from libcpp.map cimport map as ordered_map
from libcpp.vector cimport vector

from kvstore._engine.primitives.native cimport Slice, Status
from kvstore._engine.files.native cimport FileSystem, FileSystemOps


cdef extern from "kvstore/_engine/log/log_chunk.h" namespace "kvstore_log" nogil:
    cdef cppclass Chunk:
        Chunk()
        uint64_t segment
        uint64_t offset
        uint64_t previous_end
        uint32_t chain
        vector[uint8_t] bytes

    cdef cppclass Sticky:
        bint wanted
        bint known
        uint64_t index
        uint64_t term
        vector[uint8_t] payload

    cdef cppclass Monitor:
        void lock()
        void unlock()
        void wait()
        void notify()
        void wait_in_line(bint again)
        void call_next()

    void put_back(deque[Chunk]& pending, deque[Chunk]& taken)


cdef class Recovered


cdef enum FlusherState:
    IDLE = 0
    WRITING = 1         # what was taken is on its way into the file
    SYNCING = 2         # all that was taken is in the file; later records may be stored beside it


cdef class Log:
    cdef FileSystem filesystem
    cdef const FileSystemOps* ops
    cdef void* disk
    cdef readonly str path
    cdef readonly object recovery
    cdef bytes path_bytes
    cdef const char* folder             # path_bytes, for code without the GIL
    cdef bint read_only
    cdef bint closed
    cdef list found                     # numbers of the segments that opening found, for replay()
    cdef object writer                  # the writer thread, once started
    cdef int event                      # eventfd that it signals, or -1

    # Guarded by `monitor`. Whoever holds it neither calls the disk nor takes the GIL, so it may be
    # taken with the GIL held.
    cdef Monitor monitor
    cdef deque[Chunk] pending           # appended, not yet with a flusher
    cdef Sticky[256] sticky
    cdef ordered_map[uint64_t, uint64_t] sealed     # number of each older segment -> largest index
    cdef Status failure                 # the first one; every later call repeats it
    cdef FlusherState flusher           # there is one at a time
    cdef bint stopping
    cdef bint starved                   # no space for a new segment; what waits in `pending` is safe
    cdef uint64_t appended              # positions, see above
    cdef uint64_t written
    cdef uint64_t durable
    cdef uint64_t submitted             # what the writer thread was asked for
    cdef uint64_t durable_segment       # the last sync covered this segment
    cdef uint64_t durable_offset        # up to this offset
    cdef uint64_t spare                 # number of an old segment kept for recycling, 0 none
    cdef uint64_t syncs
    cdef uint64_t append_segment        # where the next record goes
    cdef uint64_t append_offset
    cdef uint64_t append_max_index
    cdef uint64_t append_limit          # records end before it; 0 forces a new segment
    cdef uint32_t chain
    cdef uint32_t seed

    # The flusher's while it is WRITING; else under `monitor`.
    cdef LogFile file
    cdef vector[uint8_t] direct         # a record on its way into the file past `pending`

    # Copies the payload into memory; ends with its ticket. -1: see `status`.
    cdef int append_slice(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil
    # The short way for a single record that is not to be synced. 0: it is in the file as by
    # write_out(), and no other thread was waited for; 1: only appended, write_out() is to follow without the GIL.
    cdef int append_through(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil
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
    cdef int start_from(self, Recovered found) except -1
    cdef int remove_segment(self, uint64_t number) except -1

    cdef int make_room(self, size_t payload_bytes, Status* status) noexcept nogil
    cdef void begin_segment(self) noexcept nogil
    cdef void put_record(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil
    cdef void encode(
        self, uint8_t* at, int kind, uint64_t index, uint64_t term, Slice payload
    ) noexcept nogil
    cdef bint fits_file(self, size_t payload_bytes) noexcept nogil
    cdef void store(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil
    cdef int write_directly(
        self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status
    ) noexcept nogil
    cdef void fail(self, const Status* status) noexcept nogil
    cdef int flush(self, uint64_t ticket, bint durably, Status* status) noexcept nogil
    cdef int sync_written(self, uint64_t target, Status* status) noexcept nogil
    cdef int leave_mark(self, Status* status) noexcept nogil
    cdef int write_chunk(self, Chunk* chunk, bint durably, Status* status) noexcept nogil
    cdef int enter_segment(self, Chunk* chunk, Status* status) noexcept nogil
    cdef void run_writer(self) noexcept nogil
    cdef void release(self) noexcept
