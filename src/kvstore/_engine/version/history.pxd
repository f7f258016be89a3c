"""Which keys have a history: of whose versions `retain_from` keeps what readers of the past would see.

Any thread, no GIL; nothing changes once it is made.
"""

from kvstore._engine.primitives.native cimport Slice


cdef struct KeyRange:
    Slice low                   # user keys
    Slice high                  # not included; NULL data: no bound


cdef struct HistoryKeys:
    # Ascending, apart from each other. Whoever gave the keys keeps them.
    KeyRange* ranges
    size_t count


# NULL stands for all keys.
cdef bint has_history(const HistoryKeys* keys, Slice user_key) noexcept nogil
# Whether a key of [low, high] may have one.
cdef bint history_reaches(const HistoryKeys* keys, Slice low, Slice high) noexcept nogil
