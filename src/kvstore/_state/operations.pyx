"""Entries of operations that name single keys, from bytes to the engine's batch and answers.

Nothing here refuses anything: where an operation would be, or anything is out of the ordinary, the
whole slice is left to the readable form, from its beginning. Nothing was changed until then.
"""

from kvstore._engine.primitives.native cimport slice_compare

cdef object new_tuple = tuple.__new__   # of a NamedTuple: without the call of its own __new__


cdef inline const uint8_t* read_number(
    const uint8_t* at, const uint8_t* end, uint64_t* number
) noexcept nogil:
    """A varint of no more bytes than it needs."""
    cdef const uint8_t* after
    if at < end and at[0] < 0x80:
        number[0] = at[0]
        return at + 1
    after = get_varint64(at, end, number)
    if after == NULL or after[-1] == 0:
        return NULL
    return after


cdef inline const uint8_t* read_signed(
    const uint8_t* at, const uint8_t* end, int64_t* number
) noexcept nogil:
    cdef uint64_t zigzag
    at = read_number(at, end, &zigzag)
    if at != NULL:
        number[0] = <int64_t> (zigzag >> 1) ^ -<int64_t> (zigzag & 1)
    return at


cdef inline const uint8_t* read_run(
    const uint8_t* at, const uint8_t* end, Slice* run
) noexcept nogil:
    cdef uint64_t size
    at = read_number(at, end, &size)
    if at == NULL or size > <uint64_t> (end - at):
        return NULL
    run[0] = slice_of(at, size)
    return at + size


cdef const uint8_t* read_operations_head(
    const uint8_t* data, size_t size, uint64_t* time_ms, uint32_t* count
) noexcept nogil:
    if size < ENTRY_HEAD_BYTES or data[0] != OPERATIONS_VERSION:
        return NULL
    time_ms[0] = get_fixed64(data + 1)
    count[0] = get_fixed32(data + 9)
    if time_ms[0] > TIME_MAX_MS or count[0] > (size - ENTRY_HEAD_BYTES) // PROPOSAL_BYTES_MIN:
        return NULL
    return data + ENTRY_HEAD_BYTES


cdef const uint8_t* read_key_operation(
    const uint8_t* at, const uint8_t* end, KeyOperation* operation
) noexcept nogil:
    cdef Slice range_end
    cdef int64_t number
    cdef int place
    if at >= end or not OPERATION_RANGE <= at[0] <= OPERATION_DELETE_RANGE:
        return NULL
    operation.kind = at[0]
    operation.value = slice_of(NULL, 0)
    operation.lease = 0
    at = read_run(at + 1, end, &operation.key)
    if at == NULL or operation.key.size == 0:
        return NULL
    if operation.kind == OPERATION_PUT:
        at = read_run(at, end, &operation.value)
        if at != NULL:
            at = read_signed(at, end, &operation.lease)
        if operation.key.size > PUT_KEY_BYTES_MAX:
            return NULL
    else:
        at = read_run(at, end, &range_end)
        if at == NULL or range_end.size:
            return NULL
        if operation.kind == OPERATION_RANGE:
            for place in range(8):
                at = read_signed(at, end, &number)
                # The first is the limit, which says nothing about one key.
                if at == NULL or (place and number):
                    return NULL
    # None of the booleans.
    if at == NULL or at == end or at[0]:
        return NULL
    return at + 1


cdef const uint8_t* read_key_compare(
    const uint8_t* at, const uint8_t* end, KeyCompare* compare
) noexcept nogil:
    cdef int64_t target, result
    cdef Slice range_end
    at = read_run(at, end, &compare.key)
    if at == NULL or compare.key.size == 0:
        return NULL
    at = read_signed(at, end, &target)
    if at == NULL or not TARGET_VERSION <= target <= TARGET_LEASE:
        return NULL
    at = read_signed(at, end, &result)
    if at == NULL or not RESULT_EQUAL <= result <= RESULT_NOT_EQUAL:
        return NULL
    compare.target = <int> target
    compare.result = <int> result
    if target == TARGET_VALUE:
        at = read_run(at, end, &compare.operand)
    else:
        at = read_signed(at, end, &compare.number)
    if at != NULL:
        at = read_run(at, end, &range_end)
    if at == NULL or range_end.size:
        return NULL
    return at


cdef const uint8_t* pass_branch(
    const uint8_t* at, const uint8_t* end, uint32_t* keys
) noexcept nogil:
    """A Txn's list of operations, none of which changes what another one puts."""
    cdef KeyOperation[TXN_LIST_MAX] changes
    cdef KeyOperation operation
    cdef uint64_t count
    cdef uint32_t changed = 0
    cdef uint32_t other
    at = read_number(at, end, &count)
    if at == NULL or count > TXN_LIST_MAX:
        return NULL
    keys[0] += <uint32_t> count
    while count:
        at = read_key_operation(at, end, &operation)
        if at == NULL:
            return NULL
        count -= 1
        if operation.kind == OPERATION_RANGE:
            continue
        for other in range(changed):
            if slice_equal(changes[other].key, operation.key):
                return NULL
        changes[changed] = operation
        changed += 1
    return at


cdef const uint8_t* pass_proposal(
    const uint8_t* at, const uint8_t* end, uint32_t* keys
) noexcept nogil:
    cdef KeyOperation operation
    cdef KeyCompare compare
    cdef uint64_t count
    if end - at < PROPOSAL_BYTES_MIN or at[PROPOSAL_ID_BYTES]:
        return NULL             # cut short, or it says more than what is to be done
    at += PROPOSAL_ID_BYTES + 1
    if at[0] == OPERATION_PUT:
        keys[0] += 1
        return read_key_operation(at, end, &operation)
    if at[0] != OPERATION_TXN:
        return NULL
    at = read_number(at + 1, end, &count)
    if at == NULL or count > TXN_LIST_MAX:
        return NULL
    keys[0] += <uint32_t> count
    while count:
        at = read_key_compare(at, end, &compare)
        if at == NULL:
            return NULL
        count -= 1
    at = pass_branch(at, end, keys)
    if at == NULL:
        return NULL
    return pass_branch(at, end, keys)


cdef bint passes(bytes data, uint32_t* keys):
    """Whether an entry is whole, and of nothing but proposals that can be done natively."""
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef uint64_t time_ms
    cdef uint32_t count
    at = read_operations_head(at, end - at, &time_ms, &count)
    while at != NULL and count:
        at = pass_proposal(at, end, keys)
        count -= 1
    return at == end


def names_single_keys(bytes data not None):
    cdef uint32_t keys = 0
    return passes(data, &keys)


cdef class Evaluation(Prepared):

    def __cinit__(self):
        buffer_init(&self.record)
        buffer_init(&self.stored_key)
        buffer_init(&self.outcome)
        buffer_init(&self.nested)
        self.batch = WriteBatch()
        self.kept = []

    def __dealloc__(self):
        kv_free(self.values)
        buffer_free(&self.record)
        buffer_free(&self.stored_key)
        buffer_free(&self.outcome)
        buffer_free(&self.nested)

    cdef int begin(self, uint32_t keys) except -1:
        """Room for so many keys."""
        self.provide(keys)
        self.values = <Slice*> kv_calloc(keys + 1, sizeof(Slice))
        if self.values == NULL:
            raise MemoryError("no memory to apply entries")
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

    cdef int64_t key_of(self, Slice key) except -2:
        cdef uint32_t place = self.place_of(key)
        cdef uint8_t prefix = 1
        cdef StoredKey* stored
        if self.places[place] == 0:
            self.stored_key.size = 0
            if (
                buffer_append(&self.stored_key, &prefix, 1) < 0
                or buffer_append(&self.stored_key, key.data, key.size) < 0
            ):
                raise MemoryError("no memory to apply entries")
            stored = &self.keys[self.key_count]
            stored.key = key
            self.find(self.db, stored, slice_of(self.stored_key.data, self.stored_key.size))
            if stored.present == PRESENT_COLD:
                return -1
            self.key_count += 1
            self.places[place] = self.key_count
        return self.places[place] - 1

    cdef bint value_of(self, int64_t place, Slice* value) except -1:
        cdef StoredKey* key = &self.keys[place]
        cdef Slice record
        cdef uint64_t sequence
        cdef KeyHeader header
        cdef const uint8_t* begins
        cdef Pinned pin
        cdef bytes copied
        cdef int found
        if self.values[place].data == NULL:
            self.stored_key.size = 1
            if buffer_append(&self.stored_key, key.key.data, key.key.size) < 0:
                raise MemoryError("no memory to apply entries")
            found = look_without_disk(
                self.db, slice_of(self.stored_key.data, self.stored_key.size), self.db.visible,
                &record, &sequence, &pin
            )
            try:
                if found != FOUND:
                    return False
                begins = read_key_header(record, sequence, self.model_from, &header)
                if begins == NULL:
                    raise broken_record(sequence)
                copied = PyBytes_FromStringAndSize(
                    <const char*> begins, record.data + record.size - begins
                )
            finally:
                pinned_release(&pin)
            self.kept_bytes += PyBytes_GET_SIZE(copied)
            if self.kept_bytes > READ_OF_SLICE_MAX:
                return False
            self.kept.append(copied)
            self.values[place] = slice_of(PyBytes_AS_STRING(copied), PyBytes_GET_SIZE(copied))
        value[0] = self.values[place]
        return True

    cdef int holds(self, KeyCompare* compare) except -2:
        cdef int64_t place = self.key_of(compare.key)
        cdef int64_t field = 0
        cdef KeyHeader* header
        cdef Slice value
        cdef int order
        if place < 0:
            return -1
        header = &self.keys[place].header
        if compare.target == TARGET_VALUE:
            if not self.keys[place].present:
                return 0
            if not self.value_of(place, &value):
                return -1
            order = slice_compare(value, compare.operand)
        else:
            if self.keys[place].present:
                if compare.target == TARGET_VERSION:
                    field = <int64_t> header.version
                elif compare.target == TARGET_CREATE:
                    field = <int64_t> header.created
                elif compare.target == TARGET_MOD:
                    field = <int64_t> header.changed
                else:
                    field = header.lease
            order = (field > compare.number) - (field < compare.number)
        if compare.result == RESULT_EQUAL:
            return order == 0
        if compare.result == RESULT_GREATER:
            return order > 0
        if compare.result == RESULT_LESS:
            return order < 0
        return order != 0

    # Each of these gives an answer, None where the readable form is to give it.

    cdef object do_proposal(self, const uint8_t** at, const uint8_t* end):
        """A proposal that was passed before, what it came to in the outcome."""
        cdef KeyOperation operation
        cdef object answer
        at[0] += PROPOSAL_ID_BYTES + 1
        self.nested.size = 0
        if at[0][0] == OPERATION_TXN:
            return self.do_txn(at, end)
        at[0] = read_key_operation(at[0], end, &operation)
        answer = self.put(&operation)
        if answer is not None:
            self.revision += 1
            self.events = 0
            self.note(&self.outcome, self.revision)
        return answer

    cdef object do_txn(self, const uint8_t** at, const uint8_t* end):
        cdef KeyCompare compare
        cdef KeyOperation operation
        cdef uint64_t count = 0
        cdef bint succeeded = True
        cdef uint8_t byte
        cdef int held, branch
        cdef list answers = []
        at[0] = read_number(at[0] + 1, end, &count)
        while count:
            count -= 1
            at[0] = read_key_compare(at[0], end, &compare)
            if succeeded:
                held = self.holds(&compare)
                if held < 0:
                    return None
                succeeded = held
        for branch in range(2):
            at[0] = read_number(at[0], end, &count)
            while count:
                count -= 1
                at[0] = read_key_operation(at[0], end, &operation)
                if succeeded == (branch == 0):
                    answer = self.do_operation(&operation)
                    if answer is None:
                        return None
                    answers.append(answer)
        if self.events:
            self.revision += 1
            self.events = 0
        self.note(&self.outcome, self.revision)
        byte = succeeded
        if (
            buffer_append(&self.outcome, &byte, 1) < 0
            or buffer_append(&self.outcome, self.nested.data, self.nested.size) < 0
        ):
            raise MemoryError("no memory to apply entries")
        return new_tuple(self.types.txn, (self.revision, bool(succeeded), tuple(answers)))

    cdef object do_operation(self, KeyOperation* operation):
        """One of a Txn, what it came to in the nested outcome."""
        cdef object answer
        if operation.kind == OPERATION_PUT:
            answer = self.put(operation)
            if answer is not None:
                self.note(&self.nested, self.revision + 1)
            return answer
        if operation.kind == OPERATION_RANGE:
            return self.range(operation)
        return self.delete(operation)

    cdef object put(self, KeyOperation* operation):
        cdef uint64_t revision = self.revision + 1
        cdef uint8_t head[KEY_HEADER_BYTES_MAX]
        cdef int64_t place
        cdef int64_t lease_was = 0
        cdef uint64_t previous = 0
        cdef KeyHeader* header
        cdef Slice change
        if operation.lease and operation.lease not in self.leases:
            return None
        place = self.key_of(operation.key)
        if place < 0:
            return None
        header = &self.keys[place].header
        if self.keys[place].present:
            previous = header.changed
            lease_was = header.lease
            header.version += 1
        else:
            header.created = revision
            header.version = 1
            self.keys[place].present = 1
        header.changed = revision
        header.lease = operation.lease
        self.values[place] = operation.value
        change = self.join(head, write_key_header(head, header) - head, operation.value)
        add_to(self.batch, KIND_PUT, revision, USER_PREFIX, operation.key, change)
        self.add_event(False, operation.key, previous)
        if operation.lease != lease_was:
            self.attach(operation.key, lease_was, operation.lease)
        return new_tuple(self.types.put, (revision, None))

    cdef object delete(self, KeyOperation* operation):
        cdef uint64_t revision = self.revision + 1
        cdef int64_t place = self.key_of(operation.key)
        cdef uint64_t deleted
        if place < 0:
            return None
        deleted = self.keys[place].present
        if deleted:
            self.keys[place].present = 0
            add_to(self.batch, KIND_DELETE, revision, USER_PREFIX, operation.key, NOTHING)
            self.add_event(True, operation.key, self.keys[place].header.changed)
            if self.keys[place].header.lease:
                self.attach(operation.key, self.keys[place].header.lease, 0)
        revision = self.revision + (self.events > 0)
        self.note(&self.nested, revision)
        if buffer_append(&self.nested, &deleted, 8) < 0:
            raise MemoryError("no memory to apply entries")
        return new_tuple(self.types.delete_range, (revision, deleted, ()))

    cdef object range(self, KeyOperation* operation):
        cdef uint64_t revision = self.revision + (self.events > 0)
        cdef int64_t place = self.key_of(operation.key)
        cdef uint64_t count
        cdef KeyHeader* header
        cdef Slice value
        cdef object found = ()
        if place < 0:
            return None
        count = self.keys[place].present
        self.read_bytes += READ_COST
        if count:
            if not self.value_of(place, &value):
                return None
            header = &self.keys[place].header
            self.read_bytes += operation.key.size + value.size
            found = (new_tuple(self.types.key_value, (
                PyBytes_FromStringAndSize(<const char*> operation.key.data, operation.key.size),
                header.created, header.changed, header.version,
                PyBytes_FromStringAndSize(<const char*> value.data, value.size), header.lease,
            )),)
        if self.read_bytes > READ_OF_SLICE_MAX:
            return None
        self.note(&self.nested, revision)
        if buffer_append(&self.nested, &count, 8) < 0:
            raise MemoryError("no memory to apply entries")
        return new_tuple(self.types.range, (revision, found, False, count))

    cdef int add_event(self, bint is_delete, Slice key, uint64_t previous) except -1:
        cdef uint8_t event[EVENT_KEY_BYTES]
        cdef uint8_t head[EVENT_HEAD_BYTES_MAX]
        cdef Slice change = self.join(
            head, write_event_head(head, is_delete, previous) - head, key
        )
        write_event_key(event, self.revision + 1, self.events)
        self.events += 1
        return add_to(
            self.batch, KIND_PUT, self.revision + 1, slice_of(event, EVENT_KEY_BYTES), NOTHING,
            change
        )

    cdef int attach(self, Slice key, int64_t lease_was, int64_t lease) except -1:
        """Move a key from one lease to another, 0 being none."""
        cdef uint8_t head[ATTACHMENT_HEAD_BYTES]
        cdef Slice prefix = slice_of(head, ATTACHMENT_HEAD_BYTES)
        if lease_was:
            write_attachment_head(head, lease_was)
            add_to(self.batch, KIND_DELETE, self.revision + 1, prefix, key, NOTHING)
        if lease:
            write_attachment_head(head, lease)
            add_to(self.batch, KIND_PUT, self.revision + 1, prefix, key, NOTHING)
        return 0

    cdef int note(self, Buffer* outcome, uint64_t revision) except -1:
        """An operation was done, at this revision: as all members must agree."""
        cdef uint8_t record[9]
        record[0] = 0
        put_fixed64(record + 1, revision)
        if buffer_append(outcome, record, 9) < 0:
            raise MemoryError("no memory to apply entries")
        return 0


cdef class Evaluator:
    """See the stub."""

    def __init__(self, Database db not None, applied, put, delete_range, range, txn, key_value):
        self.db = db
        self.applied = applied
        self.put = put
        self.delete_range = delete_range
        self.range = range
        self.txn = txn
        self.key_value = key_value

    def evaluate(
        self, list entries not None, uint64_t revision, uint64_t model_from, uint32_t state_hash,
        uint64_t clock_ms, dict leases not None,
    ):
        cdef Evaluation evaluation
        cdef const uint8_t* at
        cdef const uint8_t* end
        cdef uint64_t time_ms
        cdef uint32_t count
        cdef uint32_t keys = 0
        cdef size_t size = 0
        cdef bytes data
        cdef object id, answer
        cdef list applied = []
        cdef list answers
        self.db.check_open()
        for _, _, data in entries:
            if not data:
                continue
            size += PyBytes_GET_SIZE(data)
            if (
                not passes(data, &keys) or keys > KEYS_OF_SLICE_MAX
                or size > BYTES_OF_SLICE_MAX
            ):
                return None
        evaluation = Evaluation.__new__(Evaluation)
        evaluation.db = self.db
        evaluation.types = self
        evaluation.leases = leases
        evaluation.model_from = model_from
        evaluation.revision = revision
        evaluation.begin(keys)
        for index, term, data in entries:
            answers = []
            if data:
                at = <const uint8_t*> PyBytes_AS_STRING(data)
                end = at + PyBytes_GET_SIZE(data)
                evaluation.outcome.size = 0
                at = read_operations_head(at, end - at, &time_ms, &count)
                while count:
                    count -= 1
                    id = PyBytes_FromStringAndSize(<const char*> at, PROPOSAL_ID_BYTES)
                    answer = evaluation.do_proposal(&at, end)
                    if answer is None:
                        return None
                    answers.append((id, answer))
                clock_ms = max(clock_ms, time_ms)
                state_hash = crc32c_extend(state_hash, evaluation.outcome.data, evaluation.outcome.size)
                state_hash = crc32c_extend(
                    state_hash, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
                )
            applied.append(new_tuple(self.applied, (index, term, b"", tuple(answers))))
        return applied, evaluation.batch, evaluation.revision, state_hash, clock_ms


cdef class KeyReader:
    """See the stub."""

    def __init__(self, Database db not None, range, key_value):
        self.db = db
        self.range = range
        self.key_value = key_value

    def read(self, list keys not None, uint64_t revision, uint64_t model_from):
        cdef Buffer stored_key
        cdef bytes key
        cdef uint8_t prefix = 1
        cdef list answers = []
        self.db.check_open()
        self.bytes_read = 0
        buffer_init(&stored_key)
        try:
            for key in keys:
                if self.bytes_read >= READ_BYTES_MAX:
                    answers.append(None)
                    continue
                stored_key.size = 0
                if (
                    buffer_append(&stored_key, &prefix, 1) < 0
                    or buffer_append(&stored_key, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)) < 0
                ):
                    raise MemoryError("no memory to read keys")
                answers.append(self.answer(key, stored_key.data, revision, model_from))
        finally:
            buffer_free(&stored_key)
        return answers

    cdef object answer(
        self, bytes key, uint8_t* stored_key, uint64_t revision, uint64_t model_from
    ):
        cdef Slice record
        cdef uint64_t sequence
        cdef KeyHeader header
        cdef const uint8_t* value
        cdef Pinned pin
        cdef int found = look_without_disk(
            self.db, slice_of(stored_key, 1 + PyBytes_GET_SIZE(key)), revision, &record, &sequence,
            &pin
        )
        try:
            if found != FOUND:
                if found == COLD:
                    return None
                return new_tuple(self.range, (revision, (), False, 0))
            value = read_key_header(record, sequence, model_from, &header)
            if value == NULL:
                raise broken_record(sequence)
            self.bytes_read += record.size
            kv = new_tuple(self.key_value, (
                key, header.created, header.changed, header.version,
                PyBytes_FromStringAndSize(
                    <const char*> value, record.data + record.size - value
                ),
                header.lease,
            ))
            return new_tuple(self.range, (revision, (kv,), False, 1))
        finally:
            pinned_release(&pin)
