"""What to compact.

Level 0 is due by its number of tables, each other level by its bytes over its target, and any level
with a table that is mostly tombstones nobody needs: whoever seeks passes over them, for ever where
nothing else is written. Of the levels that are due the one that exceeds most goes first. From level 0
the oldest table goes with all that overlap it, directly or through each other; from any other level
the one table that drags the fewest bytes of the next level along for each of its own. A table that
overlaps nothing below is moved by the manifest alone, but for one of tombstones, which is written anew.
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
    MANY_TOMBSTONES = 1024      # of one table; below it nobody notices them


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


cdef bint mostly_tombstones(Store store, LiveTable* file, const OldestReads* oldest) noexcept:
    """Whether a compaction of it would drop most of it, and who seeks passes over that much till then."""
    cdef uint64_t rest = file.summary.entries - file.summary.tombstones
    if not is_past(store, file, oldest):
        return False
    # One range tombstone may stand for any number of entries below it.
    return file.summary.range_deletes > rest or (
        file.summary.tombstones >= MANY_TOMBSTONES and file.summary.tombstones > rest
    )


cdef double level_score(
    Store store, int number, const OldestReads* oldest, bint* for_tombstones
) noexcept:
    """Due from 1 on; `for_tombstones`: only because of them."""
    cdef Level* level = &store.version.levels[number]
    cdef uint64_t busy = 0
    cdef int i
    cdef int waiting = 0
    cdef bint tombstones = False
    cdef double score
    for i in range(level.count):
        if not (level.files[i].compacting or level.files[i].damaged):
            waiting += 1
            busy += level.files[i].summary.file_bytes
            tombstones = tombstones or mostly_tombstones(store, level.files[i], oldest)
    if number == 0:
        score = <double> waiting / store.compaction_trigger
    else:
        score = <double> busy / <double> level_target(store, number)
    for_tombstones[0] = tombstones and score < 1
    return 1 if for_tombstones[0] else score


cdef double compaction_score(Store store) except? -1:
    cdef double best = 0
    cdef int level
    cdef bint for_tombstones
    cdef OldestReads oldest = oldest_reads(store)
    for level in range(LEVELS - 1):
        best = max(best, level_score(store, level, &oldest, &for_tombstones))
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


cdef Task pick_sorted_level(
    Store store, int number, const OldestReads* oldest, bint for_tombstones
):
    cdef Task task
    cdef Level* level = &store.version.levels[number]
    cdef Level* below = &store.version.levels[number + 1]
    cdef Slice low, high
    cdef int first, end, i, j
    cdef int best = -1
    cdef double cost, best_cost = 0
    cdef uint64_t dragged
    for i in range(level.count):
        if level.files[i].compacting or level.files[i].damaged:
            continue
        if for_tombstones and not mostly_tombstones(store, level.files[i], oldest):
            continue
        low = internal_user_key(level.files[i].smallest)
        high = internal_user_key(level.files[i].largest)
        level_range(below, &low, &high, &first, &end)
        if any_taken(below.files, first, end):
            continue
        dragged = 0
        for j in range(first, end):
            dragged += below.files[j].summary.file_bytes
        cost = <double> dragged / <double> (level.files[i].summary.file_bytes + 1)
        if best < 0 or cost < best_cost:
            best = i
            best_cost = cost
    if best < 0:
        return None
    task = new_task(store, number, number + 1)
    push(&task.upper, level.files[best])
    return task if add_lower(task) else None


cdef Task pick(Store store):
    """The most urgent task that can be done now, or None."""
    cdef double scores[LEVELS]
    cdef bint for_tombstones[LEVELS]
    cdef int level, best
    cdef Task task
    cdef OldestReads oldest = oldest_reads(store)
    for level in range(LEVELS - 1):
        scores[level] = level_score(store, level, &oldest, &for_tombstones[level])
    while True:
        best = 0
        for level in range(1, LEVELS - 1):
            if scores[level] > scores[best]:
                best = level
        if scores[best] < 1:
            return None
        if best == 0:
            task = pick_level_zero(store)
        else:
            task = pick_sorted_level(store, best, &oldest, for_tombstones[best])
        if task is not None:
            return task
        scores[best] = 0
