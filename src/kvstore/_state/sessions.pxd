"""Sessions of clients, as kvstore.state.sessions keeps them, with words in an array of C."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    SESSION_RECORD_BYTES = 29           # before its words
    SESSION_RECORD_BYTES_MAX = 29 + 24 * SEQUENCES_OF_WINDOW
    SESSION_RECORD_VERSION = 1
    SESSION_RECORD_VERSION_ANSWERS = 2  # where one of the sequences was an operation
    SESSIONS_EXPIRED_MAX = 64

cdef class Session:
    cdef bytes name
    cdef uint64_t floor
    cdef uint64_t used_ms
    cdef uint64_t used_index            # entry and place in it of its last use
    cdef uint32_t used_place
    cdef uint32_t count                 # words in use; the first is the floor's
    cdef uint32_t capacity
    cdef uint64_t* words                # owned
    cdef uint32_t answered              # up to the last sequence that was an operation
    cdef uint64_t* answers              # owned; of each word two: revision and how many deleted
    cdef void advance(self, uint64_t floor) noexcept
    cdef uint64_t find(self, uint64_t sequence) noexcept
    cdef int remember(self, uint64_t sequence, uint64_t word) except -1
    cdef int take_answers(self, bytes answers) except -1
    cdef tuple parts(self)
    cdef size_t record(self, uint8_t* at) noexcept


cdef class Sessions:
    cdef uint64_t sessions_max, _idle_ms, spared_ms
    cdef dict open                      # name -> Session; the one that was idle longest first
    cdef Session newest                 # the last of them, if that is known
    cdef uint64_t none_due_before       # a time at which looking for idle ones is worth while
    # None if there is none (any more).
    cdef Session look(self, bytes name, uint64_t now_ms)
    cdef Session use(self, bytes name, uint64_t now_ms, uint64_t index, uint32_t place)
    # The names of sessions that are due, which are taken out; None for none.
    cdef list expire(self, uint64_t now_ms)
    # As make_room of the plain form.
    cdef object make_room(self, uint64_t now_ms)
    cdef bint begin(self, bytes name, uint64_t now_ms, uint64_t index, uint32_t place) except -1
