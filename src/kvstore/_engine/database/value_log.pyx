"""Large values stay where the log has them: see value_log.pxd."""

from libc.errno cimport EMLINK, ENOSYS, EOPNOTSUPP, EPERM, EXDEV
from libc.stdint cimport uint64_t
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    KIND_PUT,
    PodVector,
    Slice,
    Status,
    counter_next,
    internal_trailer,
    internal_user_key,
    kv_realloc,
    slice_compare,
    slice_of,
    status_clear,
    trailer_kind,
    trailer_sequence,
)
from kvstore._engine.files.native cimport link_file
from kvstore._engine.log.native cimport SEGMENT_HEADER_BYTES, segment_name
from kvstore._engine.memtable.native cimport MemTable, Place, memtable_cursor
from kvstore._engine.version.native cimport (
    Home,
    JobInput,
    LEVELS,
    LiveTable,
    job_input_add,
    job_input_first,
    job_input_free,
    job_input_next,
    place_of,
    value_file_get,
    value_file_release,
    value_file_size,
    value_file_unwant,
    value_file_want,
)

from kvstore.errors import StorageError


cdef enum:
    # A segment of which a flush has less than that part stays a segment.
    LEAST_PART_KEPT = 8

# Where a file can't have two names.
NO_SECOND_NAME = (EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EXDEV)


cdef class Apart:
    pass


cdef struct Share:
    uint64_t segment
    uint64_t bytes              # of values in it that live on


cdef int add_share(PodVector[Share]* shares, uint64_t segment, uint64_t bytes) noexcept nogil:
    cdef Share fresh
    cdef size_t i = shares.size()
    while i > 0:
        i -= 1
        if shares[0][i].segment == segment:
            shares[0][i].bytes += bytes
            return 0
    fresh.segment = segment
    fresh.bytes = bytes
    return shares.push(fresh, kv_realloc)


cdef int survey_places(
    JobInput* input, PodVector[Place]* places, PodVector[Share]* shares, uint64_t* live, uint64_t* all
) noexcept nogil:
    """Bytes of all entries, and of what the newest versions have in each segment. -1: no memory."""
    cdef Slice user_key
    cdef Slice before = slice_of(NULL, 0)
    cdef uint64_t trailer
    cdef const Place* place
    job_input_first(input)
    while input.at != NULL:
        user_key = internal_user_key(input.at.key)
        trailer = internal_trailer(input.at.key)
        all[0] += input.at.key.size + input.at.value.size
        # A memtable's entries never move.
        if (before.data == NULL or slice_compare(before, user_key) != 0) and trailer_kind(trailer) == KIND_PUT:
            place = place_of(places.data(), places.size(), trailer_sequence(trailer))
            if place != NULL:
                live[0] += place.size
                if add_share(shares, place.segment, place.size) < 0:
                    return -1
        before = user_key
        job_input_next(input)
    return 0


cdef uint64_t adopted_number(Store store, uint64_t segment) noexcept:
    """The number of the value file that the segment is; 0: it is none."""
    cdef size_t i
    for i in range(store.adopted.size()):
        if store.adopted[i].segment == segment:
            return store.adopted[i].file.number
    return 0


cdef Apart plan_apart(Store store, MemTable** tables, int count):
    """None: all values go into the table."""
    cdef Apart apart = Apart.__new__(Apart)
    cdef PodVector[Share] shares
    cdef JobInput input
    cdef Home home
    cdef const Place* given
    cdef uint64_t live = 0
    cdef uint64_t all = 0
    cdef size_t j
    cdef int i, result
    if store.value_bytes == 0 or store.log is None:
        return None
    for i in range(count - 1, -1, -1):
        given = <const Place*> tables[i].places.data
        for j in range(tables[i].places.size // sizeof(Place)):
            if apart.places.push(given[j], kv_realloc) < 0:
                raise MemoryError("no memory for a flush")
    if apart.places.empty():
        return None
    memset(&input, 0, sizeof(JobInput))
    result = 0
    for i in range(count):
        result = min(result, job_input_add(&input, memtable_cursor(tables[i]), True))
    with nogil:
        if result == 0:
            result = survey_places(&input, &apart.places, &shares, &live, &all)
        job_input_free(&input)
    if result < 0:
        raise MemoryError("no memory for a flush")
    for j in range(shares.size()):
        home.segment = shares[j].segment
        home.number = adopted_number(store, home.segment)
        # Mostly other things, or what was written over since: all of the segment would be kept.
        if home.number == 0 and (
            2 * live < all or LEAST_PART_KEPT * shares[j].bytes < min(all, store.log.file.segment_bytes)
        ):
            continue
        if apart.homes.push(home, kv_realloc) < 0:
            raise MemoryError("no memory for a flush")
    return None if apart.homes.empty() else apart


cdef Apart keep_apart(Store store, MemTable** tables, int count):
    cdef Apart apart = plan_apart(store, tables, count)
    if apart is None:
        return None
    try:
        # So that a segment has its file, and the values are there before anything points to them.
        store.log.sync()
    except Exception as error:
        if store.log_has_failed() or not is_retryable(error):
            store.fail(error)
        raise
    return apart if name_homes(store, apart) else None


cdef bint name_homes(Store store, Apart apart) except -1:
    """Value files of the segments. Where there can't be any it is False, and none is tried from then on."""
    cdef Adopted adopted
    cdef Home* home
    cdef size_t i
    if store.adopted.reserve(apart.homes.size(), kv_realloc) < 0:
        raise MemoryError("no memory for value files")
    for i in range(apart.homes.size()):
        home = &apart.homes[i]
        if home.number:
            continue
        home.number = counter_next(&store.next_number)
        # From here on its file is not to be used again, whatever becomes of the name.
        store.log.share(home.segment, True)
        try:
            link_file(
                store.disk, segment_name(f"{store.path}/{LOG_DIRECTORY}", home.segment),
                f"{store.path}/{home.number:06d}.val",
            )
        except StorageError as error:
            if error.errno not in NO_SECOND_NAME:
                raise
            store.value_bytes = 0
            return False
        adopted.segment = home.segment
        adopted.file = value_file_get(store.tables, home.number)
        if adopted.file == NULL:
            raise MemoryError("no memory for value files")
        value_file_want(store.tables, adopted.file)
        store.adopted.push_reserved(adopted)
    return True


cdef int let_go_of_homes(Store store) except -1:
    cdef Adopted adopted
    cdef size_t i = store.adopted.size()
    cdef uint64_t first
    if i == 0:
        return 0
    first = store.log.oldest_segment()
    while i > 0:
        i -= 1
        adopted = store.adopted[i]
        if adopted.segment >= first:
            continue
        store.adopted.remove(i)
        value_file_unwant(store.tables, adopted.file)
        with nogil:
            value_file_release(store.tables, adopted.file)
        store.version_changes += 1
    return 0


cdef void drop_homes(Store store) noexcept:
    cdef size_t i
    for i in range(store.adopted.size()):
        value_file_release(store.tables, store.adopted[i].file)
    store.adopted.clear()


# --- emptying -------------------------------------------------------------------------------

cdef dict living_values(Store store, set damaged):
    """Of each value file that tables point into, how many bytes of values; and which can't be emptied."""
    cdef LiveTable* file
    cdef dict living = {}
    cdef int level, i
    cdef size_t j
    for level in range(LEVELS):
        for i in range(store.version.levels[level].count):
            file = store.version.levels[level].files[i]
            for j in range(file.values_count):
                number = file.values[j].file.number
                living[number] = living.get(number, 0) + file.values[j].bytes
                if file.values[j].file.damaged:
                    damaged.add(number)
    return living


cdef object size_of_values(Store store, uint64_t number):
    """Bytes of a value file that doesn't grow any more; None: it can't be told now."""
    cdef Status status
    cdef uint64_t size = 0
    cdef int result
    known = store.value_sizes.get(number)
    if known is not None:
        return known
    status_clear(&status)
    with nogil:
        result = value_file_size(store.tables, number, &size, &status)
    if result < 0:
        return None
    store.value_sizes[number] = size
    return size


cdef int survey_values(Store store) except -1:
    cdef uint64_t change = store.version_changes
    cdef size_t i
    if store.values_surveyed == change:
        return 0
    damaged = set()
    living = living_values(store, damaged)
    log_has = {store.adopted[i].file.number for i in range(store.adopted.size())}
    poor = []
    for number in sorted(living):
        if number in log_has or number in damaged:
            continue
        size = size_of_values(store, number)
        # A fresh one has its header and what is alive: it must never count as poor, or it were emptied for ever.
        if size is not None and 2 * living[number] + SEGMENT_HEADER_BYTES < size:
            poor.append(number)
    for number in store.value_sizes.keys() - living.keys():
        del store.value_sizes[number]
    if store.emptying.resize(len(poor), kv_realloc) < 0:
        raise MemoryError("no memory for value files")
    for i in range(store.emptying.size()):
        store.emptying[i] = poor[i]
    store.values_surveyed = change
    return 0


cdef bint points_into(LiveTable* file, PodVector[uint64_t]* numbers) noexcept:
    cdef size_t i, j
    for i in range(file.values_count):
        for j in range(numbers.size()):
            if numbers[0][j] == file.values[i].file.number:
                return True
    return False


cdef tuple value_totals(Store store):
    cdef size_t i
    living = living_values(store, set())
    log_has = {store.adopted[i].file.number for i in range(store.adopted.size())}
    total = sum((size_of_values(store, number) or 0) for number in living if number not in log_has)
    return len(living), sum(living.values()), total
