"""WriteBatch: operations gathered as the bytes that the log will keep."""

from cpython.number cimport PyIndex_Check, PyNumber_Index
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Buffer,
    BytesView,
    KIND_DELETE,
    KIND_PUT,
    KIND_RANGE_DELETE,
    MAX_VARINT64_BYTES,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    get_fixed32,
    get_varint32,
    get_varint64,
    max_sequence,
    put_fixed32,
    put_varint64,
    slice_compare,
    slice_of,
    view_close,
    view_open,
)
from kvstore.errors import ClosedError, InvalidArgumentError


cdef int encode_operation(
    Buffer* into, int kind, bint numbered, uint64_t sequence, Slice prefix, Slice key, Slice value
) noexcept nogil:
    cdef uint8_t* at
    cdef uint8_t* start
    if buffer_reserve(
        into, 1 + 3 * MAX_VARINT64_BYTES + prefix.size + key.size + value.size
    ) < 0:
        return -1
    start = at = into.data + into.size
    at[0] = <uint8_t> (kind | (OWN_SEQUENCE if numbered else 0))
    at += 1
    if numbered:
        at = put_varint64(at, sequence)
    at = put_varint64(at, prefix.size + key.size)
    if prefix.size:
        memcpy(at, prefix.data, prefix.size)
        at += prefix.size
    if key.size:
        memcpy(at, key.data, key.size)
        at += key.size
    if kind != KIND_DELETE:
        at = put_varint64(at, value.size)
        if value.size:
            memcpy(at, value.data, value.size)
            at += value.size
    into.size += at - start
    return 0


cdef inline const uint8_t* decode_run(const uint8_t* at, const uint8_t* end, Slice* run) noexcept nogil:
    cdef uint32_t size = 0
    at = get_varint32(at, end, &size)
    if at == NULL or size > <size_t> (end - at):
        return NULL
    run[0] = slice_of(at, size)
    return at + size


cdef const uint8_t* decode_operation(
    const uint8_t* at, const uint8_t* end, Operation* operation
) noexcept nogil:
    if at >= end:
        return NULL
    operation.numbered = at[0] & OWN_SEQUENCE
    operation.kind = at[0] & 0x7F
    operation.sequence = 0
    at += 1
    if operation.kind > KIND_RANGE_DELETE:
        return NULL
    if operation.numbered:
        at = get_varint64(at, end, &operation.sequence)
        if at == NULL or operation.sequence > max_sequence():
            return NULL
    at = decode_run(at, end, &operation.key)
    if at == NULL:
        return NULL
    operation.value = slice_of(NULL, 0)
    if operation.kind == KIND_DELETE:
        return at
    at = decode_run(at, end, &operation.value)
    if operation.kind == KIND_RANGE_DELETE and at != NULL and (
        slice_compare(operation.key, operation.value) >= 0
    ):
        return NULL
    return at


cdef int check_batch(const uint8_t* data, size_t size, uint32_t* count) noexcept nogil:
    cdef Operation operation
    cdef const uint8_t* at = data + BATCH_HEADER_BYTES
    cdef const uint8_t* end = data + size
    cdef uint32_t i
    if size < BATCH_HEADER_BYTES:
        return -1
    count[0] = get_fixed32(data)
    for i in range(count[0]):
        at = decode_operation(at, end, &operation)
        if at == NULL:
            return -1
    return 0 if at == end else -1


cdef int check_sizes(Slice key, Slice value) except -1:
    if key.size > MAX_KEY_BYTES:
        raise InvalidArgumentError(f"a key of {key.size} bytes is over {MAX_KEY_BYTES}")
    if value.size > MAX_VALUE_BYTES:
        raise InvalidArgumentError(f"a value of {value.size} bytes is over {MAX_VALUE_BYTES}")
    return 0


cdef int check_ends_of_range(Slice start, Slice stop) except -1:
    if start.size > MAX_KEY_BYTES or stop.size > MAX_KEY_BYTES + 1:
        raise InvalidArgumentError(
            f"an end of {max(start.size, stop.size)} bytes is over {MAX_KEY_BYTES}"
        )
    return 0


cdef object as_sequence(object given):
    """A number as it was meant: True is no sequence, nor is 3.5, which would be taken for 3."""
    if type(given) is int:
        return given
    if isinstance(given, bool) or not PyIndex_Check(given):
        raise TypeError(f"a sequence is an int, not {type(given).__name__}")
    return PyNumber_Index(given)


cdef void range_of(Operation* operation, uint64_t sequence, RangeTombstone* tombstone) noexcept nogil:
    tombstone.start = operation.key
    tombstone.stop = operation.value
    tombstone.sequence = sequence
    tombstone.source = 0


cdef class ClosedFlag:
    pass


cdef class Expectation:
    pass


cdef Expectation copied(Expectation expected):
    """Without what was read for it."""
    cdef Expectation copy = Expectation()
    copy.key = expected.key
    copy.by_sequence = expected.by_sequence
    copy.sequence = expected.sequence
    copy.value = expected.value
    return copy


cdef class WriteBatch:
    def __cinit__(self, *_args, **_named):
        buffer_init(&self.encoded)
        self.prefix = b""

    def __init__(self):
        self.clear()

    def __dealloc__(self):
        buffer_free(&self.encoded)

    def __reduce__(self):
        raise TypeError("a WriteBatch can't be copied or pickled: append() it to another one")

    cdef Slice payload(self) noexcept:
        put_fixed32(self.encoded.data, self.count)
        return slice_of(self.encoded.data, self.encoded.size)

    cdef int encode(
        self, int kind, object sequence, Slice prefix, Slice key, Slice value
    ) except -1:
        cdef uint64_t number = 0
        if self.closed_flag is not None and self.closed_flag.closed:
            raise ClosedError("the database that the batch is for is closed")
        if sequence is not None:
            sequence = as_sequence(sequence)
            if not 0 <= sequence <= max_sequence():
                raise InvalidArgumentError(f"sequence {sequence} is outside [0, 2**56)")
            number = sequence
        if self.encoded.size + prefix.size + key.size + value.size > MAX_BATCH_BYTES:
            raise InvalidArgumentError(f"a batch over {MAX_BATCH_BYTES} bytes")
        if encode_operation(
            &self.encoded, kind, sequence is not None, number, prefix, key, value
        ) < 0:
            raise MemoryError("no memory for a batch")
        self.count += 1
        self.numbered = self.numbered or sequence is not None
        return 0

    cdef int add(self, int kind, object key, object value, object sequence) except -1:
        cdef BytesView key_view
        cdef BytesView value_view
        cdef Slice prefix = slice_of(<const char*> self.prefix, len(self.prefix))
        view_open(key, &key_view, "key")
        value_view.held = False
        try:
            view_open(value, &value_view, "value")
            check_sizes(slice_of(NULL, prefix.size + key_view.slice.size), value_view.slice)
            self.encode(kind, sequence, prefix, key_view.slice, value_view.slice)
        finally:
            view_close(&key_view)
            view_close(&value_view)
        return 0

    def put(self, key, value, *, sequence=None):
        self.add(KIND_PUT, key, value, sequence)

    def delete(self, key, *, sequence=None):
        self.add(KIND_DELETE, key, b"", sequence)

    def delete_range(self, start, stop, *, sequence=None):
        cdef bytes low = self.prefix + (b"" if start is None else as_bytes(start, "start"))
        cdef bytes high = (
            after_prefix(self.prefix) if stop is None else self.prefix + as_bytes(stop, "stop")
        )
        cdef Slice start_slice = slice_of(<const char*> low, len(low))
        cdef Slice stop_slice
        if high is None:
            raise InvalidArgumentError("a range in a batch needs a stop; db.delete_range() doesn't")
        stop_slice = slice_of(<const char*> high, len(high))
        check_ends_of_range(start_slice, stop_slice)
        if slice_compare(start_slice, stop_slice) >= 0:
            return
        self.encode(KIND_RANGE_DELETE, sequence, slice_of(NULL, 0), start_slice, stop_slice)
        self.has_ranges = True

    def expect(self, key, *value, sequence=None):
        cdef Expectation expected = Expectation()
        cdef uint64_t size
        if len(value) + (sequence is not None) != 1:
            raise TypeError("expect() takes a key and either a value, which may be None, or sequence=")
        if self.closed_flag is not None and self.closed_flag.closed:
            raise ClosedError("the database that the batch is for is closed")
        expected.key = self.prefix + as_bytes(key, "key")
        if sequence is not None:
            sequence = as_sequence(sequence)
            if not 0 <= sequence <= max_sequence():
                raise InvalidArgumentError(f"sequence {sequence} is outside [0, 2**56)")
            expected.by_sequence = True
            expected.sequence = sequence
        elif value[0] is not None:
            expected.value = as_bytes(value[0], "value")
        size = len(expected.key) + (0 if expected.value is None else len(expected.value))
        check_sizes(slice_of(NULL, len(expected.key)), slice_of(NULL, size - len(expected.key)))
        self.expect_all([expected], size + EXPECTATION_BYTES)

    cdef int expect_all(self, list expectations, uint64_t size) except -1:
        if self.expected_bytes + size > MAX_BATCH_BYTES:
            raise InvalidArgumentError(f"a batch that expects over {MAX_BATCH_BYTES} bytes")
        # A list of its own: another batch's may be appended to both.
        if self.expectations is None:
            self.expectations = []
        self.expectations += expectations
        self.expected_bytes += size
        return 0

    def clear(self):
        self.expectations = None
        self.expected_bytes = 0
        self.encoded.size = 0
        self.count = 0
        self.numbered = False
        self.has_ranges = False
        if buffer_reserve(&self.encoded, BATCH_HEADER_BYTES) < 0:
            raise MemoryError("no memory for a batch")
        self.encoded.size = BATCH_HEADER_BYTES

    def append(self, WriteBatch source not None):
        cdef size_t size = source.encoded.size - BATCH_HEADER_BYTES
        if self.encoded.size + size > MAX_BATCH_BYTES:
            raise InvalidArgumentError(f"a batch over {MAX_BATCH_BYTES} bytes")
        if buffer_reserve(&self.encoded, size) < 0:
            raise MemoryError("no memory for a batch")
        if source.expectations is not None:
            self.expect_all([copied(one) for one in source.expectations], source.expected_bytes)
        buffer_append(&self.encoded, source.encoded.data + BATCH_HEADER_BYTES, size)
        self.count += source.count
        self.numbered = self.numbered or source.numbered
        self.has_ranges = self.has_ranges or source.has_ranges

    def approximate_size(self):
        return self.encoded.size

    def __len__(self):
        return self.count

    def write(self):
        if self.db is None:
            raise InvalidArgumentError("this batch came from no database: use db.write(batch)")
        self.db.write(self, sync=self.sync)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.transaction and kind is not None:
            self.clear()
            return
        self.write()
