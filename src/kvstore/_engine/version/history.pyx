"""Finding the range that a key lies in: see history.pxd."""

from kvstore._engine.primitives.native cimport Slice, slice_compare


cdef size_t range_from(const HistoryKeys* keys, Slice user_key) noexcept nogil:
    """The first range that doesn't end at or before the key."""
    cdef size_t first = 0
    cdef size_t end = keys.count
    cdef size_t middle
    while first < end:
        middle = (first + end) >> 1
        if keys.ranges[middle].high.data != NULL and (
            slice_compare(keys.ranges[middle].high, user_key) <= 0
        ):
            first = middle + 1
        else:
            end = middle
    return first


cdef bint history_reaches(const HistoryKeys* keys, Slice low, Slice high) noexcept nogil:
    cdef size_t at
    if keys == NULL:
        return True
    at = range_from(keys, low)
    return at < keys.count and slice_compare(keys.ranges[at].low, high) <= 0


cdef bint has_history(const HistoryKeys* keys, Slice user_key) noexcept nogil:
    return history_reaches(keys, user_key, user_key)
