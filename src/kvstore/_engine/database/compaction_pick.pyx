"""What to compact.

Level 0 is due by its number of tables, each other level by its bytes over its target, and any level
with a table that is mostly garbage: tombstones, and versions that newer ones hide, which nobody needs any
more. Whoever seeks passes over the former, and the latter take space, for ever where nothing else is
written. Of the levels that are due the one that exceeds most goes first. From level 0
the oldest table goes with all that overlap it, directly or through each other; from any other level
the one table that drags the fewest bytes of the next level along for each of its own. A table that
overlaps nothing below is moved by the manifest alone; but one of garbage is written anew, in its own
level where nothing further down overlaps it either.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    PodVector,
    Slice,
    internal_user_key,
    kv_realloc,
    slice_compare,
)
from kvstore._engine.version.native cimport (
    LEVELS,
    Level,
    LiveTable,
    Version,
    file_overlaps,
    history_reaches,
    level_range,
    version_release,
    version_retain,
)


cdef enum:
    # Of one table; below both nobody notices it.
    MUCH_GARBAGE = 1024         # entries
    MUCH_GARBAGE_BYTES = 1 << 20    # a table of this size, half of it or more
    # The lowest level that there is may have so many times what level 0 gathers before it is merged.
    LONE_LEVEL_BATCHES = 4
    # Level 0 gathers twice as many tables where those would drag along over so many times their bytes.
    DRAGGED_MOST = 2


cdef class Task:
    """Tables of one level, and those of the next that they must be merged with. Holds the version.

    They are marked in the same breath in which they were found free: even to let go of another Task
    lets other threads in.
    """
    cdef Version* version
    cdef bint marked
    cdef int level
    cdef int output_level
    cdef PodVector[LiveTable*] upper       # in level 0 newest first, else in key order
    cdef PodVector[LiveTable*] lower

    def __dealloc__(self):
        mark(self, False)
        if self.version != NULL:
            with nogil:
                version_release(self.version)


cdef uint64_t level_target(Store store, int level) noexcept:
    cdef double target = <double> store.level_base_bytes
    cdef int i
    for i in range(1, level):
        target *= store.level_multiplier
    return <uint64_t> target if target < 9e18 else <uint64_t> 9e18


cdef uint64_t level_most(Store store, int number) noexcept:
    """Bytes from which on a level is to give some to the next one.

    Of the lowest one that isn't less than a few times what comes down to it at once: with another level
    between them all of it would be written twice, to save writing some of a small level once.
    """
    cdef uint64_t target = level_target(store, number)
    cdef int below
    for below in range(number + 1, LEVELS):
        if store.version.levels[below].count:
            return target
    return max(
        target, LONE_LEVEL_BATCHES * <uint64_t> store.compaction_trigger * store.write_buffer_bytes
    )


cdef double level_zero_score(Store store, int waiting, uint64_t waiting_bytes) noexcept:
    """`waiting`: of its tables, those that are whole and that no job works on."""
    cdef int most = max(store.compaction_trigger, min(2 * store.compaction_trigger, store.slowdown_files - 1))
    # Writers are held back for all of its tables: none is waited for where that would be so.
    if store.version.levels[1].bytes > DRAGGED_MOST * waiting_bytes and store.version.levels[0].count < most:
        return <double> waiting / most
    return <double> waiting / store.compaction_trigger


cdef struct OldestReads:
    # Nobody reads at a sequence below.
    uint64_t of_history         # keys that have one
    uint64_t of_others


cdef OldestReads oldest_reads(Store store) except *:
    cdef OldestReads oldest
    oldest.of_others = min(store.visible, *store.snapshots) if store.snapshots else store.visible
    oldest.of_history = min(oldest.of_others, store.retain_from)
    return oldest


cdef bint is_past(Store store, LiveTable* file, const OldestReads* oldest) noexcept:
    """Whether everybody sees all that was done in the table, so that its tombstones may go."""
    if file.summary.max_sequence <= oldest.of_history:
        return True
    return file.summary.max_sequence <= oldest.of_others and not history_reaches(
        store.history, internal_user_key(file.smallest), internal_user_key(file.largest)
    )


cdef bint mostly_garbage(Store store, LiveTable* file, const OldestReads* oldest) noexcept:
    """Whether a compaction of it would drop most of it, and who seeks passes over that much till then."""
    cdef uint64_t garbage = file.summary.tombstones + file.summary.superseded
    cdef uint64_t rest = file.summary.entries - file.summary.tombstones
    if not is_past(store, file, oldest):
        return False
    # One range tombstone may stand for any number of entries below it.
    if file.summary.range_deletes > rest:
        return True
    return garbage > file.summary.entries - garbage and (
        garbage >= MUCH_GARBAGE or file.summary.file_bytes >= MUCH_GARBAGE_BYTES
    )


cdef double level_score(
    Store store, int number, const OldestReads* oldest, bint* for_garbage
) noexcept:
    """Due from 1 on; `for_garbage`: only because of that."""
    cdef Level* level = &store.version.levels[number]
    cdef uint64_t busy = 0
    cdef int i
    cdef int waiting = 0
    cdef bint garbage = False
    cdef double score = 0       # of the lowest level, which has no target
    for i in range(level.count):
        if not (level.files[i].compacting or level.files[i].damaged):
            waiting += 1
            busy += level.files[i].summary.file_bytes
            garbage = garbage or mostly_garbage(store, level.files[i], oldest)
    if number == 0:
        score = level_zero_score(store, waiting, busy)
    elif number < LEVELS - 1:
        score = <double> busy / <double> level_most(store, number)
    for_garbage[0] = garbage and score < 1
    return 1 if for_garbage[0] else score


cdef double compaction_score(Store store) except? -1:
    cdef double best = 0
    cdef int level
    cdef bint for_garbage
    cdef OldestReads oldest = oldest_reads(store)
    for level in range(LEVELS):
        best = max(best, level_score(store, level, &oldest, &for_garbage))
    return best


cdef bint any_taken(LiveTable** files, int first, int end) noexcept:
    """Whether a job works on any of them, or none can."""
    cdef int i
    for i in range(first, end):
        if files[i].compacting or files[i].damaged:
            return True
    return False


cdef Task new_task(Store store, int level, int output_level):
    cdef Task task = Task.__new__(Task)
    task.version = store.version
    version_retain(task.version)
    task.level = level
    task.output_level = output_level
    return task


cdef void hull(PodVector[LiveTable*]* files, Slice* low, Slice* high) noexcept:
    """The range of user keys that the tables cover; there is at least one."""
    cdef size_t i
    low[0] = internal_user_key(files[0][0].smallest)
    high[0] = internal_user_key(files[0][0].largest)
    for i in range(1, files.size()):
        if slice_compare(internal_user_key(files[0][i].smallest), low[0]) < 0:
            low[0] = internal_user_key(files[0][i].smallest)
        if slice_compare(internal_user_key(files[0][i].largest), high[0]) > 0:
            high[0] = internal_user_key(files[0][i].largest)


cdef void mark(Task task, bint compacting) noexcept:
    cdef size_t i
    if task.marked == compacting:
        return
    task.marked = compacting
    for i in range(task.upper.size()):
        task.upper[i].compacting = compacting
    for i in range(task.lower.size()):
        task.lower[i].compacting = compacting


cdef int push(PodVector[LiveTable*]* tables, LiveTable* table) except -1:
    if tables.push(table, kv_realloc) < 0:
        raise MemoryError("no memory for a compaction")
    return 0


cdef bint add_lower(Task task) except -1:
    """Fills `lower` with what `upper` overlaps, and marks all; False if a job works on any of it."""
    cdef Slice low, high
    cdef Level* level = &task.version.levels[task.output_level]
    cdef int first, end, i
    hull(&task.upper, &low, &high)
    level_range(level, &low, &high, &first, &end)
    if any_taken(level.files, first, end):
        return False
    for i in range(first, end):
        push(&task.lower, level.files[i])
    mark(task, True)
    return True


cdef Task pick_level_zero(Store store):
    """The oldest table with all that overlap it. None while a job works on any of level 0."""
    # One task for all tries: to let go of one lets other threads in.
    cdef Task task = new_task(store, 0, 1)
    cdef Level* level = &task.version.levels[0]
    cdef bytearray seen = bytearray(level.count)
    cdef bytearray taken
    cdef int i, oldest
    cdef bint damaged
    for i in range(level.count):
        if level.files[i].compacting:
            return None
    for oldest in range(level.count - 1, -1, -1):
        if seen[oldest]:
            continue
        taken = overlapping(task, level, oldest)
        damaged = False
        task.upper.clear()
        for i in range(level.count):
            if taken[i]:
                seen[i] = True
                damaged = damaged or level.files[i].damaged
                push(&task.upper, level.files[i])
        # What overlaps a damaged table stays above it, or beside it.
        if not damaged and add_lower(task):
            return task
    return None


cdef bytearray overlapping(Task task, Level* level, int start):
    """Which tables of level 0 overlap the one at `start`, directly or through each other."""
    cdef bytearray taken = bytearray(level.count)
    cdef Slice low, high
    cdef bint grown = True
    cdef int i
    task.upper.clear()
    push(&task.upper, level.files[start])
    taken[start] = True
    while grown:
        grown = False
        hull(&task.upper, &low, &high)
        for i in range(level.count):
            if not taken[i] and file_overlaps(level.files[i], &low, &high):
                push(&task.upper, level.files[i])
                taken[i] = True
                grown = True
    return taken


cdef bint overlaps_below(Version* version, int number, LiveTable* file) noexcept:
    """Whether a level below that one has something in the table's range."""
    cdef Slice low = internal_user_key(file.smallest)
    cdef Slice high = internal_user_key(file.largest)
    cdef int below, first, end
    for below in range(number + 1, LEVELS):
        level_range(&version.levels[below], &low, &high, &first, &end)
        if first < end:
            return True
    return False


cdef uint64_t bytes_dragged(Version* version, int number, LiveTable* file) noexcept:
    """Bytes of the next level's tables that it must be merged with; -1: that can't be done now."""
    cdef Slice low = internal_user_key(file.smallest)
    cdef Slice high = internal_user_key(file.largest)
    cdef Level* below
    cdef uint64_t dragged = 0
    cdef int first, end, i
    if number == LEVELS - 1:
        return 0
    below = &version.levels[number + 1]
    level_range(below, &low, &high, &first, &end)
    if any_taken(below.files, first, end):
        return <uint64_t> -1
    for i in range(first, end):
        dragged += below.files[i].summary.file_bytes
    return dragged


cdef Task pick_sorted_level(Store store, int number, const OldestReads* oldest, bint for_garbage):
    cdef Task task
    cdef Level* level = &store.version.levels[number]
    cdef int i
    cdef int best = -1
    cdef double cost, best_cost = 0
    cdef uint64_t dragged
    for i in range(level.count):
        if level.files[i].compacting or level.files[i].damaged:
            continue
        if for_garbage and not mostly_garbage(store, level.files[i], oldest):
            continue
        dragged = bytes_dragged(store.version, number, level.files[i])
        if dragged == <uint64_t> -1:
            continue
        cost = <double> dragged / <double> (level.files[i].summary.file_bytes + 1)
        if best < 0 or cost < best_cost:
            best = i
            best_cost = cost
    if best < 0:
        return None
    if mostly_garbage(store, level.files[best], oldest) and not overlaps_below(
        store.version, number, level.files[best]
    ):
        return rewriting(store, number, best, best + 1)
    task = new_task(store, number, number + 1)
    push(&task.upper, level.files[best])
    return task if add_lower(task) else None


cdef Task rewriting(Store store, int number, int first, int end):
    """To write these tables of a level anew, without what nobody needs any more. None: one is taken."""
    cdef Task task = new_task(store, number, number)
    cdef Level* level = &task.version.levels[number]
    cdef int i
    if any_taken(level.files, first, end):
        return None
    for i in range(first, end):
        push(&task.upper, level.files[i])
    mark(task, True)
    return task


cdef Task pick(Store store):
    """The most urgent task that can be done now, or None."""
    cdef double scores[LEVELS]
    cdef bint for_garbage[LEVELS]
    cdef int level, best
    cdef Task task
    cdef OldestReads oldest = oldest_reads(store)
    for level in range(LEVELS):
        scores[level] = level_score(store, level, &oldest, &for_garbage[level])
    while True:
        best = 0
        for level in range(1, LEVELS):
            if scores[level] > scores[best]:
                best = level
        if scores[best] < 1:
            return None
        if best == 0:
            task = pick_level_zero(store)
        else:
            task = pick_sorted_level(store, best, &oldest, for_garbage[best])
        if task is not None:
            return task
        scores[best] = 0
