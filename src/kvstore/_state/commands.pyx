"""Commands in their bytes: whoever reads them in place trusts none of what they say of themselves."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Slice,
    get_fixed32,
    get_fixed64,
    put_fixed32,
    put_fixed64,
    slice_of,
)

cdef enum:
    FINGERPRINT_BYTES = 8

cdef uint64_t TIME_MAX_MS = (<uint64_t> 1 << 48) - 1
cdef uint64_t SEQUENCE_MAX = (<uint64_t> 1 << 63) - 1


cdef const uint8_t* read_entry_head(
    const uint8_t* data, size_t size, uint64_t* time_ms, uint32_t* count, uint64_t* guard
) noexcept nogil:
    cdef size_t head = ENTRY_HEAD_BYTES
    guard[0] = 0
    if size < head or data[0] != ENTRY_VERSION and data[0] != GUARDED_VERSION:
        return NULL
    if data[0] == GUARDED_VERSION:
        head = ENTRY_HEAD_BYTES_MAX
        if size < head:
            return NULL
        guard[0] = get_fixed64(data + ENTRY_HEAD_BYTES)
        if guard[0] == 0:
            return NULL
    time_ms[0] = get_fixed64(data + 1)
    count[0] = get_fixed32(data + 9)
    if time_ms[0] > TIME_MAX_MS or count[0] > (size - head) // COMMAND_BYTES:
        return NULL
    return data + head


cdef const uint8_t* read_command(
    const uint8_t* at, const uint8_t* end, Command* command
) noexcept nogil:
    cdef uint16_t key_bytes
    cdef uint32_t value_bytes
    if end - at < COMMAND_BYTES:
        return NULL
    command.kind = at[0]
    command.form = at[1]
    command.request = at + 2
    command.fingerprint = get_fixed64(at + 18)
    memcpy(&key_bytes, at + 26, 2)
    value_bytes = get_fixed32(at + 28)
    at += COMMAND_BYTES
    command.sequence = command.floor = command.since = 0
    if command.form == FORM_SESSION:
        if end - at < 16:
            return NULL
        command.sequence = get_fixed64(at)
        command.floor = get_fixed64(at + 8)
        # No sum of the two overflows.
        if (
            command.floor == 0 or command.floor > command.sequence
            or command.sequence - command.floor >= SEQUENCES_OF_WINDOW
            or command.sequence > SEQUENCE_MAX
        ):
            return NULL
        at += 16
    elif command.form == FORM_SENT_BEFORE:
        if end - at < 8:
            return NULL
        command.since = get_fixed64(at)
        at += 8
    elif command.form != FORM_PLAIN:
        return NULL
    if command.kind == COMMAND_PUT:
        if value_bytes > COMMAND_VALUE_BYTES_MAX:
            return NULL
    elif value_bytes:
        return NULL
    if command.kind == COMMAND_OPEN:
        if command.form != FORM_PLAIN or key_bytes or command.fingerprint:
            return NULL
    elif command.kind > COMMAND_DELETE or command.kind == 0 or (
        key_bytes == 0 or key_bytes > COMMAND_KEY_BYTES_MAX
    ):
        return NULL
    if <size_t> (end - at) < <size_t> key_bytes + value_bytes:
        return NULL
    command.key = slice_of(at, key_bytes)
    command.value = slice_of(at + key_bytes, value_bytes)
    return at + key_bytes + value_bytes


cdef uint8_t* write_entry_head(
    uint8_t* at, uint64_t time_ms, uint32_t count, uint64_t guard
) noexcept nogil:
    at[0] = GUARDED_VERSION if guard else ENTRY_VERSION
    put_fixed64(at + 1, min(time_ms, TIME_MAX_MS))
    put_fixed32(at + 9, count)
    if guard == 0:
        return at + ENTRY_HEAD_BYTES
    put_fixed64(at + ENTRY_HEAD_BYTES, guard)
    return at + ENTRY_HEAD_BYTES_MAX


cdef uint8_t* write_command(uint8_t* at, const Command* command) noexcept nogil:
    cdef uint16_t key_bytes = <uint16_t> command.key.size
    at[0] = command.kind
    at[1] = command.form
    memcpy(at + 2, command.request, REQUEST_BYTES)
    put_fixed64(at + 18, command.fingerprint)
    memcpy(at + 26, &key_bytes, 2)
    put_fixed32(at + 28, <uint32_t> command.value.size)
    at += COMMAND_BYTES
    if command.form == FORM_SESSION:
        put_fixed64(at, command.sequence)
        put_fixed64(at + 8, command.floor)
        at += 16
    elif command.form == FORM_SENT_BEFORE:
        put_fixed64(at, command.since)
        at += 8
    if command.key.size:
        memcpy(at, command.key.data, command.key.size)
        at += command.key.size
    if command.value.size:
        memcpy(at, command.value.data, command.value.size)
        at += command.value.size
    return at


cdef void digest_request(Slice request_id, uint8_t* digest) noexcept nogil:
    cdef Blake2b state
    blake2b_begin(&state, REQUEST_BYTES)
    blake2b_update(&state, request_id.data, request_id.size)
    blake2b_end(&state, digest)


cdef uint64_t fingerprint_of(int kind, Slice key, Slice value) noexcept nogil:
    cdef Blake2b state
    cdef uint8_t head[24]
    cdef uint8_t digest[FINGERPRINT_BYTES]
    cdef int size = 1
    head[0] = <uint8_t> kind
    if kind == COMMAND_PUT:
        # The key's size keeps (key, value) and (key + part of value, rest) apart.
        size += snprintf(<char*> head + 1, 23, "%zu:", key.size)
    blake2b_begin(&state, FINGERPRINT_BYTES)
    blake2b_update(&state, head, size)
    blake2b_update(&state, key.data, key.size)
    if kind == COMMAND_PUT:
        blake2b_update(&state, value.data, value.size)
    blake2b_end(&state, digest)
    return get_fixed64(digest)


cdef uint64_t word_of_fingerprint(uint64_t fingerprint) noexcept nogil:
    fingerprint &= ~<uint64_t> 1
    return fingerprint if fingerprint else 2


def is_whole(bytes data not None):
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef uint64_t time_ms, guard
    cdef uint32_t count
    cdef Command command
    at = <const uint8_t*> PyBytes_AS_STRING(data)
    end = at + PyBytes_GET_SIZE(data)
    at = read_entry_head(at, end - at, &time_ms, &count, &guard)
    while at != NULL and count:
        at = read_command(at, end, &command)
        count -= 1
    return at == end


def digest_of_request(bytes request_id not None):
    cdef uint8_t digest[REQUEST_BYTES]
    digest_request(
        slice_of(PyBytes_AS_STRING(request_id), PyBytes_GET_SIZE(request_id)), digest
    )
    return (<char*> digest)[:REQUEST_BYTES]


def fingerprint_bytes(int kind, bytes key not None, bytes value not None):
    cdef uint64_t fingerprint = fingerprint_of(
        kind,
        slice_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)),
        slice_of(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)),
    )
    return (<char*> &fingerprint)[:FINGERPRINT_BYTES]
