"""Looking range tombstones up in all that a walk goes through: see range_cover.pxd."""

from libc.stdint cimport uint64_t

from kvstore._engine.memtable.native cimport (
    memtable_release,
    memtable_retain,
    range_run_find,
    range_run_piece,
    range_run_release,
    range_run_retain,
)
from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    internal_user_key,
    kv_calloc,
    kv_free,
    slice_of,
    status_set,
)
from kvstore._engine.table.native cimport table_release


cdef int sources_needed(MemTable** memories, int memories_count, Version* version) noexcept nogil:
    cdef int count = version.levels[0].ranged_count
    cdef int i
    for i in range(memories_count):
        count += memories[i].ranges.runs_count
    for i in range(1, LEVELS):
        count += version.levels[i].ranged_count != 0
    return count


cdef void add_memory(RangeCover* cover, MemTable* memory, int child) noexcept nogil:
    cdef CoverSource* source
    cdef int i
    # The newest first, so that their tombstones are the ones that a key is mostly hidden by.
    for i in range(memory.ranges.runs_count - 1, -1, -1):
        if memory.ranges.runs[i].lowest > cover.sequence:
            continue
        source = &cover.sources[cover.count]
        cover.count += 1
        source.child = child
        source.run = memory.ranges.runs[i]
        source.memory = memory
        range_run_retain(source.run)
        memtable_retain(memory)


cdef void add_tables(RangeCover* cover, LiveTable** tables, int count, int child) noexcept nogil:
    cdef CoverSource* source = &cover.sources[cover.count]
    cover.count += 1
    source.child = child
    source.tables = tables
    source.tables_count = count


cdef void add_version(RangeCover* cover, Version* version, int child) noexcept nogil:
    cdef int number, i
    cdef int ranged = 0
    for i in range(version.levels[0].count):
        if ranged < version.levels[0].ranged_count and (
            version.levels[0].files[i] == version.levels[0].ranged[ranged]
        ):
            add_tables(cover, &version.levels[0].ranged[ranged], 1, child)
            ranged += 1
        child += 1
    for number in range(1, LEVELS):
        if version.levels[number].ranged_count:
            add_tables(
                cover, version.levels[number].ranged, version.levels[number].ranged_count, child
            )
        child += version.levels[number].count != 0


cdef int cover_open(
    RangeCover** cover, MemTable** memories, const int* memory_children, int memories_count,
    Version* version, int first_table_child, uint64_t sequence
) noexcept nogil:
    cdef int room = sources_needed(memories, memories_count, version)
    cdef RangeCover* made
    cdef int i
    cover[0] = NULL
    if room == 0:
        return 0
    made = <RangeCover*> kv_calloc(1, sizeof(RangeCover) + room * sizeof(CoverSource))
    if made == NULL:
        return -1
    made.sequence = sequence
    made.sources = <CoverSource*> (made + 1)
    for i in range(memories_count):
        add_memory(made, memories[i], memory_children[i])
    add_version(made, version, first_table_child)
    cover[0] = made
    return 0


cdef void cover_close(RangeCover* cover) noexcept nogil:
    cdef CoverSource* source
    cdef int i
    if cover == NULL:
        return
    for i in range(cover.count):
        source = &cover.sources[i]
        if source.memory != NULL:
            range_run_release(source.run)
            memtable_release(source.memory)
        if source.table != NULL:
            table_release(source.table)
    kv_free(cover)


cdef int cover_open_table(CoverSource* source, int at, Status* status) noexcept nogil:
    cdef Table* table
    if source.table != NULL and source.at == at:
        return 0
    table = live_table_open(source.tables[at], status)
    if table == NULL:
        return -1
    if source.table != NULL:
        table_release(source.table)
    source.table = table
    source.run = table.ranges
    source.at = at
    if source.run == NULL:
        status.table = source.tables[at].number
        return status_set(status, INVALID_RECORD, b"table without the range tombstones it should have", -1)
    return 0


cdef int source_table(
    CoverSource* source, Slice key, Slice* low, Slice* high, Status* status
) noexcept nogil:
    """1: the key is in the range of a table, now open; 0: not, and there is none in (low, high)."""
    cdef int first = 0
    cdef int end = source.tables_count
    cdef int middle
    low[0] = high[0] = slice_of(NULL, 0)
    while first < end:
        middle = (first + end) >> 1
        if ends_before(source.tables[middle], key):
            first = middle + 1
        else:
            end = middle
    if first:
        low[0] = internal_user_key(source.tables[first - 1].largest)
    if first == source.tables_count:
        return 0
    high[0] = internal_user_key(source.tables[first].smallest)
    if slice_compare(key, high[0]) < 0:
        return 0
    high[0] = slice_of(NULL, 0)
    if first + 1 < source.tables_count:
        high[0] = internal_user_key(source.tables[first + 1].smallest)
    return -1 if cover_open_table(source, first, status) < 0 else 1


cdef void cover_narrow(RangeCover* cover, Slice low, Slice high) noexcept nogil:
    if low.data != NULL and (cover.low.data == NULL or slice_compare(low, cover.low) > 0):
        cover.low = low
    if high.data != NULL and (cover.high.data == NULL or slice_compare(high, cover.high) < 0):
        cover.high = high


cdef int cover_look(RangeCover* cover, Slice key, Status* status) noexcept nogil:
    cdef CoverSource* source
    cdef const RangeTombstone* found
    cdef Slice low, high
    cdef int i, result
    # Bounds may lie in a table that is let go of on the way.
    cover.known = False
    cover.newest = NULL
    cover.low = cover.high = slice_of(NULL, 0)
    for i in range(cover.count):
        source = &cover.sources[i]
        if source.memory == NULL:
            result = source_table(source, key, &low, &high, status)
            if result < 0:
                return -1
            cover_narrow(cover, low, high)
            if result == 0:
                continue
        range_run_piece(source.run, key, &low, &high)
        cover_narrow(cover, low, high)
        found = range_run_find(source.run, key, cover.sequence)
        if found != NULL and (cover.newest == NULL or found.sequence > cover.newest.sequence):
            cover.newest = found
            cover.child = source.child
    cover.known = True
    return 0
