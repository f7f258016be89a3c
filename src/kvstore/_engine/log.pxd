"""The one durable log: the library's write-ahead log and a replica's Raft log.

Positions are counted in bytes over all segments and only grow; a ticket is a position. Appending
only fills memory; `write_out` moves what was appended into the file, `sync_to` makes it durable.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp.deque cimport deque
from libcpp.vector cimport vector

from kvstore._engine.file cimport FileSystem, FileSystemOps
from kvstore._engine.log_read cimport SegmentReader
from kvstore._engine.slice cimport Slice
from kvstore._engine.status cimport Status


cdef extern from "log_chunk.h" namespace "kvstore_log" nogil:
    cdef cppclass Chunk:
        Chunk()
        uint64_t segment
        uint64_t offset
        uint64_t previous_end
        uint32_t chain
        vector[uint8_t] bytes


cdef extern from *:
    """
    #include <condition_variable>
    #include <mutex>
    // A mutex with its condition: Cython's own declarations don't offer wait().
    struct KvstoreMonitor {
        std::mutex mutex;
        std::condition_variable changed;
        void lock() { mutex.lock(); }
        void unlock() { mutex.unlock(); }
        void wait() {
            std::unique_lock<std::mutex> held(mutex, std::adopt_lock);
            changed.wait(held);
            held.release();
        }
        void notify() { changed.notify_all(); }
    };
    """
    cdef cppclass KvstoreMonitor nogil:
        void lock()
        void unlock()
        void wait()
        void notify()


cdef class Log:
    cdef FileSystem filesystem
    cdef const FileSystemOps* ops
    cdef void* disk
    cdef readonly str path
    cdef readonly object recovery
    cdef bytes path_bytes
    cdef const char* folder             # path_bytes, for code without the GIL
    cdef uint64_t segment_bytes
    cdef bint read_only
    cdef bint closed
    cdef bint maps                      # stores through a map are worth trying (see write_out)
    cdef dict sealed                    # number of each older segment -> largest index in it
    cdef list sticky                    # for each kind None, False (is sticky), or its newest record
    cdef object writer                  # the writer thread, once started
    cdef int event                      # eventfd that it signals, or -1

    # Guarded by `monitor`. Nobody takes the GIL while holding it.
    cdef KvstoreMonitor monitor
    cdef deque[Chunk] pending           # appended, not yet with a flusher
    cdef Status failure                 # the first one; every later call repeats it
    cdef bint flushing                  # one flusher at a time
    cdef bint stopping
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
    cdef uint64_t segment_limit         # 0 forces a new segment on the next append
    cdef uint32_t chain

    # The flusher's.
    cdef void* file
    cdef uint64_t file_segment
    cdef uint64_t file_capacity
    cdef uint64_t file_end
    cdef uint8_t* memory                # the map of the current segment, or NULL

    # Copies the payload into memory. -1: see `status`.
    cdef int append_slice(self, int kind, uint64_t index, uint64_t term, Slice payload, Status* status)
    # All that was appended so far is in the file: it survives the process, not the machine.
    cdef int write_out(self, Status* status) noexcept nogil
    # All up to position `ticket` survives the machine. Concurrent callers share one sync.
    cdef int sync_to(self, uint64_t ticket, Status* status) noexcept nogil
    # The exception for a status that one of these filled.
    cdef object error(self, Status* status)

    cdef void recover(self) except *
    cdef uint64_t judge_end(self, SegmentReader* reader, str where) except? 0xFFFFFFFFFFFFFFFF
    cdef void trust_tail(self, uint64_t number, uint64_t end) except *
    cdef void begin_segment(self) except *
    cdef void put_record(self, int kind, uint64_t index, uint64_t term, Slice payload) noexcept nogil
    cdef int flush(self, uint64_t ticket, bint durably, Status* status) noexcept nogil
    cdef int write_chunk(self, Chunk* chunk, bint durably, Status* status) noexcept nogil
    cdef int enter_segment(self, Chunk* chunk, Status* status) noexcept nogil
    cdef int leave_segment(self, Status* status) noexcept nogil
    cdef int leave_mark(self, Status* status) noexcept nogil
    cdef void run_writer(self) noexcept nogil
    cdef void release(self) noexcept
