"""Runs of range tombstones, and the growing set of them in a memtable: see range_tombstones.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from kvstore._engine.primitives.native cimport (
    Slice,
    kv_free,
    kv_malloc,
    reference_add,
    reference_drop,
    slice_compare,
    slice_of,
)


cdef enum:
    RANGES_MAX = 1 << 26        # of one run: more than memory is given to


# --- making a run ---------------------------------------------------------------------------

cdef int by_start(const void* a, const void* b) noexcept nogil:
    return slice_compare((<const RangeTombstone*> a).start, (<const RangeTombstone*> b).start)


cdef int by_bytes(const void* a, const void* b) noexcept nogil:
    return slice_compare((<const Slice*> a)[0], (<const Slice*> b)[0])


cdef RangeRun* run_allocate(size_t count) noexcept nogil:
    cdef size_t each = sizeof(RangeTombstone) + sizeof(uint64_t) + 2 * sizeof(Slice) + sizeof(uint32_t)
    cdef size_t size = sizeof(RangeRun) + count * each
    cdef RangeRun* run
    if count > RANGES_MAX:
        return NULL
    run = <RangeRun*> kv_malloc(size)
    if run == NULL:
        return NULL
    memset(run, 0, sizeof(RangeRun))
    run.references = 1
    run.count = <uint32_t> count
    run.bytes = size
    run.tombstones = <RangeTombstone*> (run + 1)
    run.edges = <Slice*> (run.tombstones + count)
    run.newest = <uint64_t*> (run.edges + 2 * count)
    run.furthest = <uint32_t*> (run.newest + count)
    return run


cdef uint32_t grow_tree(RangeRun* run, uint32_t low, uint32_t high) noexcept nogil:
    """Fill in what the roots of [low, high) say of their parts; the root of it all."""
    cdef uint32_t root = (low + high) >> 1
    cdef uint32_t side
    cdef int each
    run.furthest[root] = root
    run.newest[root] = run.tombstones[root].sequence
    for each in range(2):
        if (low == root) if each == 0 else (root + 1 == high):
            continue
        side = grow_tree(run, low, root) if each == 0 else grow_tree(run, root + 1, high)
        if run.newest[side] > run.newest[root]:
            run.newest[root] = run.newest[side]
        if slice_compare(
            run.tombstones[run.furthest[side]].stop, run.tombstones[run.furthest[root]].stop
        ) > 0:
            run.furthest[root] = run.furthest[side]
    return root


cdef void finish_run(RangeRun* run) noexcept nogil:
    """With tombstones and edges in their order."""
    cdef uint32_t i
    run.lowest = run.highest = run.tombstones[0].sequence
    for i in range(1, run.count):
        run.lowest = min(run.lowest, run.tombstones[i].sequence)
        run.highest = max(run.highest, run.tombstones[i].sequence)
    grow_tree(run, 0, run.count)


cdef RangeRun* range_run_new(const RangeTombstone* given, size_t count) noexcept nogil:
    cdef RangeRun* run = run_allocate(count)
    cdef size_t i
    if run == NULL:
        return NULL
    memcpy(run.tombstones, given, count * sizeof(RangeTombstone))
    qsort(run.tombstones, count, sizeof(RangeTombstone), by_start)
    for i in range(count):
        run.edges[2 * i] = run.tombstones[i].start
        run.edges[2 * i + 1] = run.tombstones[i].stop
    qsort(run.edges, 2 * count, sizeof(Slice), by_bytes)
    finish_run(run)
    return run


cdef RangeRun* merge_runs(const RangeRun* a, const RangeRun* b) noexcept nogil:
    cdef RangeRun* run = run_allocate(<size_t> a.count + b.count)
    cdef uint32_t i = 0
    cdef uint32_t j = 0
    cdef uint32_t at
    if run == NULL:
        return NULL
    for at in range(run.count):
        if j == b.count or (
            i < a.count and slice_compare(a.tombstones[i].start, b.tombstones[j].start) <= 0
        ):
            run.tombstones[at] = a.tombstones[i]
            i += 1
        else:
            run.tombstones[at] = b.tombstones[j]
            j += 1
    i = j = 0
    for at in range(2 * run.count):
        if j == 2 * b.count or (
            i < 2 * a.count and slice_compare(a.edges[i], b.edges[j]) <= 0
        ):
            run.edges[at] = a.edges[i]
            i += 1
        else:
            run.edges[at] = b.edges[j]
            j += 1
    finish_run(run)
    return run


cdef void range_run_retain(RangeRun* run) noexcept nogil:
    reference_add(&run.references)


cdef void range_run_release(RangeRun* run) noexcept nogil:
    if reference_drop(&run.references):
        kv_free(run)


# --- search ---------------------------------------------------------------------------------

cdef const RangeTombstone* find_in(
    const RangeRun* run, uint32_t low, uint32_t high, Slice key, uint64_t sequence,
    const RangeTombstone* best
) noexcept nogil:
    """Of the part [low, high), if it has a newer one than `best` over the key."""
    cdef const RangeTombstone* root
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if best != NULL and run.newest[middle] <= best.sequence:
            return best
        if slice_compare(key, run.tombstones[run.furthest[middle]].stop) >= 0:
            return best
        root = &run.tombstones[middle]
        if slice_compare(root.start, key) <= 0:
            if root.sequence <= sequence and (
                best == NULL or root.sequence > best.sequence
            ) and slice_compare(key, root.stop) < 0:
                best = root
            best = find_in(run, middle + 1, high, key, sequence, best)
        high = middle
    return best


cdef const RangeTombstone* range_run_find(
    const RangeRun* run, Slice key, uint64_t sequence
) noexcept nogil:
    if run.lowest > sequence:
        return NULL
    return find_in(run, 0, run.count, key, sequence, NULL)


cdef void range_run_piece(const RangeRun* run, Slice key, Slice* low, Slice* high) noexcept nogil:
    cdef uint32_t first = 0
    cdef uint32_t end = 2 * run.count
    cdef uint32_t middle
    while first < end:
        middle = (first + end) >> 1
        if slice_compare(run.edges[middle], key) <= 0:
            first = middle + 1
        else:
            end = middle
    low[0] = run.edges[first - 1] if first else slice_of(NULL, 0)
    high[0] = run.edges[first] if first < 2 * run.count else slice_of(NULL, 0)


# --- the set of a memtable ------------------------------------------------------------------

cdef int range_set_add(RangeSet* ranges, const RangeTombstone* given, size_t count) noexcept nogil:
    cdef RangeRun* run = range_run_new(given, count)
    cdef RangeRun* longer
    cdef int kept = ranges.runs_count
    cdef int i
    while run != NULL and kept and ranges.runs[kept - 1].count <= run.count:
        longer = merge_runs(ranges.runs[kept - 1], run)
        range_run_release(run)
        run = longer
        kept -= 1
    if run == NULL or kept == RANGE_RUNS_MAX:
        if run != NULL:
            range_run_release(run)
        return -1
    for i in range(kept, ranges.runs_count):
        ranges.bytes -= ranges.runs[i].bytes
        range_run_release(ranges.runs[i])
    ranges.runs[kept] = run
    ranges.bytes += run.bytes
    ranges.runs_count = kept + 1
    ranges.count += <uint32_t> count
    return 0


cdef const RangeTombstone* range_set_find(
    const RangeSet* ranges, Slice key, uint64_t sequence
) noexcept nogil:
    cdef const RangeTombstone* found
    cdef int i
    # The first that is found is the newest: a run's sequences are below those of the next.
    for i in range(ranges.runs_count - 1, -1, -1):
        found = range_run_find(ranges.runs[i], key, sequence)
        if found != NULL:
            return found
    return NULL


cdef void range_set_free(RangeSet* ranges) noexcept nogil:
    cdef int i
    for i in range(ranges.runs_count):
        range_run_release(ranges.runs[i])
    memset(ranges, 0, sizeof(RangeSet))
