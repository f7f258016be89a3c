"""Keys and values of a walk as etcd's protobuf carries them, without an object for each."""

from libc.stdint cimport int64_t, uint64_t

from kvstore._engine.database.native cimport Iterator
from kvstore._engine.primitives.native cimport Buffer, Slice
from kvstore._state.native cimport KeyHeader


cdef enum:
    TAG_CREATED = 0x10          # fields 2, 3 and 4, varints
    TAG_CHANGED = 0x18
    TAG_VERSION = 0x20
    TAG_VALUE = 0x2A            # 5, bytes
    TAG_LEASE = 0x30
    KEY_VALUE_HEAD_BYTES_MAX = 80       # of all tags, sizes and numbers of one
    KEY_COST = 128              # of the room: kvstore.state.mvcc.reads' ANSWER_KEY_BYTES


cdef class KeyValues:
    cdef Buffer encoded
    cdef uint64_t model_from
    cdef uint64_t limit
    cdef int64_t room           # bytes
    cdef bint keys_only
    cdef readonly uint64_t count
    cdef readonly bint more
    cdef readonly bint is_full
    # As many as `most` of the keys ahead of it; 1: there may be others. 0: there are none, or none
    # are wanted. Negative: no memory, or the record under the cursor is broken.
    cdef int walk_on(self, Iterator walk, uint64_t most) noexcept nogil
    cdef int add(self, Slice key, Slice record, uint64_t sequence) noexcept nogil
