"""Requests of etcd's KV from protobuf to proposals, and answers to protobuf."""

from libc.stdint cimport int64_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    MAX_VARINT64_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    get_varint64,
    put_varint64,
)
from kvstore._state.native cimport (
    OPERATION_DELETE_RANGE,
    OPERATION_PUT,
    OPERATION_RANGE,
    OPERATION_TXN,
    PROPOSAL_ID_BYTES,
    TARGET_LEASE,
    TARGET_VALUE,
    pass_proposal,
)


cdef const uint8_t* read_field(
    const uint8_t* at, const uint8_t* end, uint32_t* tag, uint64_t* number, Slice* run
) noexcept nogil:
    cdef uint64_t wide
    at = get_varint64(at, end, &wide)
    if at == NULL or wide >> 10:
        return NULL             # none of ours has so high a number
    tag[0] = <uint32_t> wide
    at = get_varint64(at, end, number)
    if at == NULL or wide & 7 == FIELD_VARINT:
        return at
    if wide & 7 != FIELD_BYTES or number[0] > <uint64_t> (end - at):
        return NULL
    run[0] = slice_of(at, number[0])
    return at + number[0]


cdef int no_memory() except -1:
    raise MemoryError("no memory for a message")


cdef inline int add_varint(Buffer* into, uint64_t number) except -1:
    if buffer_reserve(into, MAX_VARINT64_BYTES) < 0:
        no_memory()
    into.size = put_varint64(into.data + into.size, number) - into.data
    return 0


cdef inline int add_bytes(Buffer* into, const void* data, size_t size) except -1:
    if buffer_append(into, data, size) < 0:
        no_memory()
    return 0


# --- requests to proposals ---------------------------------------------------------------------

cdef int add_signed(Buffer* into, uint64_t number) except -1:
    cdef int64_t signed = <int64_t> number
    return add_varint(into, ~(number << 1) if signed < 0 else number << 1)


cdef int add_run(Buffer* into, Slice run) except -1:
    add_varint(into, run.size)
    return add_bytes(into, run.data, run.size)


cdef bint add_put(Buffer* into, Slice message) except -1:
    """A PutRequest as an operation. False: it says something else, or says it twice."""
    cdef const uint8_t* at = message.data
    cdef const uint8_t* end = at + message.size
    cdef Slice key = slice_of(NULL, 0)
    cdef Slice value = slice_of(NULL, 0)
    cdef Slice run
    cdef uint64_t number
    cdef uint64_t lease = 0
    cdef uint32_t tag
    cdef uint32_t before = 0
    while at != end:
        at = read_field(at, end, &tag, &number, &run)
        if at == NULL or tag <= before:
            return False
        before = tag
        if tag == TAG_1_BYTES:
            key = run
        elif tag == TAG_2_BYTES:
            value = run
        elif tag == TAG_3_VARINT:
            lease = number
        else:
            return False
    add_varint(into, OPERATION_PUT)
    add_run(into, key)
    add_run(into, value)
    add_signed(into, lease)
    add_varint(into, 0)
    return True


cdef bint add_key(Buffer* into, int kind, Slice message) except -1:
    """A RangeRequest or DeleteRangeRequest of one key, that says no more, as an operation."""
    cdef const uint8_t* end = message.data + message.size
    cdef Slice key
    cdef uint64_t number
    cdef uint32_t tag
    cdef int rest = 2
    if read_field(message.data, end, &tag, &number, &key) != end or tag != TAG_1_BYTES:
        return False
    add_varint(into, kind)
    add_run(into, key)
    if kind == OPERATION_RANGE:
        rest = 10               # the end, eight numbers and the booleans
    for _ in range(rest):
        add_varint(into, 0)
    return True


cdef bint add_operation(Buffer* into, Slice message, bint* changes) except -1:
    cdef const uint8_t* end = message.data + message.size
    cdef Slice request
    cdef uint64_t number
    cdef uint32_t tag
    if read_field(message.data, end, &tag, &number, &request) != end:
        return False
    if tag == TAG_1_BYTES:
        return add_key(into, OPERATION_RANGE, request)
    changes[0] = True
    if tag == TAG_2_BYTES:
        return add_put(into, request)
    return tag == TAG_3_BYTES and add_key(into, OPERATION_DELETE_RANGE, request)


cdef bint add_compare(Buffer* into, Slice message) except -1:
    cdef const uint8_t* at = message.data
    cdef const uint8_t* end = at + message.size
    cdef Slice key = slice_of(NULL, 0)
    cdef Slice operand = slice_of(NULL, 0)
    cdef Slice run
    cdef uint64_t number
    cdef uint64_t result = 0
    cdef uint64_t target = 0
    cdef uint64_t operand_number = 0
    cdef uint32_t tag
    cdef uint32_t before = 0
    cdef uint32_t said = 0      # the number of the operand's field
    while at != end:
        at = read_field(at, end, &tag, &number, &run)
        if at == NULL or tag <= before:
            return False
        before = tag
        if tag == TAG_1_VARINT:
            result = number
        elif tag == TAG_2_VARINT:
            target = number
        elif tag == TAG_3_BYTES:
            key = run
        elif said or not OPERANDS_FROM <= tag >> 3 <= OPERANDS_FROM + TARGET_LEASE:
            return False
        else:
            said = tag >> 3
            if (tag & 7 == FIELD_BYTES) != (said == OPERANDS_FROM + TARGET_VALUE):
                return False
            operand = run
            operand_number = number
    add_run(into, key)
    add_signed(into, target)
    add_signed(into, result)
    # An operand of another target than the one that is said counts as none.
    if said != OPERANDS_FROM + target:
        operand = slice_of(NULL, 0)
        operand_number = 0
    if target == TARGET_VALUE:
        add_run(into, operand)
    else:
        add_signed(into, operand_number)
    add_varint(into, 0)
    return True


cdef bint add_list(Buffer* into, Slice message, uint32_t wanted, bint* changes) except -1:
    """The members of one of a TxnRequest's lists, which may stand anywhere in it."""
    cdef const uint8_t* at = message.data
    cdef const uint8_t* end = at + message.size
    cdef Slice run
    cdef uint64_t number
    cdef uint32_t tag
    cdef uint32_t count = 0
    while at != end:
        at = read_field(at, end, &tag, &number, &run)
        if at == NULL or (tag != TAG_1_BYTES and tag != TAG_2_BYTES and tag != TAG_3_BYTES):
            return False
        count += tag == wanted
    add_varint(into, count)
    at = message.data
    while at != end:
        at = read_field(at, end, &tag, &number, &run)
        if tag != wanted:
            continue
        if wanted == TAG_1_BYTES:
            if not add_compare(into, run):
                return False
        elif not add_operation(into, run, changes):
            return False
    return True


cdef bint add_txn(Buffer* into, Slice message) except -1:
    """False also where it changes nothing."""
    cdef bint changes = False
    add_varint(into, OPERATION_TXN)
    return (
        add_list(into, message, TAG_1_BYTES, &changes)
        and add_list(into, message, TAG_2_BYTES, &changes)
        and add_list(into, message, TAG_3_BYTES, &changes)
        and changes
    )


cdef bytes proposal_of(int kind, bytes message, bytes id):
    """None for what is not for the native form to evaluate, or may be refused by its looks."""
    cdef Buffer encoded
    cdef Slice given = bytes_slice(message)
    cdef uint32_t keys = 0
    cdef bint is_taken
    if len(id) != PROPOSAL_ID_BYTES:
        raise ValueError("an id of 16 bytes")
    buffer_init(&encoded)
    try:
        add_bytes(&encoded, PyBytes_AS_STRING(id), PROPOSAL_ID_BYTES)
        add_varint(&encoded, 0)
        if kind == OPERATION_PUT:
            is_taken = add_put(&encoded, given)
        else:
            is_taken = add_txn(&encoded, given)
        if is_taken and pass_proposal(
            encoded.data, encoded.data + encoded.size, &keys
        ) == encoded.data + encoded.size:
            return PyBytes_FromStringAndSize(<const char*> encoded.data, encoded.size)
        return None
    finally:
        buffer_free(&encoded)


def proposal_of_put(bytes message not None, bytes id not None):
    return proposal_of(OPERATION_PUT, message, id)


def proposal_of_txn(bytes message not None, bytes id not None):
    return proposal_of(OPERATION_TXN, message, id)


def key_of_range(bytes message not None):
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(message)
    cdef const uint8_t* end = data + PyBytes_GET_SIZE(message)
    cdef Slice key
    cdef uint64_t number
    cdef uint32_t tag
    if (
        read_field(data, end, &tag, &number, &key) != end or tag != TAG_1_BYTES or key.size == 0
    ):
        return None
    return PyBytes_FromStringAndSize(<const char*> key.data, key.size)


# --- answers -----------------------------------------------------------------------------------

cdef int add_number(Buffer* into, uint32_t field, uint64_t number) except -1:
    if number:
        add_varint(into, field << 3 | FIELD_VARINT)
        add_varint(into, number)
    return 0


cdef int add_part(Buffer* into, uint32_t field, const void* data, size_t size) except -1:
    add_varint(into, field << 3 | FIELD_BYTES)
    add_varint(into, size)
    return add_bytes(into, data, size)


cdef int add_key_value(Buffer* into, uint32_t field, object answered) except -1:
    cdef tuple kv = <tuple> answered    # of a type of its own
    cdef bytes key = kv[0]
    cdef bytes value = kv[4]
    cdef int64_t lease = kv[5]
    cdef Buffer head, tail
    buffer_init(&head)
    buffer_init(&tail)
    try:
        if PyBytes_GET_SIZE(key):
            add_part(&head, 1, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        add_number(&head, 2, kv[1])
        add_number(&head, 3, kv[2])
        add_number(&head, 4, kv[3])
        if PyBytes_GET_SIZE(value):
            add_varint(&head, 5 << 3 | FIELD_BYTES)
            add_varint(&head, PyBytes_GET_SIZE(value))
        add_number(&tail, 6, <uint64_t> lease)
        add_varint(into, field << 3 | FIELD_BYTES)
        add_varint(into, head.size + PyBytes_GET_SIZE(value) + tail.size)
        add_bytes(into, head.data, head.size)
        add_bytes(into, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        add_bytes(into, tail.data, tail.size)
    finally:
        buffer_free(&head)
        buffer_free(&tail)
    return 0


cdef int add_header(
    Buffer* into, uint64_t revision, uint64_t cluster_id, uint64_t member_id, uint64_t raft_term
) except -1:
    add_number(into, 1, cluster_id)
    add_number(into, 2, member_id)
    add_number(into, 3, revision)
    return add_number(into, 4, raft_term)


cdef class Encoder:
    """See the stub."""

    def __init__(self, range, put, delete_range, txn):
        self.range = range
        self.put = put
        self.delete_range = delete_range
        self.txn = txn

    def response(
        self, answer not None, uint64_t cluster_id, uint64_t member_id, uint64_t raft_term
    ):
        cdef Buffer header, message
        if not self.known(answer):
            return None
        buffer_init(&header)
        buffer_init(&message)
        try:
            add_header(&header, (<tuple> answer)[0], cluster_id, member_id, raft_term)
            self.add(&message, &header, answer)
            return PyBytes_FromStringAndSize(<const char*> message.data, message.size)
        finally:
            buffer_free(&header)
            buffer_free(&message)

    cdef bint known(self, object answer) except -1:
        kind = type(answer)
        if kind is self.txn:
            for each in (<tuple> answer)[2]:
                if not self.known(each):
                    return False
            return True
        return kind is self.range or kind is self.put or kind is self.delete_range

    cdef int add(self, Buffer* into, Buffer* header, object answer) except -1:
        cdef tuple fields = <tuple> answer
        kind = type(answer)
        add_part(into, 1, header.data, header.size)
        if kind is self.range:
            for kv in <tuple> fields[1]:
                add_key_value(into, 2, kv)
            add_number(into, 3, 1 if fields[2] else 0)
            add_number(into, 4, fields[3])
        elif kind is self.put:
            if fields[1] is not None:
                add_key_value(into, 2, fields[1])
        elif kind is self.delete_range:
            add_number(into, 2, fields[1])
            for kv in <tuple> fields[2]:
                add_key_value(into, 3, kv)
        else:
            add_number(into, 2, 1 if fields[1] else 0)
            for each in <tuple> fields[2]:
                self.add_nested(into, each)
        return 0

    cdef int add_nested(self, Buffer* into, object answer) except -1:
        """A ResponseOp. Its header has the revision alone, a Txn's nothing."""
        cdef Buffer header, response, operation
        cdef uint32_t field = 4
        kind = type(answer)
        buffer_init(&header)
        buffer_init(&response)
        buffer_init(&operation)
        try:
            if kind is not self.txn:
                field = 1 if kind is self.range else 2 if kind is self.put else 3
                add_number(&header, 3, (<tuple> answer)[0])
            self.add(&response, &header, answer)
            add_part(&operation, field, response.data, response.size)
            add_part(into, 3, operation.data, operation.size)
        finally:
            buffer_free(&header)
            buffer_free(&response)
            buffer_free(&operation)
        return 0
