"""Which errors go away by themselves, when to try again, and the space kept for that day."""

from kvstore._engine.files.native cimport FileSystem


# The system lacked space, descriptors or memory: nothing is wrong with what is on disk.
cdef bint is_retryable(object error)
cdef bint is_lack_of_space(object error)
cdef bint is_lack_of_descriptors(object error)


cdef class Retry:
    """One kind of background work that failed and is to be tried again. Under the GIL."""
    cdef readonly object error      # of the last try; None: it went well
    cdef double delay_seconds       # before the next try
    cdef int pass_over              # so many occasions
    cdef double due                 # when that is, by the monotonic clock

    cdef int failed(self, object error) except -1
    cdef int succeeded(self) except -1
    cdef int passed_over            # occasions without a try since then, for those without threads
    # Until the next try; 0: at once.
    cdef double seconds_left(self) except -1
    # Whether to try on this occasion: the second, fourth ... 65th after the last failure. Not by the
    # clock, so that who runs without threads does the same each time.
    cdef bint due_here(self) noexcept


# Takes the reserve's space where it isn't taken; False if it can't be had.
cdef bint take_reserve(FileSystem disk, str directory)
# The disk has more than what the reserve is kept for.
cdef bint has_room(FileSystem disk, str directory)
# Gives it back to the disk; False where there was none.
cdef bint release_reserve(FileSystem disk, str directory)
