"""A tournament over the sources of a job: see job_input.pxd.

A tree of losers (Knuth, volume 3, §5.4.1): each match between two sources keeps who lost it, so that
after the winner has moved it plays against the losers on its own way up alone. A source's *code* orders
its key against the others by how they differ from the last key that was shown, below which none of
them is (offset-value coding: Conner, IBM TDB 20(7), 1977; Do and Graefe, TODS 48(1), 2022): the more
of that key it begins with, the earlier it comes, and of two that share as much the next bytes decide.
The tables know what neighbouring keys share, so a match is a comparison of two numbers nearly always.

    bits 63 to 48   SHARED_MOST less the bytes of its user key that are also those of the last key shown
    bits 47 to 0    the six bytes after them, big-endian, zeros past its end

All ones: the source is at its end. Equal codes say nothing: then keys are compared from there on.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    Cursor,
    OK,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    common_prefix,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_realloc,
    slice_of,
    status_clear,
    status_no_memory,
    trailer_sequence,
)
from kvstore._engine.table.native cimport (
    ScanEntry,
    Table,
    TableScan,
    table_release,
    table_scan,
    table_scan_first,
    table_scan_free,
    table_scan_next,
    table_scan_seek,
)


cdef extern from *:
    """
    #define kv_leading_zero_bytes(word) (__builtin_clzll(word) >> 3)
    """
    # Of slice.pxd.
    uint64_t word_big_endian "kv_word_big_endian"(const uint8_t* at) noexcept nogil
    int leading_zero_bytes "kv_leading_zero_bytes"(uint64_t word) noexcept nogil


cdef enum:
    # Of a table that are read at a time: what all sources share, within these bounds. A thread's malloc
    # keeps what it had at once, so few large windows or many small ones.
    WINDOWS_BYTES = 1 << 19
    SMALLEST_WINDOW_BYTES = 1 << 16
    LARGEST_WINDOW_BYTES = 1 << 18


# --- codes ----------------------------------------------------------------------------------

cdef inline uint64_t code_of(Slice key, size_t shared) noexcept nogil:
    """Of an internal key, whose trailer makes room for reading eight bytes from any place."""
    cdef size_t offset = shared if shared < SHARED_MOST else SHARED_MOST
    cdef size_t rest = key.size - TRAILER_BYTES - offset
    cdef uint64_t bytes_after = word_big_endian(key.data + offset)
    if rest < 6:
        # Without the trailer's.
        bytes_after &= ~(<uint64_t> -1 >> (8 * rest))
    return ((<uint64_t> SHARED_MOST - offset) << 48) | (bytes_after >> 16)


cdef inline size_t offset_of_code(uint64_t code) noexcept nogil:
    return SHARED_MOST - <size_t> (code >> 48)


cdef bint first_of_equals(JobSource* sources, int a, int b, size_t offset) noexcept nogil:
    """Whether `a` comes before `b`, which have the same code; the loser gets a new one."""
    cdef Slice left = internal_user_key(sources[a].entry.key)
    cdef Slice right = internal_user_key(sources[b].entry.key)
    cdef size_t shared = offset + common_prefix(
        left.data + offset, left.size - offset, right.data + offset, right.size - offset
    )
    cdef uint64_t own, other
    cdef bint first
    if shared == left.size or shared == right.size:
        if left.size != right.size:
            first = left.size < right.size
        else:
            own = trailer_sequence(internal_trailer(sources[a].entry.key))
            other = trailer_sequence(internal_trailer(sources[b].entry.key))
            first = own > other if own != other else a < b
    else:
        first = left.data[shared] < right.data[shared]
    if first:
        sources[b].code = code_of(sources[b].entry.key, shared)
    else:
        sources[a].code = code_of(sources[a].entry.key, shared)
    return first


cdef inline bint comes_first(JobSource* sources, int a, int b) noexcept nogil:
    """Whether `a` comes before `b`. The loser's code is from here on that against the winner's key."""
    cdef uint64_t own = sources[a].code
    cdef uint64_t other = sources[b].code
    cdef uint64_t differ = own ^ other
    cdef int winner, loser
    cdef size_t more, rest
    if differ == 0:
        if own == <uint64_t> -1:
            return a < b
        return first_of_equals(sources, a, b, offset_of_code(own))
    if differ >> 48 == 0:
        # They may share some of these bytes with each other; no more than the lesser one has.
        more = <size_t> leading_zero_bytes(differ) - 2
        if more:
            winner, loser = (a, b) if own < other else (b, a)
            rest = sources[winner].entry.key.size - TRAILER_BYTES - offset_of_code(own)
            sources[loser].code = code_of(
                sources[loser].entry.key, offset_of_code(own) + (more if more < rest else rest)
            )
    return own < other


# --- sources --------------------------------------------------------------------------------

cdef inline bint show_scanned(JobSource* source) noexcept nogil:
    source.entry = source.scan.at if source.scan.valid else NULL
    return source.scan.valid


cdef inline size_t window_bytes(JobInput* input) noexcept nogil:
    return max(
        <size_t> SMALLEST_WINDOW_BYTES,
        min(<size_t> LARGEST_WINDOW_BYTES, <size_t> (WINDOWS_BYTES // input.count)),
    )


cdef int scan_file(JobInput* input, JobSource* source, int at) noexcept nogil:
    """A scan of that table, which stands nowhere yet, in place of the one before. -1: see status."""
    cdef Table* table = live_table_open(source.files[at], &input.status)
    if table == NULL:
        return -1
    table_scan_free(source.scan)
    source.scan = table_scan(table, window_bytes(input))
    table_release(table)
    if source.scan == NULL:
        return status_no_memory(&input.status, b"memory for a table")
    source.at = at
    return 0


cdef int scan_failed(JobInput* input, JobSource* source) noexcept nogil:
    """-1 if a move failed and not just came to the table's end."""
    if source.scan.status.code == OK:
        return 0
    input.status = source.scan.status
    return -1


cdef int scan_files_from(JobInput* input, JobSource* source, int at) noexcept nogil:
    """Stands on the first entry of the tables from this one on, if any. -1: see status."""
    source.entry = NULL
    while at < source.count:
        if scan_file(input, source, at) < 0:
            return -1
        table_scan_first(source.scan)
        if show_scanned(source):
            return 0
        if scan_failed(input, source) < 0:
            return -1
        at += 1
    return 0


cdef inline int copy_key(JobInput* input, JobSource* source, Slice key) noexcept nogil:
    source.before.size = 0
    if buffer_append(&source.before, key.data, key.size) < 0:
        return status_no_memory(&input.status, b"memory for a key")
    return 0


cdef inline size_t user_key_shared(Slice a, Slice b) noexcept nogil:
    return common_prefix(a.data, a.size - TRAILER_BYTES, b.data, b.size - TRAILER_BYTES)


cdef int next_file(JobInput* input, JobSource* source) noexcept nogil:
    """The scan is at the end of its table."""
    if scan_failed(input, source) < 0:
        return -1
    if source.at + 1 == source.count:
        return 0
    if copy_key(input, source, source.scan.at.key) < 0:
        return -1
    if scan_files_from(input, source, source.at + 1) < 0:
        return -1
    if source.entry != NULL:
        # Of a table's first entry the scan knows nothing.
        source.shown = source.entry[0]
        source.shown.shared = user_key_shared(
            slice_of(source.before.data, source.before.size), source.entry.key
        )
        source.entry = &source.shown
    return 0


cdef inline int show_cursor(JobInput* input, JobSource* source) noexcept nogil:
    cdef Cursor* cursor = source.cursor
    source.entry = NULL
    if cursor.valid:
        source.shown.key = cursor.key
        source.shown.value = cursor.value
        source.shown.shared = 0
        source.entry = &source.shown
    elif cursor.status.code != OK:
        input.status = cursor.status
        return -1
    return 0


cdef int step_cursor(JobInput* input, JobSource* source) noexcept nogil:
    cdef Slice last = source.shown.key
    if not source.lasting:
        if copy_key(input, source, last) < 0:
            return -1
        last = slice_of(source.before.data, source.before.size)
    source.cursor.next(source.cursor)
    if show_cursor(input, source) < 0:
        return -1
    if source.entry != NULL:
        source.shown.shared = user_key_shared(last, source.shown.key)
    return 0


cdef inline int step_source(JobInput* input, JobSource* source) noexcept nogil:
    """From an entry to the one after it. -1: see status."""
    if source.cursor != NULL:
        return step_cursor(input, source)
    table_scan_next(source.scan)
    return 0 if show_scanned(source) else next_file(input, source)


cdef int seek_source(JobInput* input, JobSource* source, Slice target) noexcept nogil:
    cdef Level level
    cdef int at
    if source.cursor != NULL:
        source.cursor.seek(source.cursor, target)
        return show_cursor(input, source)
    level.files = source.files
    level.count = source.count
    at = level_find(&level, internal_user_key(target))
    source.entry = NULL
    if at == source.count:
        return 0
    if at != source.at and scan_file(input, source, at) < 0:
        return -1
    table_scan_seek(source.scan, target)
    if show_scanned(source):
        return 0
    return -1 if scan_failed(input, source) < 0 else scan_files_from(input, source, at + 1)


# --- the tournament -------------------------------------------------------------------------

cdef inline void begin_code(JobSource* source) noexcept nogil:
    source.code = <uint64_t> -1
    if source.entry != NULL:
        source.code = code_of(source.entry.key, source.entry.shared)


cdef inline void show_winner(JobInput* input, size_t shared) noexcept nogil:
    input.at = input.sources[input.winner].entry
    input.shared = shared


cdef void play_all(JobInput* input) noexcept nogil:
    """Every match anew, after any of the sources was placed."""
    cdef int count = input.count
    cdef int* losers = input.losers
    cdef int* winners = losers + count      # of the matches and, behind them, of the leaves
    cdef int i
    cdef bint first
    input.winner = 0
    if count > 1:
        for i in range(count):
            winners[count + i] = i
            input.sources[i].code = <uint64_t> -1
            if input.sources[i].entry != NULL:
                input.sources[i].code = code_of(input.sources[i].entry.key, 0)
        for i in range(count - 1, 0, -1):
            first = comes_first(input.sources, winners[2 * i], winners[2 * i + 1])
            winners[i] = winners[2 * i + (0 if first else 1)]
            losers[i] = winners[2 * i + (1 if first else 0)]
        input.winner = winners[1]


cdef void job_input_first(JobInput* input) noexcept nogil:
    cdef JobSource* source
    cdef int i, result
    status_clear(&input.status)
    input.at = NULL
    for i in range(input.count):
        source = &input.sources[i]
        if source.cursor != NULL:
            source.cursor.seek_to_first(source.cursor)
            result = show_cursor(input, source)
        else:
            result = scan_files_from(input, source, 0)
        if result < 0:
            return
    if input.count:
        play_all(input)
        show_winner(input, 0)


cdef void job_input_next(JobInput* input) noexcept nogil:
    cdef JobSource* sources = input.sources
    cdef int count = input.count
    cdef int winner = input.winner
    cdef int match, other
    cdef size_t shared
    if step_source(input, &sources[winner]) < 0:
        input.at = NULL
        return
    if count == 1:
        shared = sources[0].entry.shared if sources[0].entry != NULL else 0
        show_winner(input, shared)
        return
    begin_code(&sources[winner])
    match = (count + winner) >> 1
    while match:
        other = input.losers[match]
        if comes_first(sources, other, winner):
            input.losers[match] = winner
            winner = other
        match >>= 1
    input.winner = winner
    shared = offset_of_code(sources[winner].code)
    show_winner(input, shared if shared < SHARED_MOST else shared_unknown())


cdef bint job_input_skip(JobInput* input, int newest, Slice target) noexcept nogil:
    cdef JobSource* source
    cdef bint skipped = False
    cdef int i
    for i in range(newest + 1, input.count):
        source = &input.sources[i]
        if source.entry == NULL or internal_compare(source.entry.key, target) >= 0:
            continue
        skipped = True
        if seek_source(input, source, target) < 0:
            input.at = NULL
            return True
    if skipped:
        play_all(input)
        show_winner(input, shared_unknown())
    return skipped


# --- life -----------------------------------------------------------------------------------

cdef JobSource* add_source(JobInput* input) noexcept nogil:
    """All zero. NULL: no memory."""
    cdef JobSource* source
    cdef int* losers
    if not grow(
        <void**> &input.sources, &input.capacity, input.count, sizeof(JobSource)
    ):
        return NULL
    losers = <int*> kv_realloc(input.losers, 3 * (<size_t> input.count + 1) * sizeof(int))
    if losers == NULL:
        return NULL
    input.losers = losers
    source = &input.sources[input.count]
    memset(source, 0, sizeof(JobSource))
    input.count += 1
    return source


cdef int job_input_add(JobInput* input, Cursor* cursor, bint lasting) noexcept nogil:
    cdef JobSource* source
    if cursor == NULL:
        return -1
    source = add_source(input)
    if source == NULL:
        cursor.free(cursor)
        return -1
    source.cursor = cursor
    source.lasting = lasting
    return 0


cdef int job_input_add_tables(JobInput* input, LiveTable** files, int count) noexcept nogil:
    cdef JobSource* source = add_source(input)
    if source == NULL:
        return -1
    source.files = files
    source.count = count
    return 0


cdef void job_input_free(JobInput* input) noexcept nogil:
    cdef JobSource* source
    cdef int i
    for i in range(input.count):
        source = &input.sources[i]
        if source.cursor != NULL:
            source.cursor.free(source.cursor)
        table_scan_free(source.scan)
        buffer_free(&source.before)
    kv_free(input.sources)
    kv_free(input.losers)
    memset(input, 0, sizeof(JobInput))
