"""The state of an open database, its opening and closing, and how its set of tables changes.

The GIL guards every field; what runs without it (jobs, lookups in tables) works on references
taken under it. `installing` serialises changes of the manifest, `flushing` keeps flushes in order.
All locks and their order: docs/architecture.md, "Locks".
"""

from libc.stdint cimport uint64_t

from kvstore._engine.files.native cimport (
    DirectoryLock,
    FileSystem,
    FileSystemOps,
    GuardedFileSystem,
)
from kvstore._engine.log.native cimport Log
from kvstore._engine.memtable.native cimport MemTable
from kvstore._engine.table.native cimport BlockCache, TableOptions
from kvstore._engine.version.native cimport (
    Change,
    HistoryKeys,
    LEVELS,
    LiveTable,
    Manifest,
    OpenTables,
    Version,
)


cdef enum:
    MAX_FROZEN = 64


cdef struct Frozen:
    # A memtable that waits for its flush.
    MemTable* table
    uint64_t last_sequence      # of what it holds
    uint64_t applied_index      # what its flush makes durable


cdef struct IteratorLink:
    # One open iterator in its store's list, so that closing the store closes it.
    IteratorLink* next
    IteratorLink* prev
    bint linked
    void* owner
    void (*close)(void* owner) noexcept


cdef class Store:
    # --- configuration, constant once open
    cdef readonly str name              # as it was given; for people
    cdef readonly str path              # the same directory, whatever becomes of the working one
    cdef FileSystem disk
    cdef GuardedFileSystem guard        # the same; it sees to it that the directory is still ours
    cdef readonly bytes database_id     # 16 bytes, random, for its whole life
    cdef object options
    cdef TableOptions table_options
    cdef size_t write_buffer_bytes
    cdef int max_frozen
    cdef uint64_t max_file_bytes
    cdef uint64_t level_base_bytes
    cdef int level_multiplier
    cdef int compaction_trigger
    cdef int slowdown_files
    cdef int stop_files
    cdef bint uses_log
    cdef bint background
    cdef HistoryKeys* history   # of whose keys `retain_from` keeps history; NULL: of all
    cdef list history_bounds    # what its keys are borrowed from

    # --- whether it may be used
    cdef bint open
    # Set whenever a write can't take the short way: closed, failed, slowed down, or earlier writes
    # wait for their sync or are held.
    cdef bint attention
    cdef readonly object failure        # the error that made it read-only, or None
    cdef bint read_only         # opened so: nothing of the directory is written
    cdef Retry flush_retry      # errors that go away by themselves stop no write that has room
    cdef Retry compaction_retry
    cdef dict damaged_tables    # number -> what a compaction that read it met
    cdef bint forked            # this is a child of the process that opened it
    cdef bint replacing         # tables of elsewhere are about to come into a range
    cdef int running_tasks      # compactions that are at work, of any thread; close() waits for them
    cdef uint64_t stop_jobs     # atomic; 1: jobs end at once
    cdef object held            # HeldWrites, once there were some

    # --- contents
    cdef MemTable* memory
    cdef size_t look_at         # used so far, a writer is to look whether it is full, or to be held back
    cdef size_t looked_at       # used so far when one did last
    cdef Pace pace
    cdef Frozen frozen[MAX_FROZEN]      # newest first
    cdef int frozen_count
    cdef Version* version
    cdef uint64_t assigned      # the last sequence given to a write
    cdef uint64_t visible       # the last sequence that readers see; behind while a sync is awaited
    cdef uint64_t applied_index         # of the newest write
    cdef uint64_t flushed_applied       # what tables hold durably
    cdef uint64_t flushed_sequence
    cdef uint64_t flushed_memtables     # since opening; the sequences of two may be the same
    cdef uint64_t retain_from   # no sequence from here on may be lost to readers of `history`
    cdef uint64_t history_from  # jobs have let go of versions that readers before it would need
    cdef dict snapshots         # sequence -> how many hold it
    cdef IteratorLink* open_iterators
    cdef DeadRanges dead        # where nothing is, for walks
    cdef dict feeds             # id -> weak reference, of each open ChangeReader
    cdef bint feeds_wait        # some may wait for a write: `arrivals` is to tell of it
    cdef EventCount arrivals    # writes that became visible, a failure, the end

    # --- files
    cdef Log log
    cdef uint64_t log_kept              # segments below it are gone, or about to be
    # What the manifest says of the log: None or b"" where there is none; 0 where nothing is durable.
    cdef bytes log_id
    cdef uint64_t log_first             # the oldest segment that must be there
    cdef uint64_t log_segment           # the newest one that is known to be durable
    cdef uint64_t log_end               # up to this offset
    cdef tuple noted                    # what END says: manifest, bytes of it, segment, offset
    cdef bint end_asks                  # END may ask for some of the log, whatever `noted` says
    cdef bint log_rolled                # a segment was begun that END doesn't know of
    cdef Manifest manifest      # None before the first edit, and while a full disk has no room for it
    # Until then the one that opening read is in force, all of it known to be durable.
    cdef bint manifest_stands
    cdef bint directory_made    # by this opening
    cdef bint current_unsynced  # CURRENT was switched, but a power loss may take that back
    cdef object unsynced_edit   # the first edit of the manifest that CURRENT names unsynced, or None
    cdef object end             # TwoCopies: how far manifest and log are durable
    cdef bint reserve_taken
    cdef bint reserve_spent     # it was given back once
    cdef DirectoryLock lock
    cdef BlockCache* cache
    cdef OpenTables* tables
    cdef uint64_t next_number   # atomic: the last file number given out
    cdef object installing
    cdef object flushing
    cdef EventCount changed     # a flush or compaction ended, or the store failed
    cdef EventCount work        # there is work for background threads, or an end of it
    cdef list threads           # of the background; they are started when there is work for them
    cdef bint threads_begun

    # --- counters since opening
    cdef uint64_t user_bytes
    cdef uint64_t flushed_bytes
    cdef uint64_t compacted_bytes
    cdef uint64_t compaction_read_bytes
    cdef uint64_t flushes
    cdef uint64_t compactions
    cdef uint64_t trivial_moves
    cdef uint64_t dropped_entries
    cdef uint64_t passed_entries        # by iterators and counts that are closed
    cdef uint64_t slowdowns
    cdef double slowdown_seconds
    cdef uint64_t stalls
    cdef double stall_seconds
    cdef uint64_t loaded_manifest       # the number of the one that opening read; 0: a new database
    cdef uint64_t torn_manifest_bytes
    cdef uint64_t manifest_rolls

    # Whether the background's threads run; starts them. False: it has none, or the system allows none.
    cdef bint has_threads(self) except -1
    # There is work for them.
    cdef int call_threads(self) except -1
    # There may be some, if a compaction is due.
    cdef int call_for_compaction(self) except -1
    cdef int check_open(self) except -1
    cdef int check_writable(self) except -1
    cdef int fail(self, object error) except -1
    # After a job that failed, or went well. A failure that won't go away ends all writes.
    cdef int job_failed(self, Retry retry, object error) except -1
    cdef int job_done(self, Retry retry) except -1
    cdef bint log_has_failed(self) except -1
    # True where the error was lack of space or of descriptors, and some are there now: try once more.
    cdef bint make_space(self, object error) except -1
    # The same of descriptors alone: tables give theirs back.
    cdef bint make_descriptors(self, object error) except -1
    cdef int refresh_attention(self) except -1
    cdef bint is_holding(self) except -1
    # Takes over the memory table as the newest frozen one. The caller has seen to the room.
    cdef int freeze(self) except -1
    # Makes an edit durable, and the version and the marks that it leads to current.
    cdef int install(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count
    ) except -1
    # The same, where so many of the oldest frozen memtables, `frozen_done`, are now in `added`. `old`,
    # current until then, is left to the caller, who has other things to do without the GIL:
    # version_release_removing(). Where this fails, too, if it isn't NULL then.
    cdef int replace(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count, int frozen_done, Version** old
    ) except -1
    # Under `installing`.
    cdef int enter_version(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count, int frozen_done, Version** old
    ) except -1
    # A manifest that this opening may write to, where it isn't there yet. Under `installing`.
    cdef int need_manifest(self) except -1
    # A fresh manifest in the place of one that has grown long. Under `installing`.
    cdef int roll_manifest(self) except -1
    cdef int switch_manifest(self) except -1
    cdef int sync_current(self) except -1
    # Says in END how far the manifest is durable, which a full disk may put off to the next edit.
    cdef int note_manifest(self) except -1
    cdef int note_failed(self, object error) except -1
    cdef list protected_sequences(self)
    cdef int open_directory(self, str path) except -1
    cdef int read_identity(self) except -1
    cdef int open_to_read(self, str path) except -1
    cdef int recover(self, object create_if_missing, object error_if_exists) except -1
    # The files of an empty database, in a directory that has none of them.
    cdef int create(self, bint with_identity) except -1
    cdef int sync_own_name(self) except -1
    cdef int finish_creation(self, dict files, bint with_identity) except -1
    # Whether what is there without a manifest in force is nothing but a try to create it.
    cdef bint creation_was_cut_off(self, list names) except -1
    cdef int load(self) except -1
    cdef int replay_log(self, str path) except -1
    # What an edit is to say of the log, of which tables hold all up to `flushed`.
    cdef int describe_log(self, object edit, uint64_t flushed) except -1
    cdef int take_note_of_log(self, object edit) except -1
    cdef bint is_small(self) noexcept
    cdef int renew_reserve(self) except -1
    cdef int say_that_no_log_is_needed(self) except -1
    cdef bint manifest_is_durable(self) noexcept
    cdef bint asks_for_log(self) except -1
    cdef bint may_lose_its_log(self) except -1
    cdef bint log_is_unneeded(self) except -1
    cdef tuple end_of_now(self)
    cdef int forget_replayed(self) except -1
    cdef int remove_leftovers(self, list names) except -1
    cdef object everything(self)
    cdef void link(self, IteratorLink* link) noexcept
    cdef void unlink(self, IteratorLink* link) noexcept
    cdef void close_iterators(self) noexcept
    cdef int close_feeds(self) except -1
    cdef int shut(self) except -1


cdef void tables_left(void* owner) noexcept nogil
cdef object table_entry(int level, LiveTable* file)
