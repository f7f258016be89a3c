"""The entries that a user sees at one sequence: newest visible versions, without what was deleted."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Buffer, Cursor, Slice, Status


cdef struct UserCursor:
    # Stands on an entry within [low, high), or is not `valid`.
    bint valid
    Slice key                   # user key; borrowed until the next move
    Slice value
    Cursor* merged              # owned
    RangeCover* cover           # owned; NULL: no range was deleted in what `merged` walks
    uint64_t sequence           # what is newer is not seen
    bint forward                # `merged` stands on the entry; else before all versions of it
    bint bounded_low
    bint bounded_high
    Buffer low                  # included
    Buffer high                 # not included
    Buffer current_key          # the key stood on, or being passed over
    Buffer current_value        # the value stood on, while going backward
    uint64_t current_sequence   # its sequence
    Buffer target
    uint64_t passed             # entries that moves went over and didn't show, in all
    # After passing over so many entries a move pauses: it stands nowhere, is `paused`, and user_resume
    # goes on with it. 0: never. For whoever must let others in, or may have to give up.
    uint64_t patience
    bint paused
    bint passing                # of a paused move forward: `current_key` is done
    Status status


# Takes ownership of `merged`, whose sources the caller keeps, and of `cover`, that of the same sources at
# the same sequence. NULL bounds: none. -1: out of memory; to be closed all the same.
cdef int user_cursor_open(
    UserCursor* cursor, Cursor* merged, RangeCover* cover, uint64_t sequence, const Slice* low,
    const Slice* high
) noexcept nogil
cdef void user_cursor_close(UserCursor* cursor) noexcept nogil
# Other bounds, NULL data: none. It stands nowhere then. -1: out of memory.
cdef int user_narrow(UserCursor* cursor, Slice low, Slice high) noexcept nogil
cdef void user_seek_to_first(UserCursor* cursor) noexcept nogil
cdef void user_seek_to_last(UserCursor* cursor) noexcept nogil
# The first entry >= key. A key outside the bounds is moved to the nearer one.
cdef void user_seek(UserCursor* cursor, Slice key) noexcept nogil
# The last entry < key.
cdef void user_seek_before(UserCursor* cursor, Slice key) noexcept nogil
cdef void user_next(UserCursor* cursor) noexcept nogil
# On with a move that is paused.
cdef void user_resume(UserCursor* cursor) noexcept nogil
# The sequence of the entry stood on.
cdef uint64_t user_sequence(UserCursor* cursor) noexcept nogil
cdef void user_prev(UserCursor* cursor) noexcept nogil
