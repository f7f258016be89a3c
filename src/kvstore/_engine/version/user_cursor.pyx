"""Resolving versions: from all internal entries in order to what one moment's reader sees."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    Cursor,
    KIND_DELETE,
    KIND_MAX,
    OK,
    Slice,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    internal_trailer,
    internal_user_key,
    max_sequence,
    slice_compare,
    slice_equal,
    slice_of,
    status_clear,
    status_no_memory,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
)


cdef enum:
    STEPS_MAX = 8               # over versions of one key that aren't shown, before a seek past them


cdef inline Slice held(Buffer* buffer) noexcept nogil:
    return slice_of(buffer.data, buffer.size)


cdef inline bint hold(UserCursor* cursor, Buffer* buffer, Slice what) noexcept nogil:
    """False, with the cursor failed, where there is no memory."""
    if what.size <= buffer.capacity:
        # The common case, without a call: the buffer has seen a key of this size before.
        if what.size:
            memcpy(buffer.data, what.data, what.size)
        buffer.size = what.size
        return True
    buffer.size = 0
    if buffer_append(buffer, what.data, what.size) == 0:
        return True
    cursor.valid = False
    status_no_memory(&cursor.status, b"memory for a cursor")
    return False


cdef int user_cursor_open(
    UserCursor* cursor, Cursor* merged, RangeCover* cover, uint64_t sequence, const Slice* low,
    const Slice* high
) noexcept nogil:
    memset(cursor, 0, sizeof(UserCursor))
    status_clear(&cursor.status)
    cursor.merged = merged
    cursor.cover = cover
    cursor.sequence = sequence
    if low != NULL:
        cursor.bounded_low = True
        if not hold(cursor, &cursor.low, low[0]):
            return -1
    if high != NULL:
        cursor.bounded_high = True
        if not hold(cursor, &cursor.high, high[0]):
            return -1
    return 0


cdef void user_cursor_close(UserCursor* cursor) noexcept nogil:
    if cursor.merged != NULL:
        cursor.merged.free(cursor.merged)
        cursor.merged = NULL
    cover_close(cursor.cover)
    cursor.cover = NULL
    cursor.valid = False
    buffer_free(&cursor.low)
    buffer_free(&cursor.high)
    buffer_free(&cursor.current_key)
    buffer_free(&cursor.current_value)
    buffer_free(&cursor.target)


cdef int user_narrow(UserCursor* cursor, Slice low, Slice high) noexcept nogil:
    cursor.valid = cursor.paused = False
    cursor.bounded_low = low.data != NULL
    cursor.bounded_high = high.data != NULL
    cursor.low.size = cursor.high.size = 0
    if buffer_append(&cursor.low, low.data, low.size) < 0:
        return -1
    return buffer_append(&cursor.high, high.data, high.size)


cdef inline void end(UserCursor* cursor) noexcept nogil:
    cursor.valid = False
    if cursor.merged.status.code != OK:
        cursor.status = cursor.merged.status


cdef inline uint64_t patient_until(UserCursor* cursor) noexcept nogil:
    """At so many entries passed over the move under way pauses."""
    return cursor.passed + cursor.patience if cursor.patience else max_sequence()


cdef inline void pause(UserCursor* cursor) noexcept nogil:
    cursor.valid = False
    cursor.paused = True


cdef bint aim(UserCursor* cursor, Slice user_key, uint64_t sequence) noexcept nogil:
    """The internal key before all versions that are no newer, into `target`. False: failed."""
    cdef uint64_t trailer = trailer_pack(sequence, KIND_MAX)
    if not hold(cursor, &cursor.target, user_key):
        return False
    if buffer_append(&cursor.target, &trailer, TRAILER_BYTES) < 0:
        status_no_memory(&cursor.status, b"memory for a cursor")
        return False
    return True


cdef void seek_merged(UserCursor* cursor, Slice user_key, uint64_t sequence) noexcept nogil:
    if aim(cursor, user_key, sequence):
        cursor.merged.seek(cursor.merged, held(&cursor.target))


# --- range tombstones -----------------------------------------------------------------------

cdef inline bint is_covered(UserCursor* cursor, Slice user_key, uint64_t sequence) noexcept nogil:
    """Whether a range tombstone hides this version; on failure the status says so."""
    if cover_find(cursor.cover, user_key, &cursor.status) < 0:
        cursor.valid = False
        return False
    return cursor.cover.newest != NULL and cursor.cover.newest.sequence > sequence


cdef void pass_covered(UserCursor* cursor, int covered) noexcept nogil:
    """On from a version that a range tombstone hides; `covered` so many were in this move.

    The sources that are older than the tombstone's have nothing else in its range: after a few
    steps these are brought to its other end.
    """
    cdef const RangeTombstone* over = cursor.cover.newest
    cdef int source = cursor.cover.child
    cdef Cursor* merged = cursor.merged
    if covered % STEPS_MAX == 0:
        if not aim(cursor, over.stop if cursor.forward else over.start, max_sequence()):
            cursor.valid = False
            return
        if merge_skip_forward(merged, source, held(&cursor.target)) if cursor.forward else (
            merge_skip_back(merged, source, held(&cursor.target))
        ):
            return
    if cursor.forward:
        merged.next(merged)
    else:
        merged.prev(merged)


# --- forward --------------------------------------------------------------------------------

cdef void settle_forward(UserCursor* cursor, bint passing) noexcept nogil:
    """From where `merged` stands, the next entry to be seen. With `passing`, `current_key` is done."""
    cdef Cursor* merged = cursor.merged
    cdef Slice user_key
    cdef uint64_t trailer
    cdef int passed = 0
    cdef int unseen = 0
    cdef int covered = 0
    cdef uint64_t until = patient_until(cursor)
    while merged.valid:
        if cursor.passed >= until:
            cursor.passing = passing
            pause(cursor)
            return
        user_key = internal_user_key(merged.key)
        if passing and slice_equal(user_key, held(&cursor.current_key)):
            cursor.passed += 1
            passed += 1
            if passed == STEPS_MAX:
                # A key that is often written has many: past all of them but the very first.
                seek_merged(cursor, held(&cursor.current_key), 0)
                if cursor.status.code != OK:
                    cursor.valid = False
                    return
            else:
                merged.next(merged)
            continue
        passed = 0
        trailer = internal_trailer(merged.key)
        if trailer_sequence(trailer) > cursor.sequence:
            cursor.passed += 1
            unseen += 1
            if unseen % STEPS_MAX == 0:
                seek_merged(cursor, user_key, cursor.sequence)
                if cursor.status.code != OK:
                    cursor.valid = False
                    return
            else:
                merged.next(merged)
            continue
        if cursor.bounded_high and slice_compare(user_key, held(&cursor.high)) >= 0:
            cursor.valid = False
            return
        if not hold(cursor, &cursor.current_key, user_key):
            return
        passing = True
        if trailer_kind(trailer) == KIND_DELETE:
            cursor.passed += 1
            merged.next(merged)
            continue
        if cursor.cover != NULL:
            if is_covered(cursor, user_key, trailer_sequence(trailer)):
                cursor.passed += 1
                covered += 1
                pass_covered(cursor, covered)
                if cursor.status.code == OK:
                    continue
            if cursor.status.code != OK:
                return
        cursor.key = user_key
        cursor.value = merged.value
        cursor.valid = True
        return
    end(cursor)


cdef inline bint shows_next(UserCursor* cursor) noexcept nogil:
    """Whether `merged` was moved onto the one version of the next key, a value, as mostly; then it is shown."""
    cdef Cursor* merged = cursor.merged
    cdef Slice user_key
    cdef uint64_t trailer
    if not merged.valid or cursor.cover != NULL:
        return False
    user_key = internal_user_key(merged.key)
    trailer = internal_trailer(merged.key)
    if (
        trailer_sequence(trailer) > cursor.sequence
        or trailer_kind(trailer) == KIND_DELETE
        or user_key.size > cursor.current_key.capacity
        or slice_equal(user_key, held(&cursor.current_key))
        or (cursor.bounded_high and slice_compare(user_key, held(&cursor.high)) >= 0)
    ):
        return False
    hold(cursor, &cursor.current_key, user_key)
    cursor.key = user_key
    cursor.value = merged.value
    return True


cdef void user_seek_to_first(UserCursor* cursor) noexcept nogil:
    status_clear(&cursor.status)
    cursor.paused = False
    cursor.forward = True
    cursor.valid = False
    if cursor.bounded_low:
        seek_merged(cursor, held(&cursor.low), max_sequence())
    else:
        cursor.merged.seek_to_first(cursor.merged)
    if cursor.status.code == OK:
        settle_forward(cursor, False)


cdef void user_seek(UserCursor* cursor, Slice key) noexcept nogil:
    if cursor.bounded_low and slice_compare(key, held(&cursor.low)) < 0:
        user_seek_to_first(cursor)
        return
    status_clear(&cursor.status)
    cursor.paused = False
    cursor.forward = True
    cursor.valid = False
    seek_merged(cursor, key, cursor.sequence)
    if cursor.status.code == OK:
        settle_forward(cursor, False)


cdef void user_next(UserCursor* cursor) noexcept nogil:
    cdef Cursor* merged = cursor.merged
    if not cursor.valid:
        return
    if not cursor.forward:
        # `merged` stands before all versions of the current key; but what is under range tombstones
        # may lie between, where it was skipped.
        cursor.forward = True
        if merged.valid and cursor.cover == NULL:
            merged.next(merged)
        else:
            seek_merged(cursor, held(&cursor.current_key), max_sequence())
        if cursor.status.code != OK:
            cursor.valid = False
            return
    else:
        merged.next(merged)
        if shows_next(cursor):
            return
    settle_forward(cursor, True)


cdef void user_resume(UserCursor* cursor) noexcept nogil:
    if cursor.paused:
        cursor.paused = False
        if cursor.forward:
            settle_forward(cursor, cursor.passing)
        else:
            settle_backward(cursor)


cdef uint64_t user_sequence(UserCursor* cursor) noexcept nogil:
    if not cursor.forward:
        return cursor.current_sequence
    # The key is the beginning of an internal one.
    return trailer_sequence(
        internal_trailer(slice_of(cursor.key.data, cursor.key.size + TRAILER_BYTES))
    )


# --- backward -------------------------------------------------------------------------------

cdef bint newest_visible(UserCursor* cursor, bint* found) noexcept nogil:
    """Of a key with many versions: takes the one to be shown, and moves `merged` before them all.

    False with the cursor failed.
    """
    cdef Cursor* merged = cursor.merged
    found[0] = False
    seek_merged(cursor, held(&cursor.current_key), cursor.sequence)
    if cursor.status.code != OK:
        return False
    if merged.valid and slice_equal(internal_user_key(merged.key), held(&cursor.current_key)):
        found[0] = trailer_kind(internal_trailer(merged.key)) != KIND_DELETE and not (
            cursor.cover != NULL and is_covered(
                cursor, held(&cursor.current_key), trailer_sequence(internal_trailer(merged.key))
            )
        )
        if cursor.status.code != OK:
            return False
        if found[0] and not hold(cursor, &cursor.current_value, merged.value):
            return False
        cursor.current_sequence = trailer_sequence(internal_trailer(merged.key))
    seek_merged(cursor, held(&cursor.current_key), max_sequence())
    if cursor.status.code != OK:
        return False
    if merged.valid:
        merged.prev(merged)
    return True


cdef void settle_backward(UserCursor* cursor) noexcept nogil:
    """From where `merged` stands, backwards: the next key whose newest visible version is a put.

    Versions come oldest first this way, so each one seen replaces the one before it, until the
    user key changes.
    """
    cdef Cursor* merged = cursor.merged
    cdef Slice user_key
    cdef uint64_t trailer
    cdef bint found = False
    cdef bint started = False
    cdef int versions = 0
    cdef int covered = 0
    cdef uint64_t until = patient_until(cursor)
    while merged.valid:
        user_key = internal_user_key(merged.key)
        if started and not slice_equal(user_key, held(&cursor.current_key)):
            if found:
                break
            started = False
            cursor.passed += versions
            versions = 0
            if cursor.passed >= until:
                pause(cursor)
                return
        if not started:
            if cursor.bounded_low and slice_compare(user_key, held(&cursor.low)) < 0:
                break
            if not hold(cursor, &cursor.current_key, user_key):
                return
            started = True
        versions += 1
        if versions == STEPS_MAX:
            if not newest_visible(cursor, &found):
                cursor.valid = False
                return
            continue
        trailer = internal_trailer(merged.key)
        if trailer_sequence(trailer) <= cursor.sequence:
            found = trailer_kind(trailer) != KIND_DELETE
            if found and cursor.cover != NULL:
                if is_covered(cursor, user_key, trailer_sequence(trailer)):
                    found = False
                    covered += 1
                    pass_covered(cursor, covered)
                    if cursor.status.code == OK:
                        continue
                if cursor.status.code != OK:
                    return
            if found and not hold(cursor, &cursor.current_value, merged.value):
                return
            cursor.current_sequence = trailer_sequence(trailer)
        merged.prev(merged)
    if merged.status.code != OK or not found:
        cursor.passed += versions
        end(cursor)
        return
    cursor.passed += versions - 1
    cursor.key = held(&cursor.current_key)
    cursor.value = held(&cursor.current_value)
    cursor.valid = True


cdef void user_seek_to_last(UserCursor* cursor) noexcept nogil:
    if cursor.bounded_high:
        user_seek_before(cursor, held(&cursor.high))
        return
    status_clear(&cursor.status)
    cursor.paused = False
    cursor.forward = False
    cursor.valid = False
    cursor.merged.seek_to_last(cursor.merged)
    settle_backward(cursor)


cdef void user_seek_before(UserCursor* cursor, Slice key) noexcept nogil:
    cdef Cursor* merged = cursor.merged
    if cursor.bounded_high and slice_compare(key, held(&cursor.high)) > 0:
        key = held(&cursor.high)
    status_clear(&cursor.status)
    cursor.paused = False
    cursor.forward = False
    cursor.valid = False
    seek_merged(cursor, key, max_sequence())
    if cursor.status.code != OK:
        return
    if merged.valid:
        merged.prev(merged)
    elif merged.status.code == OK:
        merged.seek_to_last(merged)
    settle_backward(cursor)


cdef void turn_backward(UserCursor* cursor) noexcept nogil:
    """Newer, unseen versions of the key may lie before the one stood on: past them all."""
    cdef Cursor* merged = cursor.merged
    cdef int passed = 0
    cursor.forward = False
    merged.prev(merged)
    while merged.valid and slice_equal(internal_user_key(merged.key), held(&cursor.current_key)):
        cursor.passed += 1
        passed += 1
        if passed % STEPS_MAX == 0:
            seek_merged(cursor, held(&cursor.current_key), max_sequence())
            if cursor.status.code != OK:
                cursor.valid = False
                return
        merged.prev(merged)
    settle_backward(cursor)


cdef void user_prev(UserCursor* cursor) noexcept nogil:
    if not cursor.valid:
        return
    if cursor.forward:
        turn_backward(cursor)
    else:
        settle_backward(cursor)
