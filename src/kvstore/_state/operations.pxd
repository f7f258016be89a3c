"""Entries of the model's operations: kvstore.state.mvcc has the readable form, which takes whatever
this one leaves.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.database.native cimport Database, WriteBatch
from kvstore._engine.primitives.native cimport Buffer, Slice


cdef enum:
    OPERATION_RANGE = 1
    OPERATION_PUT = 2
    OPERATION_DELETE_RANGE = 3
    OPERATION_TXN = 4
    PROPOSAL_ID_BYTES = 16
    PROPOSAL_BYTES_MIN = 18
    TXN_LIST_MAX = 128              # as kvstore.state.mvcc.checks has it
    PUT_KEY_BYTES_MAX = (1 << 20) - 16
    TARGET_VERSION = 0
    TARGET_CREATE = 1
    TARGET_MOD = 2
    TARGET_VALUE = 3
    TARGET_LEASE = 4
    RESULT_EQUAL = 0
    RESULT_GREATER = 1
    RESULT_LESS = 2
    RESULT_NOT_EQUAL = 3
    # What a slice asks for at most, so that no bound of the readable form's is near.
    KEYS_OF_SLICE_MAX = 1024
    BYTES_OF_SLICE_MAX = 4 << 20
    READ_OF_SLICE_MAX = 16 << 20
    # What a KeyReader has read at one time, and one value more.
    READ_BYTES_MAX = 1 << 20
    READ_COST = 256                 # of a key, as kvstore.state.mvcc.metering has it


cdef struct KeyOperation:
    # A Put, Range or DeleteRange of one key; its bytes are borrowed from the entry.
    uint8_t kind
    Slice key
    Slice value
    int64_t lease


cdef struct KeyCompare:
    Slice key
    int target
    int result
    Slice operand               # of a value
    int64_t number              # of all else


# Each returns the byte after what it says, NULL for all that the readable form is to look at.
cdef const uint8_t* read_operations_head(
    const uint8_t* data, size_t size, uint64_t* time_ms, uint32_t* count
) noexcept nogil
cdef const uint8_t* read_key_operation(
    const uint8_t* at, const uint8_t* end, KeyOperation* operation
) noexcept nogil
cdef const uint8_t* read_key_compare(
    const uint8_t* at, const uint8_t* end, KeyCompare* compare
) noexcept nogil
# Adds to `keys` how often a key is named.
cdef const uint8_t* pass_proposal(
    const uint8_t* at, const uint8_t* end, uint32_t* keys
) noexcept nogil


cdef bint passes(bytes data, uint32_t* keys)


cdef class Evaluation(Prepared):
    """One slice: the keys that it names, and what it writes."""
    cdef Database db
    cdef Evaluator types
    cdef dict leases
    cdef WriteBatch batch
    cdef uint64_t revision      # before the operation under way
    cdef uint32_t events        # of it
    cdef uint64_t read_bytes
    cdef Slice* values          # owned; of each key, NULL data where the engine has it
    cdef list kept              # bytes that values borrow from
    cdef size_t kept_bytes      # READ_OF_SLICE_MAX at most
    cdef Buffer record, stored_key, outcome, nested
    cdef int begin(self, uint32_t keys) except -1
    cdef Slice join(self, const uint8_t* head, size_t size, Slice rest) except *
    # Its place among the keys; -1 where only the disk knows it.
    cdef int64_t key_of(self, Slice key) except -2
    # Its value in `value`. False: it isn't to be had, or too much is kept by now.
    cdef bint value_of(self, int64_t place, Slice* value) except -1
    # 1 or 0; -1 where that isn't known.
    cdef int holds(self, KeyCompare* compare) except -2
    cdef object do_proposal(self, const uint8_t** at, const uint8_t* end)
    cdef object do_txn(self, const uint8_t** at, const uint8_t* end)
    cdef object do_operation(self, KeyOperation* operation)
    cdef object put(self, KeyOperation* operation)
    cdef object delete(self, KeyOperation* operation)
    cdef object range(self, KeyOperation* operation)
    cdef int add_event(self, bint is_delete, Slice key, uint64_t previous) except -1
    cdef int attach(self, Slice key, int64_t lease_was, int64_t lease) except -1
    cdef int note(self, Buffer* outcome, uint64_t revision) except -1


cdef class KeyReader:
    cdef Database db
    cdef object range, key_value
    cdef size_t bytes_read  # of the keys that are being read
    cdef object answer(self, bytes key, uint8_t* stored_key, uint64_t revision, uint64_t model_from)


cdef class Evaluator:
    """The types of the answers."""
    cdef Database db
    cdef object applied, put, delete_range, range, txn, key_value
