"""The state machine's work on entries: kvstore.state.plain is its readable form.

What is prepared borrows from the entries' bytes, which it holds, and is good for one application.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.database.native cimport Database, WriteBatch
from kvstore._engine.primitives.native cimport Buffer, Slice


cdef enum:
    RESULT_UNKNOWN = -1
    # What is stored of an entry's results, and goes into the state's hash: False, True, and then
    RESULT_REUSED = 2
    RESULT_NO_ROOM = 3
    RESULT_REFUSED = 4          # and on: the places of kvstore.errors.Refusal
    REFUSED_SESSION_EXPIRED = 0
    REFUSED_SEQUENCE_PASSED = 1
    REFUSED_REQUEST_FORGOTTEN = 2
    RESULT_NO_SPACE = 16        # an alarm stands
    RESULT_CORRUPT = 17
    REFUSES_PUTS = 1            # as kvstore.state.mvcc.alarms.Refused
    REFUSES_WRITES = 2
    RESULT_USERS_CHANGED = 255
    PRESENT_COLD = 2
    NO_KEY = 0xFFFFFFFF


cdef struct Step:
    Command command
    uint32_t key                # place in the keys


cdef struct StoredKey:
    # A user key that some command writes, and whether it has a value: 1, 0, or PRESENT_COLD.
    Slice key
    int8_t present
    KeyHeader header            # under the model, where it is present


cdef class Prepared:
    cdef uint64_t model_from    # of the state that it is for
    cdef list entries           # (index, term, data)
    cdef readonly list cold     # keys of the engine
    cdef Step* steps            # owned; those of all entries, one after the other
    cdef StoredKey* keys        # owned
    cdef uint32_t* places       # owned; open addressing: 0 for free, else a place in `keys` plus 1
    cdef uint32_t mask
    cdef uint32_t step_count, key_count
    cdef int provide(self, uint32_t commands) except -1
    # What memory knows of `key`, which the engine has under `stored_key`.
    cdef int find(self, Database db, StoredKey* key, Slice stored_key) except -1
    # `key` has this record.
    cdef int found(self, StoredKey* key, Slice record, uint64_t sequence) except -1
    cdef uint32_t place_of(self, Slice key) noexcept


cdef class Applying:
    cdef Database db
    cdef readonly RequestMemory requests
    cdef readonly Sessions sessions
    cdef readonly uint64_t applied_index, applied_term, revision, clock_ms
    cdef readonly uint32_t state_hash
    cdef readonly uint64_t model_from   # 0 while the model is off
    cdef readonly int64_t compacted
    cdef int refused                    # by alarms: 0, REFUSES_PUTS or REFUSES_WRITES
    # The revision of the users while they are asked for, else 0: whoever keeps them sets it.
    cdef public uint64_t guard
    cdef readonly uint8_t level
    cdef Buffer record                  # of the key that is being written
    cdef int apply_entry(
        self, Prepared prepared, Step* steps, uint32_t count, uint64_t index, uint64_t time_ms,
        uint64_t guard, WriteBatch batch, uint8_t* results
    ) except -1
    cdef int apply_plain(
        self, Prepared prepared, Step* step, uint64_t index, WriteBatch batch, Buffer* fresh
    ) except -1
    cdef int apply_of_session(
        self, Prepared prepared, Step* step, uint64_t index, uint32_t place, dict used,
        WriteBatch batch
    ) except -1
    # 0, or the result of a write that an alarm refuses.
    cdef int refusal(self, Step* step) noexcept
    cdef int open_session(
        self, Step* step, uint64_t index, uint32_t place, dict used, WriteBatch batch
    ) except -1
    cdef int forget_session(self, bytes name, WriteBatch batch) except -1
    cdef int write(self, Prepared prepared, Step* step, WriteBatch batch) except -1
    cdef int write_versioned(self, StoredKey* key, Command* command, WriteBatch batch) except -1
    cdef Slice join(self, const uint8_t* head, size_t size, Slice rest) except *
    # The state's record into up to STATE_RECORD_BYTES_MAX bytes; how many they are.
    cdef int write_state(self, uint8_t* record) noexcept
    # The value of a user key, given as the engine has it, from memory: None for none, or `cold`.
    cdef object value_cached(self, Slice stored_key, object cold)
    # RESULT_UNKNOWN, or the result of a request, or that it was another one's.
    cdef int known_result(
        self, const uint8_t* request, uint64_t fingerprint, uint64_t sequence
    ) except -2
