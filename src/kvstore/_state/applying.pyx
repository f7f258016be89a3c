"""Entries, from bytes to the engine's batch and a column of results."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.database.native cimport (
    Database,
    WriteBatch,
    encode_operation,
    is_there_cached,
    look_without_disk,
    lookup_cached,
)
from kvstore._engine.memtable.native cimport COLD, FOUND
from kvstore._engine.primitives.native cimport (
    Buffer,
    KIND_DELETE,
    KIND_PUT,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    crc32c_extend,
    get_fixed32,
    get_fixed64,
    kv_calloc,
    kv_free,
    put_fixed32,
    put_fixed64,
    slice_equal,
    slice_of,
)
from kvstore._engine.table.native cimport Pinned, pinned_release

import os

from kvstore.errors import CorruptionError, IntegrityCode

cdef enum:
    REQUEST_RECORD_VERSION = 2
    REQUEST_RECORD_HEAD_BYTES = 9
    STATE_RECORD_VERSION = 2            # of level 0; that of others is as much higher
    STATE_RECORD_BYTES = 45
    STATE_RECORD_BYTES_MAX = 61         # where the model is on

cdef Slice USER_PREFIX = slice_of(<const char*> b"\x01", 1)
cdef Slice STATE_KEY = slice_of(<const char*> b"\x00state", 6)
cdef Slice REQUESTS_PREFIX = slice_of(<const char*> b"\x00request", 8)
cdef Slice SESSIONS_PREFIX = slice_of(<const char*> b"\x00session", 8)
cdef Slice NOTHING = slice_of(NULL, 0)

# Keys come from strangers, who must not be able to choose them so that they meet in a table.
cdef bytes SECRET = os.urandom(16)
cdef uint64_t SECRET_START = get_fixed64(<const uint8_t*> PyBytes_AS_STRING(SECRET))
cdef uint64_t SECRET_FACTOR = get_fixed64(<const uint8_t*> PyBytes_AS_STRING(SECRET) + 8) | 1


cdef uint32_t key_hash(Slice key) noexcept:
    cdef uint64_t hash = SECRET_START ^ key.size
    cdef uint64_t word
    cdef size_t at = 0
    while at < key.size:
        word = 0
        memcpy(&word, key.data + at, min(<size_t> 8, key.size - at))
        hash = (hash ^ word) * SECRET_FACTOR
        hash ^= hash >> 32
        at += 8
    return <uint32_t> hash


cdef int add_to(
    WriteBatch batch, int kind, uint64_t sequence, Slice prefix, Slice key, Slice value
) except -1:
    """One more operation of a batch, with a number of its own."""
    if encode_operation(&batch.encoded, kind, True, sequence, prefix, key, value) < 0:
        raise MemoryError("no memory for a batch")
    batch.count += 1
    batch.numbered = True
    return 0


cdef class Prepared:
    """See the stub."""

    def __cinit__(self):
        self.entries = []
        self.cold = []

    def __dealloc__(self):
        kv_free(self.steps)
        kv_free(self.keys)
        kv_free(self.places)

    def __len__(self):
        return len(self.entries)

    def learn(self, dict found not None):
        cdef bytes stored_key, record
        cdef uint32_t at
        cdef StoredKey* key
        for stored_key, version in found.items():
            at = self.place_of(
                slice_of(PyBytes_AS_STRING(stored_key) + 1, PyBytes_GET_SIZE(stored_key) - 1)
            )
            if self.places[at]:
                key = &self.keys[self.places[at] - 1]
                key.present = 0
                if version is not None:
                    record, sequence = version
                    self.found(
                        key, slice_of(PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record)), sequence
                    )
        self.cold.clear()

    cdef int find(self, Database db, StoredKey* key, Slice stored_key) except -1:
        cdef Slice record
        cdef uint64_t sequence
        cdef Pinned pin
        cdef int found
        if self.model_from == 0:
            known = is_there_cached(db, stored_key, db.visible)
            key.present = PRESENT_COLD if known is None else known is True
        else:
            found = look_without_disk(db, stored_key, db.visible, &record, &sequence, &pin)
            try:
                key.present = PRESENT_COLD if found == COLD else 0
                if found == FOUND:
                    self.found(key, record, sequence)
            finally:
                pinned_release(&pin)
        if key.present == PRESENT_COLD:
            self.cold.append(
                PyBytes_FromStringAndSize(<const char*> stored_key.data, stored_key.size)
            )
        return 0

    cdef int found(self, StoredKey* key, Slice record, uint64_t sequence) except -1:
        key.present = 1
        if self.model_from and (
            read_key_header(record, sequence, self.model_from, &key.header) == NULL
        ):
            raise broken_record(sequence)
        return 0

    cdef int provide(self, uint32_t commands) except -1:
        """Room for so many commands in all."""
        cdef uint32_t size = 2
        while size < 2 * commands:
            size *= 2
        self.mask = size - 1
        self.steps = <Step*> kv_calloc(commands + 1, sizeof(Step))
        self.keys = <StoredKey*> kv_calloc(commands + 1, sizeof(StoredKey))
        self.places = <uint32_t*> kv_calloc(size, sizeof(uint32_t))
        if self.steps == NULL or self.keys == NULL or self.places == NULL:
            raise MemoryError("no memory to apply entries")
        return 0

    cdef uint32_t place_of(self, Slice key) noexcept:
        """Where in the places a key is, or would be."""
        cdef uint32_t at = key_hash(key) & self.mask
        while self.places[at] and not slice_equal(self.keys[self.places[at] - 1].key, key):
            at = (at + 1) & self.mask
        return at


cdef class Applying:
    """See the stub."""

    def __init__(
        self, Database db not None, RequestMemory requests not None, Sessions sessions not None,
        uint64_t applied_index, uint64_t applied_term, uint64_t revision, uint32_t state_hash,
        uint64_t clock_ms, uint64_t model_from, int64_t compacted, uint8_t level,
    ):
        self.db = db
        self.requests = requests
        self.sessions = sessions
        self.applied_index = applied_index
        self.applied_term = applied_term
        self.revision = revision
        self.state_hash = state_hash
        self.clock_ms = clock_ms
        self.model_from = model_from
        self.compacted = compacted
        self.level = level

    def __cinit__(self, *_args, **_named):
        buffer_init(&self.record)

    def __dealloc__(self):
        buffer_free(&self.record)

    @property
    def open_sessions(self):
        return len(self.sessions)

    def advance(
        self, uint64_t applied_index, uint64_t applied_term, uint64_t revision,
        uint32_t state_hash, uint64_t clock_ms, uint64_t model_from, int64_t compacted,
        uint8_t level,
    ):
        self.applied_index = applied_index
        self.applied_term = applied_term
        self.revision = revision
        self.state_hash = state_hash
        self.clock_ms = clock_ms
        self.model_from = model_from
        self.compacted = compacted
        self.level = level

    def refuse(self, int refused):
        self.refused = refused

    def prepare(self, entries):
        cdef Prepared prepared = Prepared.__new__(Prepared)
        cdef Database db = self.db
        cdef uint8_t stored_key[1 + COMMAND_KEY_BYTES_MAX]
        cdef const uint8_t* at
        cdef const uint8_t* end
        cdef uint64_t time_ms, guard
        cdef uint32_t count, place
        cdef uint32_t commands = 0
        cdef Command command
        cdef StoredKey* key
        cdef bytes data
        db.check_open()
        prepared.model_from = self.model_from
        for index, term, given in entries:
            data = given
            if data:
                end = <const uint8_t*> PyBytes_AS_STRING(data)
                if end[0] == OPERATIONS_VERSION and prepared.entries:
                    break  # they are another slice
                if read_entry_head(
                    end, PyBytes_GET_SIZE(data), &time_ms, &count, &guard
                ) == NULL:
                    raise ValueError(data)
                commands += count
            prepared.entries.append((index, term, data))
        prepared.provide(commands)
        stored_key[0] = 1
        for _, _, data in prepared.entries:
            if not data:
                continue
            at = <const uint8_t*> PyBytes_AS_STRING(data)
            end = at + PyBytes_GET_SIZE(data)
            at = read_entry_head(at, end - at, &time_ms, &count, &guard)
            while count:
                at = read_command(at, end, &command)
                if at == NULL:
                    raise ValueError(data)
                count -= 1
                prepared.steps[prepared.step_count].command = command
                prepared.steps[prepared.step_count].key = NO_KEY
                if command.kind != COMMAND_OPEN:
                    place = prepared.place_of(command.key)
                    if prepared.places[place] == 0:
                        key = &prepared.keys[prepared.key_count]
                        key.key = command.key
                        memcpy(stored_key + 1, command.key.data, command.key.size)
                        prepared.find(db, key, slice_of(stored_key, 1 + command.key.size))
                        prepared.key_count += 1
                        prepared.places[place] = prepared.key_count
                    prepared.steps[prepared.step_count].key = prepared.places[place] - 1
                prepared.step_count += 1
            if at != end:
                raise ValueError(data)
        return prepared

    def apply(self, Prepared prepared not None):
        cdef WriteBatch batch = WriteBatch()
        cdef uint64_t first = self.revision
        cdef uint64_t time_ms, guard
        cdef uint8_t record[STATE_RECORD_BYTES_MAX]
        cdef Step* steps = prepared.steps
        cdef uint32_t count
        cdef uint64_t index
        cdef bytes data, codes
        cdef list answers = []
        if prepared.cold:
            raise ValueError("what only the disk knows was not looked up")
        for entry_index, entry_term, data in prepared.entries:
            index = entry_index
            codes = b""
            if data:
                # It was read before: it is whole.
                read_entry_head(
                    <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
                    &time_ms, &count, &guard
                )
                codes = PyBytes_FromStringAndSize(NULL, count)
                self.apply_entry(
                    prepared, steps, count, index, time_ms, guard, batch,
                    <uint8_t*> PyBytes_AS_STRING(codes)
                )
                steps += count
                self.state_hash = crc32c_extend(
                    self.state_hash, <const uint8_t*> PyBytes_AS_STRING(codes), count
                )
                self.state_hash = crc32c_extend(
                    self.state_hash, <const uint8_t*> PyBytes_AS_STRING(data),
                    PyBytes_GET_SIZE(data)
                )
            answers.append((entry_index, entry_term, codes))
        self.applied_index = entry_index
        self.applied_term = entry_term
        add_to(
            batch, KIND_PUT, self.revision, NOTHING, STATE_KEY,
            slice_of(record, self.write_state(record))
        )
        self.db.write(batch, sequence=first, applied_index=entry_index)
        return answers

    cdef int write_state(self, uint8_t* record) noexcept:
        record[0] = STATE_RECORD_VERSION + self.level
        put_fixed64(record + 1, self.applied_index)
        put_fixed64(record + 9, self.applied_term)
        put_fixed64(record + 17, self.revision)
        put_fixed32(record + 25, self.state_hash)
        put_fixed64(record + 29, self.clock_ms)
        put_fixed64(record + 37, self.requests._forgotten_ms)
        if not self.model_from:
            return STATE_RECORD_BYTES
        put_fixed64(record + 45, self.model_from)
        put_fixed64(record + 53, <uint64_t> self.compacted)
        return STATE_RECORD_BYTES_MAX

    cdef int apply_entry(
        self, Prepared prepared, Step* steps, uint32_t count, uint64_t index, uint64_t time_ms,
        uint64_t guard, WriteBatch batch, uint8_t* results
    ) except -1:
        cdef bint is_old = self.guard != 0 and guard != self.guard
        cdef Buffer fresh
        cdef dict used = {}
        cdef uint8_t number[8]
        cdef uint8_t record[SESSION_RECORD_BYTES_MAX]
        cdef uint8_t head[REQUEST_RECORD_HEAD_BYTES]
        cdef Session session
        cdef bytes name
        cdef uint32_t place
        cdef Step* step
        self.clock_ms = max(self.clock_ms, time_ms)
        gone = self.sessions.expire(self.clock_ms)
        if gone is not None:
            for name in gone:
                self.forget_session(name, batch)
        # The plain requests that are applied, as they are stored.
        buffer_init(&fresh)
        try:
            head[0] = REQUEST_RECORD_VERSION
            put_fixed64(head + 1, self.clock_ms)
            if buffer_append(&fresh, head, REQUEST_RECORD_HEAD_BYTES) < 0:
                raise MemoryError("no memory to apply entries")
            for place in range(count):
                step = &steps[place]
                if is_old:
                    results[place] = RESULT_USERS_CHANGED
                elif step.command.form == FORM_SESSION:
                    results[place] = self.apply_of_session(
                        prepared, step, index, place, used, batch
                    )
                elif step.command.kind != COMMAND_OPEN:
                    results[place] = self.apply_plain(prepared, step, index, batch, &fresh)
                else:
                    results[place] = self.open_session(step, index, place, used, batch)
            if fresh.size > REQUEST_RECORD_HEAD_BYTES:
                put_big_endian(number, index)
                add_to(
                    batch, KIND_PUT, self.revision, REQUESTS_PREFIX, slice_of(number, 8),
                    slice_of(fresh.data, fresh.size)
                )
                for old in self.requests.take_forgotten():
                    put_big_endian(number, old)
                    add_to(
                        batch, KIND_DELETE, self.revision, REQUESTS_PREFIX, slice_of(number, 8),
                        NOTHING
                    )
        finally:
            buffer_free(&fresh)
        for name in used:
            session = self.sessions.look(name, self.clock_ms)
            if session is not None:
                add_to(
                    batch, KIND_PUT, self.revision, SESSIONS_PREFIX,
                    slice_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)),
                    slice_of(record, session.record(record))
                )
        return 0

    cdef int forget_session(self, bytes name, WriteBatch batch) except -1:
        return add_to(
            batch, KIND_DELETE, self.revision, SESSIONS_PREFIX,
            slice_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)), NOTHING
        )

    cdef int apply_plain(
        self, Prepared prepared, Step* step, uint64_t index, WriteBatch batch, Buffer* fresh
    ) except -1:
        """A write with an id of the client's own making."""
        cdef RequestMemory requests = self.requests
        cdef uint64_t word = word_of_fingerprint(step.command.fingerprint)
        cdef uint64_t known = requests.word(step.command.request)
        cdef int existed, refusal
        if known:
            return result_of_word(known, word)
        if step.command.form == FORM_SENT_BEFORE and (
            requests._forgotten_ms and requests._forgotten_ms >= step.command.since
        ):
            return RESULT_REFUSED + REFUSED_REQUEST_FORGOTTEN
        refusal = self.refusal(step)
        if refusal:
            return refusal
        existed = self.write(prepared, step, batch)
        word |= <uint64_t> existed
        requests.remember(step.command.request, word, index, self.clock_ms)
        if buffer_append(fresh, step.command.request, REQUEST_BYTES) < 0 or (
            buffer_append(fresh, &word, 8) < 0
        ):
            raise MemoryError("no memory to apply entries")
        return existed

    cdef int apply_of_session(
        self, Prepared prepared, Step* step, uint64_t index, uint32_t place, dict used,
        WriteBatch batch
    ) except -1:
        """A write that a session numbered."""
        cdef bytes name = (<const char*> step.command.request)[:REQUEST_BYTES]
        cdef Session session = self.sessions.use(name, self.clock_ms, index, place)
        cdef uint64_t word, known
        cdef int existed, refusal
        if session is None:
            return RESULT_REFUSED + REFUSED_SESSION_EXPIRED
        used[session.name] = None
        session.advance(step.command.floor)
        if step.command.sequence < session.floor:
            return RESULT_REFUSED + REFUSED_SEQUENCE_PASSED
        word = word_of_fingerprint(step.command.fingerprint)
        known = session.find(step.command.sequence)
        if known:
            return result_of_word(known, word)
        refusal = self.refusal(step)
        if refusal:
            return refusal
        existed = self.write(prepared, step, batch)
        session.remember(step.command.sequence, word | <uint64_t> existed)
        return existed

    cdef int refusal(self, Step* step) noexcept:
        # It isn't remembered, so that a retry is done once the alarm is over.
        if self.refused == REFUSES_WRITES:
            return RESULT_CORRUPT
        if self.refused == REFUSES_PUTS and step.command.kind == COMMAND_PUT:
            return RESULT_NO_SPACE
        return 0

    cdef int open_session(
        self, Step* step, uint64_t index, uint32_t place, dict used, WriteBatch batch
    ) except -1:
        cdef bytes name = (<const char*> step.command.request)[:REQUEST_BYTES]
        gone = self.sessions.make_room(self.clock_ms)
        if gone is None:
            return RESULT_NO_ROOM
        if gone:
            self.forget_session(gone, batch)
        used[name] = None
        return self.sessions.begin(name, self.clock_ms, index, place)

    cdef int write(self, Prepared prepared, Step* step, WriteBatch batch) except -1:
        """Do it, whatever its id; returns whether the key had a value."""
        cdef StoredKey* key = &prepared.keys[step.key]
        cdef int existed = key.present
        if self.model_from:
            self.write_versioned(key, &step.command, batch)
            return existed
        self.revision += 1
        if step.command.kind == COMMAND_PUT:
            add_to(
                batch, KIND_PUT, self.revision, USER_PREFIX, step.command.key, step.command.value
            )
            key.present = 1
        elif existed:
            add_to(batch, KIND_DELETE, self.revision, USER_PREFIX, step.command.key, NOTHING)
            key.present = 0
        return existed

    cdef int write_versioned(self, StoredKey* key, Command* command, WriteBatch batch) except -1:
        """The same under the model: a change is an event, and takes the key off its lease."""
        cdef bint is_delete = command.kind == COMMAND_DELETE
        cdef int existed = key.present
        cdef KeyHeader before = key.header
        cdef uint8_t event[EVENT_KEY_BYTES]
        cdef uint8_t head[KEY_HEADER_BYTES_MAX]
        cdef Slice change
        if is_delete and not existed:
            return 0
        self.revision += 1
        if is_delete:
            add_to(batch, KIND_DELETE, self.revision, USER_PREFIX, command.key, NOTHING)
        else:
            key.header.created = before.created if existed else self.revision
            key.header.version = before.version + 1 if existed else 1
            key.header.changed = self.revision
            key.header.lease = 0
            change = self.join(head, write_key_header(head, &key.header) - head, command.value)
            add_to(batch, KIND_PUT, self.revision, USER_PREFIX, command.key, change)
        key.present = not is_delete
        write_event_key(event, self.revision, 0)
        change = self.join(
            head, write_event_head(head, is_delete, before.changed if existed else 0) - head,
            command.key
        )
        add_to(batch, KIND_PUT, self.revision, slice_of(event, EVENT_KEY_BYTES), NOTHING, change)
        if existed and before.lease:
            write_attachment_head(head, before.lease)
            add_to(
                batch, KIND_DELETE, self.revision, slice_of(head, ATTACHMENT_HEAD_BYTES),
                command.key, NOTHING
            )
        return 0

    cdef Slice join(self, const uint8_t* head, size_t size, Slice rest) except *:
        """The two one after the other, until the next call."""
        self.record.size = 0
        if (
            buffer_append(&self.record, head, size) < 0
            or buffer_append(&self.record, rest.data, rest.size) < 0
        ):
            raise MemoryError("no memory to apply entries")
        return slice_of(self.record.data, self.record.size)

    cdef object value_cached(self, Slice stored_key, object cold):
        cdef Database db = self.db
        cdef KeyHeader header
        cdef Slice record
        cdef uint64_t sequence
        cdef const uint8_t* value
        cdef Pinned pin
        cdef int found
        if self.model_from == 0:
            return lookup_cached(db, stored_key, db.visible, None, cold)
        found = look_without_disk(db, stored_key, db.visible, &record, &sequence, &pin)
        try:
            if found != FOUND:
                return cold if found == COLD else None
            value = read_key_header(record, sequence, self.model_from, &header)
            if value == NULL:
                raise broken_record(sequence)
            return PyBytes_FromStringAndSize(
                <const char*> value, record.data + record.size - value
            )
        finally:
            pinned_release(&pin)

    cdef int known_result(
        self, const uint8_t* request, uint64_t fingerprint, uint64_t sequence
    ) except -2:
        cdef uint64_t known = 0
        cdef Session session
        cdef bytes name
        if sequence:
            name = (<const char*> request)[:REQUEST_BYTES]
            session = self.sessions.look(name, self.clock_ms)
            if session is not None and sequence >= session.floor:
                known = session.find(sequence)
        else:
            known = self.requests.word(request)
        return result_of_word(known, word_of_fingerprint(fingerprint)) if known else RESULT_UNKNOWN

    def first_result(
        self, bytes request not None, bytes fingerprint not None, uint64_t sequence=0
    ):
        if len(request) != REQUEST_BYTES or len(fingerprint) != FINGERPRINT_BYTES:
            raise ValueError("a digest of 16 bytes and a fingerprint of 8")
        cdef int code = self.known_result(
            <const uint8_t*> PyBytes_AS_STRING(request),
            get_fixed64(<const uint8_t*> PyBytes_AS_STRING(fingerprint)), sequence
        )
        return None if code == RESULT_UNKNOWN else code


cdef inline int result_of_word(uint64_t known, uint64_t word) noexcept:
    """What a request got, or that its id is another one's."""
    return <int> (known & 1) if known & ~<uint64_t> 1 == word else RESULT_REUSED


cdef object broken_record(uint64_t sequence):
    return CorruptionError(
        f"the record of a key at revision {sequence} is broken", code=IntegrityCode.INVALID_RECORD
    )
