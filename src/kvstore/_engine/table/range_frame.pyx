"""Reading and writing the meta frame `range-deletes`; the bytes stand in range_frame.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.memtable.native cimport RangeRun, RangeTombstone, range_run_new, range_run_release
from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    MAX_VARINT64_BYTES,
    Buffer,
    Slice,
    Status,
    buffer_reserve,
    get_fixed32,
    get_varint32,
    get_varint64,
    internal_user_key,
    kv_calloc,
    kv_free,
    max_sequence,
    put_fixed32,
    put_varint64,
    slice_compare,
    slice_of,
    status_no_memory,
    status_set,
)


cdef int range_frame_begin(Buffer* into) noexcept nogil:
    into.size = 0
    if buffer_reserve(into, RANGE_FRAME_HEADER_BYTES) < 0:
        return -1
    into.size = RANGE_FRAME_HEADER_BYTES
    return 0


cdef int range_frame_add(Buffer* into, Slice start, Slice stop, uint64_t sequence) noexcept nogil:
    cdef uint8_t* at
    if buffer_reserve(into, 3 * MAX_VARINT64_BYTES + start.size + stop.size) < 0:
        return -1
    at = put_varint64(into.data + into.size, start.size)
    if start.size:
        memcpy(at, start.data, start.size)
    at = put_varint64(at + start.size, stop.size)
    memcpy(at, stop.data, stop.size)
    at = put_varint64(at + stop.size, sequence)
    into.size = <size_t> (at - into.data)
    return 0


cdef void range_frame_finish(Buffer* frame, uint64_t count) noexcept nogil:
    put_fixed32(frame.data, <uint32_t> count)


cdef inline const uint8_t* range_frame_key(
    const uint8_t* at, const uint8_t* end, Slice* key
) noexcept nogil:
    cdef uint32_t size = 0
    at = get_varint32(at, end, &size)
    if at == NULL or size > <size_t> (end - at):
        return NULL
    key[0] = slice_of(at, size)
    return at + size


cdef bint range_frame_read(
    const uint8_t* at, const uint8_t* end, RangeTombstone* into, uint32_t count
) noexcept nogil:
    """False: these aren't so many range tombstones in their order."""
    cdef uint32_t i
    for i in range(count):
        at = range_frame_key(at, end, &into[i].start)
        if at != NULL:
            at = range_frame_key(at, end, &into[i].stop)
        if at != NULL:
            at = get_varint64(at, end, &into[i].sequence)
        if at == NULL or into[i].sequence == 0 or into[i].sequence > max_sequence():
            return False
        if slice_compare(into[i].start, into[i].stop) >= 0 or (
            i and slice_compare(into[i - 1].start, into[i].start) > 0
        ):
            return False
    return at == end


cdef bint is_within(const RangeRun* run, const Properties* properties) noexcept nogil:
    """Whether the tombstones keep to the bounds that the properties tell."""
    return (
        run.lowest >= properties.min_sequence
        and run.highest <= properties.max_sequence
        and slice_compare(internal_user_key(properties.smallest), run.edges[0]) <= 0
        and slice_compare(run.edges[2 * run.count - 1], internal_user_key(properties.largest)) <= 0
    )


cdef RangeRun* range_frame_open(
    const uint8_t* data, size_t size, const Properties* properties, uint64_t offset, Status* status
) noexcept nogil:
    cdef uint64_t count = properties.range_deletes
    cdef RangeTombstone* tombstones
    cdef RangeRun* run = NULL
    # No range takes less than four bytes: nothing is allocated that the frame doesn't account for.
    if size < RANGE_FRAME_HEADER_BYTES or count == 0 or count != get_fixed32(data) or count > size // 4:
        status_set(status, INVALID_RECORD, b"number of range tombstones", <int64_t> offset)
        return NULL
    tombstones = <RangeTombstone*> kv_calloc(count, sizeof(RangeTombstone))
    if tombstones == NULL:
        status_no_memory(status, b"memory for range tombstones")
        return NULL
    if not range_frame_read(
        data + RANGE_FRAME_HEADER_BYTES, data + size, tombstones, <uint32_t> count
    ):
        status_set(status, INVALID_RECORD, b"range tombstones", <int64_t> offset)
        kv_free(tombstones)
        return NULL
    run = range_run_new(tombstones, count)
    kv_free(tombstones)
    if run == NULL:
        status_no_memory(status, b"memory for range tombstones")
    elif not is_within(run, properties):
        status_set(status, INVALID_RECORD, b"range tombstones beyond their table", <int64_t> offset)
        range_run_release(run)
        return NULL
    return run
