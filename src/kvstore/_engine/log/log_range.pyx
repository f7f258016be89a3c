"""Reading entries by their index; see log_range.pxd.

The newest record of an index counts, as in a replay: one whose index is not above the one before it
replaces that and all after it. A segment without any such is read only as far as is wanted; another
one to its end, since what was taken may be replaced further on.
"""

from libc.stdint cimport int64_t, uint64_t, uint8_t
from libc.string cimport memcmp, memset

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    OK,
    Status,
    TRUNCATED_RECORD,
    buffer_append,
    buffer_free,
    status_no_memory,
    status_set,
)


cdef inline RangeEntry* range_entry(RangeEntries* found, size_t place) noexcept nogil:
    return (<RangeEntry*> found.entries.data) + place


cdef inline size_t range_count(const RangeEntries* found) noexcept nogil:
    return found.entries.size // sizeof(RangeEntry)


cdef void range_cut(RangeEntries* found, size_t count) noexcept nogil:
    """Keeps the first `count` entries."""
    if count < range_count(found):
        found.payloads.size = range_entry(found, count).start
        found.entries.size = count * sizeof(RangeEntry)


cdef void range_free(RangeEntries* found) noexcept nogil:
    buffer_free(&found.entries)
    buffer_free(&found.payloads)


cdef int range_add(
    RangeEntries* found, const RecordHeader* record, const uint8_t* payload, Status* status
) noexcept nogil:
    cdef RangeEntry entry
    # Its padding too: these bytes are copied.
    memset(&entry, 0, sizeof(RangeEntry))
    entry.index = record.index
    entry.term = record.term
    entry.start = found.payloads.size
    entry.size = record.payload_bytes
    entry.kind = record.kind
    if (
        buffer_append(&found.payloads, payload, record.payload_bytes) < 0
        or buffer_append(&found.entries, &entry, sizeof(RangeEntry)) < 0
    ):
        return status_no_memory(status, b"memory to read log entries")
    return 0


cdef int read_place(
    SegmentReader* reader, const Place* place, const uint8_t* log_id, uint64_t first,
    uint64_t last, size_t bytes_max, RangeEntries* into, Status* status
) noexcept nogil:
    cdef RecordHeader record
    cdef const uint8_t* payload = NULL
    cdef uint64_t expected = first
    cdef int result
    if reader.header.number != place.segment or memcmp(reader.header.log_id, log_id, ID_BYTES):
        return status_set(status, INVALID_RECORD, b"log segment under another one's name", 8)
    last = min(last, min(place.span.highest, place.limit - 1))
    reader.file_bytes = min(reader.file_bytes, place.end)
    while True:
        if place.span.ordered and (
            expected > last or (expected > first and into.payloads.size >= bytes_max)
        ):
            break
        result = segment_next(reader, &record, &payload, status)
        if result < 0:
            return -1
        if result == 0:
            if reader.position == place.end:
                break
            status[0] = reader.stop
            if status.code == OK:
                status_set(
                    status, TRUNCATED_RECORD, b"log records are gone", <int64_t> reader.position
                )
            return -1
        if record.kind > KIND_USER_MAX or record.index == 0:
            continue
        if record.index <= expected:
            range_cut(into, <size_t> (record.index - first) if record.index > first else 0)
            if record.index < first:
                expected = first
                continue
            if range_add(into, &record, payload, status):
                return -1
            expected = record.index + 1
        else:
            range_cut(into, 0)
            expected = first
    if expected == first:
        return status_set(status, TRUNCATED_RECORD, b"log entries are gone", -1)
    cut_to_measure(into, <size_t> (last - first + 1), bytes_max)
    return 0


cdef void cut_to_measure(RangeEntries* found, size_t count, size_t bytes_max) noexcept nogil:
    """At most `count`, and none after the one that passes `bytes_max`."""
    cdef size_t place
    count = min(range_count(found), count)
    for place in range(1, count):
        if range_entry(found, place).start >= bytes_max:
            count = place
            break
    range_cut(found, count)
