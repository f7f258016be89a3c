"""All that a range of keys holds at one sequence, a part at a time: for another database that lost it.

A part goes from its first key up to the next part's. Little-endian:

    u32 entries, u32 range tombstones
    each range tombstone: u64 sequence, u32 size of start, u32 size of stop, start, stop
    each entry: u64 sequence << 8 | kind, u32 size of key, u32 size of value, key, value

Entries are in the order of internal keys, and no user key is in two parts. Of each key there are the
versions that somebody may read from `keep_from` up to the sequence, tombstones among them; range
tombstones are cut to the part.
"""

cimport cython
from libc.errno cimport E2BIG, ESTALE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    BytesView,
    Cursor,
    KIND_MAX,
    OK,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_zeroed,
    max_sequence,
    put_fixed32,
    slice_compare,
    slice_of,
    status_clear,
    status_error_in,
    status_no_memory,
    trailer_pack,
    trailer_sequence,
    view_close,
    view_open,
)
from kvstore._engine.memtable.native cimport RangeTombstone
from kvstore._engine.table.native cimport Table, table_release
from kvstore._engine.version.native cimport (
    LEVELS,
    LiveTable,
    Version,
    ends_before,
    live_table_open,
    merge_cursor,
    version_cursor_count,
    version_cursors,
    version_release,
    version_retain,
)

from kvstore.errors import InvalidArgumentError, StorageError

cdef enum:
    PART_READ_AHEAD_BYTES = 1 << 17
    # Of one part: where the versions of a single key take more, they can't be handed on.
    PART_BYTES_MAX = 1 << 23


cdef struct RangePart:
    Buffer entries
    Buffer tombstones
    Buffer key                  # the user key that the walk stands on
    uint32_t entries_count
    uint32_t tombstones_count
    bint too_large
    bint has_next               # `key` is where the next part begins


cdef int put_integer(Buffer* into, uint64_t value, size_t size) noexcept nogil:
    return buffer_append(into, &value, size)        # little-endian, as the machine is


cdef bint reaches_into(LiveTable* file, Slice low, Slice high) noexcept nogil:
    """Whether the table may have something in [low, high)."""
    return not ends_before(file, low) and (
        slice_compare(internal_user_key(file.smallest), high) < 0
    )


cdef int put_entry(RangePart* part, Slice key, Slice value) noexcept nogil:
    cdef Slice user_key = internal_user_key(key)
    cdef Buffer* into = &part.entries
    if (
        put_integer(into, internal_trailer(key), 8) < 0
        or put_integer(into, user_key.size, 4) < 0
        or put_integer(into, value.size, 4) < 0
        or buffer_append(into, user_key.data, user_key.size) < 0
        or buffer_append(into, value.data, value.size) < 0
    ):
        return -1
    part.entries_count += 1
    return 0


cdef int put_tombstone(
    RangePart* part, const RangeTombstone* whole, Slice low, Slice high
) noexcept nogil:
    cdef Slice start = whole.start
    cdef Slice stop = whole.stop
    cdef Buffer* into = &part.tombstones
    if slice_compare(start, low) < 0:
        start = low
    if slice_compare(stop, high) > 0:
        stop = high
    if slice_compare(start, stop) >= 0:
        return 0
    if (
        put_integer(into, whole.sequence, 8) < 0
        or put_integer(into, start.size, 4) < 0
        or put_integer(into, stop.size, 4) < 0
        or buffer_append(into, start.data, start.size) < 0
        or buffer_append(into, stop.data, stop.size) < 0
    ):
        return -1
    part.tombstones_count += 1
    return 0


cdef int walk_entries(
    RangePart* part, Cursor* merged, Slice stop, uint64_t sequence, uint64_t keep_from,
    size_t bytes_max, Status* status
) noexcept nogil:
    cdef Slice user_key
    cdef uint64_t version
    cdef uint64_t newer = 0         # the version of the key that was taken last
    cdef bint first = True          # no key was seen yet
    cdef bint taken = False         # some version of this key was
    while merged.valid:
        user_key = internal_user_key(merged.key)
        if slice_compare(user_key, stop) >= 0:
            break
        if first or slice_compare(user_key, slice_of(part.key.data, part.key.size)) != 0:
            first = taken = False
            part.key.size = 0
            if buffer_append(&part.key, user_key.data, user_key.size) < 0:
                return status_no_memory(status, b"memory for a part of a range")
            if part.entries.size >= bytes_max:
                part.has_next = True
                return 0
        version = trailer_sequence(internal_trailer(merged.key))
        # The same version may come from two sources, the newer one first.
        if version <= sequence and not (taken and (newer <= keep_from or version == newer)):
            if put_entry(part, merged.key, merged.value) < 0:
                return status_no_memory(status, b"memory for a part of a range")
            taken = True
            newer = version
            if part.entries.size > PART_BYTES_MAX:
                part.too_large = True
                return 0
        merged.next(merged)
    if merged.status.code != OK:
        status[0] = merged.status
        return -1
    return 0


cdef int walk_tombstones(
    RangePart* part, Version* version, Slice low, Slice high, uint64_t sequence, Status* status
) noexcept nogil:
    cdef Table* table
    cdef int level, i
    cdef size_t j
    cdef int result = 0
    for level in range(LEVELS):
        for i in range(version.levels[level].ranged_count):
            if not reaches_into(version.levels[level].ranged[i], low, high):
                continue
            table = live_table_open(version.levels[level].ranged[i], status)
            if table == NULL:
                return -1
            for j in range(0 if table.ranges == NULL else table.ranges.count):
                if result == 0 and table.ranges.tombstones[j].sequence <= sequence:
                    result = put_tombstone(part, &table.ranges.tombstones[j], low, high)
            table_release(table)
            if result < 0:
                return status_no_memory(status, b"memory for a part of a range")
    part.too_large = part.too_large or part.tombstones.size > PART_BYTES_MAX
    return 0


cdef int walk_part(
    RangePart* part, Version* version, Slice start, Slice stop, uint64_t sequence,
    uint64_t keep_from, size_t bytes_max, Status* status
) noexcept nogil:
    """What lies in [start, stop) of the version's tables, as far as a part has room. -1: see status."""
    cdef int count = version_cursor_count(version)
    cdef Cursor** cursors
    cdef Cursor* merged
    cdef uint64_t trailer = trailer_pack(max_sequence(), KIND_MAX)
    cdef Slice end = stop
    cdef int result
    if count == 0:
        return 0
    cursors = <Cursor**> kv_zeroed(count * sizeof(Cursor*))
    if cursors == NULL or buffer_append(&part.key, start.data, start.size) < 0 or buffer_append(
        &part.key, &trailer, TRAILER_BYTES
    ) < 0:
        kv_free(cursors)
        return status_no_memory(status, b"memory for a part of a range")
    if version_cursors(version, False, PART_READ_AHEAD_BYTES, cursors, status) < 0:
        kv_free(cursors)
        return -1
    merged = merge_cursor(cursors, count)
    kv_free(cursors)
    if merged == NULL:
        return status_no_memory(status, b"memory for a part of a range")
    merged.seek(merged, slice_of(part.key.data, part.key.size))
    result = walk_entries(part, merged, stop, sequence, keep_from, bytes_max, status)
    merged.free(merged)
    if result < 0 or part.too_large:
        return result
    if part.has_next:
        end = slice_of(part.key.data, part.key.size)
    return walk_tombstones(part, version, start, end, sequence, status)


cdef bytes buffer_bytes(Buffer* buffer):
    # NULL has no bytes to be copied.
    return <bytes> (<const char*> buffer.data)[: buffer.size] if buffer.size else b""


cdef bytes part_bytes(RangePart* part):
    cdef uint8_t[8] head
    put_fixed32(head, part.entries_count)
    put_fixed32(head + 4, part.tombstones_count)
    return <bytes> (<const char*> head)[:8] + buffer_bytes(&part.tombstones) + buffer_bytes(&part.entries)


@cython.no_gc_clear
@cython.final
cdef class RangeExport:
    cdef Store store
    cdef uint64_t sequence
    cdef uint64_t keep_from
    cdef bint held

    def __init__(self):
        raise TypeError("make a RangeExport with a database's export_range()")

    def __dealloc__(self):
        if self.held and self.store.snapshots is not None:
            self.close()

    def __reduce__(self):
        raise TypeError("a RangeExport can't be copied or pickled: make another one")

    def close(self):
        if not self.held:
            return
        self.held = False
        left = self.store.snapshots.get(self.sequence, 0) - 1
        if left > 0:
            self.store.snapshots[self.sequence] = left
        else:
            self.store.snapshots.pop(self.sequence, None)

    def part(self, start, stop, size_t bytes_max):
        cdef RangePart part
        cdef BytesView low, high
        cdef Status status
        cdef Version* version
        cdef int result
        if self.store is None or not self.held:
            raise InvalidArgumentError("the export is closed")
        self.store.check_open()
        if self.store.flushed_sequence < self.sequence:
            raise InvalidArgumentError("memory isn't read: flush the database first")
        if self.store.history_from > self.keep_from and self.keep_from != self.sequence:
            raise StorageError(f"history from {self.keep_from} on isn't kept any more", errno=ESTALE)
        buffer_init(&part.entries)
        buffer_init(&part.tombstones)
        buffer_init(&part.key)
        part.entries_count = part.tombstones_count = 0
        part.too_large = part.has_next = False
        status_clear(&status)
        view_open(start, &low, "start")
        try:
            view_open(stop, &high, "stop")
        except BaseException:
            view_close(&low)
            raise
        version = self.store.version
        version_retain(version)
        try:
            with nogil:
                result = walk_part(
                    &part, version, low.slice, high.slice, self.sequence, self.keep_from,
                    bytes_max, &status
                )
            if result < 0:
                raise status_error_in(&status, self.store.path)
            if part.too_large:
                raise StorageError(
                    "the versions of a key take more than a part has room for", errno=E2BIG
                )
            return part_bytes(&part), buffer_bytes(&part.key) if part.has_next else None
        finally:
            with nogil:
                version_release(version)
                buffer_free(&part.entries)
                buffer_free(&part.tombstones)
                buffer_free(&part.key)
            view_close(&low)
            view_close(&high)


cdef RangeExport open_range_export(Store store, object sequence, object keep_from):
    """None where some of what would be handed on is gone already."""
    cdef RangeExport export = RangeExport.__new__(RangeExport)
    cdef uint64_t moment = as_sequence(sequence)
    # From here on nothing may let other threads in: a compaction could take away what is only about
    # to be held.
    export.sequence = moment
    export.keep_from = as_sequence(keep_from)
    export.store = store
    if moment > store.visible or export.keep_from > moment or store.history_from > export.keep_from:
        return None
    store.snapshots[moment] = store.snapshots.get(moment, 0) + 1
    export.held = True
    return export
