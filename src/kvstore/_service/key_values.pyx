"""KeyValues: what a Range finds, encoded as it is found."""

cimport cython
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport varint_bytes
from kvstore._engine.version.native cimport user_sequence
from kvstore._state.native cimport read_key_header

from kvstore.errors import CorruptionError, IntegrityCode


cdef enum:
    NO_ROOM_TO_ENCODE = -1
    BROKEN_RECORD = -2


@cython.no_gc_clear
@cython.final
cdef class KeyValues:
    """See the stub."""

    def __cinit__(self):
        buffer_init(&self.encoded)

    def __dealloc__(self):
        buffer_free(&self.encoded)

    def __init__(self, uint64_t model_from, uint64_t limit, int64_t bytes_max, bint keys_only):
        self.model_from = model_from
        self.limit = limit
        self.room = bytes_max
        self.keys_only = keys_only

    def take(self, Iterator walk not None, uint64_t most):
        cdef int result
        cdef uint64_t sequence
        walk.enter()
        if walk.walks_mutable():
            result = self.walk_on(walk, most)
        else:
            with nogil:
                result = self.walk_on(walk, most)
        sequence = user_sequence(&walk.cursor) if result == BROKEN_RECORD else 0
        if walk.cursor.paused:
            walk.rest()
        walk.leave()
        walk.check_status()
        if result == NO_ROOM_TO_ENCODE:
            no_memory()
        if result == BROKEN_RECORD:
            raise CorruptionError(
                f"a key's record at revision {sequence} is broken", code=IntegrityCode.INVALID_RECORD
            )
        return result > 0

    cdef int walk_on(self, Iterator walk, uint64_t most) noexcept nogil:
        cdef Slice key
        cdef int added
        while most:
            most -= 1
            if not walk.step():
                return walk.cursor.paused
            if self.limit and self.count == self.limit:
                self.more = True
                return 0
            key = walk.cursor.key
            added = self.add(
                slice_of(key.data + 1, key.size - 1), walk.cursor.value, user_sequence(&walk.cursor)
            )
            if added < 0:
                return added
            if self.is_full:
                return 0
        return 1

    cdef int add(self, Slice key, Slice record, uint64_t sequence) noexcept nogil:
        cdef KeyHeader header
        cdef Slice value
        cdef size_t size
        cdef uint8_t* at
        cdef const uint8_t* begin = read_key_header(record, sequence, self.model_from, &header)
        if begin == NULL:
            return BROKEN_RECORD
        value = slice_of(begin, record.data + record.size - begin)
        if self.keys_only:
            value.size = 0
        self.room -= KEY_COST + key.size + value.size
        if self.room < 0:
            self.is_full = True
            return 0
        size = 3 + varint_bytes(header.created) + varint_bytes(header.changed)
        size += varint_bytes(header.version)
        if key.size:
            size += 1 + varint_bytes(key.size) + key.size
        if value.size:
            size += 1 + varint_bytes(value.size) + value.size
        if header.lease:
            size += 1 + varint_bytes(<uint64_t> header.lease)
        if buffer_reserve(&self.encoded, KEY_VALUE_HEAD_BYTES_MAX + key.size + value.size) < 0:
            return NO_ROOM_TO_ENCODE
        at = self.encoded.data + self.encoded.size
        at[0] = TAG_2_BYTES
        at = put_varint64(at + 1, size)
        if key.size:
            at[0] = TAG_1_BYTES
            at = put_varint64(at + 1, key.size)
            memcpy(at, key.data, key.size)
            at += key.size
        at[0] = TAG_CREATED
        at = put_varint64(at + 1, header.created)
        at[0] = TAG_CHANGED
        at = put_varint64(at + 1, header.changed)
        at[0] = TAG_VERSION
        at = put_varint64(at + 1, header.version)
        if value.size:
            at[0] = TAG_VALUE
            at = put_varint64(at + 1, value.size)
            memcpy(at, value.data, value.size)
            at += value.size
        if header.lease:
            at[0] = TAG_LEASE
            at = put_varint64(at + 1, <uint64_t> header.lease)
        self.encoded.size = at - self.encoded.data
        self.count += 1
        return 0

    def response(
        self, uint64_t revision, uint64_t count, uint64_t cluster_id, uint64_t member_id,
        uint64_t raft_term,
    ):
        cdef Buffer message, header
        buffer_init(&message)
        buffer_init(&header)
        try:
            add_header(&header, revision, cluster_id, member_id, raft_term)
            if buffer_reserve(&message, self.encoded.size + header.size + 32) < 0:
                no_memory()
            add_part(&message, 1, header.data, header.size)
            add_bytes(&message, self.encoded.data, self.encoded.size)
            add_number(&message, 3, self.more)
            add_number(&message, 4, count)
            return PyBytes_FromStringAndSize(<const char*> message.data, message.size)
        finally:
            buffer_free(&message)
            buffer_free(&header)
