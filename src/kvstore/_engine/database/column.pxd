"""Columns: rows of keys or values in arrays. See kvstore.engine.bulk for what is one."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t

from kvstore._engine.primitives.native cimport Buffer, Slice


cdef enum:
    # Why a row wasn't taken.
    NO_MEMORY = -1
    MISFIT = -2

cdef enum Layout:
    FIXED                       # each row the same number of bytes
    PADDED                      # the same, less the zero bytes at its end (NumPy's 'S')
    RUNS                        # rows one after another, and where each begins


cdef class Column:
    """The rows of an array, or of a pair (data, offsets). Holds the buffers."""
    cdef Py_buffer data
    cdef Py_buffer offsets
    cdef bint data_held
    cdef bint offsets_held
    cdef int layout
    cdef size_t width           # FIXED, PADDED
    cdef bint narrow            # offsets of 32 bits
    cdef Py_ssize_t rows
    cdef str what
    cdef int open_buffer(self, object given, Py_buffer* view, str part) except -1
    cdef int open_array(self, object given) except -1
    cdef int open_runs(self, object data, object offsets) except -1
    cdef int64_t offset(self, Py_ssize_t row) noexcept nogil
    # -1 where the offsets say nonsense (checked each time: another thread may write them).
    cdef int row(self, Py_ssize_t row, Slice* found) noexcept nogil
    # That each row can be read, and with `more` bytes before it is no longer than `most`.
    cdef int check(self, size_t more, size_t most) except -1


cdef class Memory:
    """Bytes that arrays are made of without a copy."""
    cdef Buffer bytes


cdef class Sink:
    """Takes one row after another: into an array of fixed width, or as data and offsets."""
    cdef Py_buffer array
    cdef bint held
    cdef size_t width
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t rows
    cdef Slice refused          # by put; only its size still means something
    cdef Py_ssize_t refused_row
    cdef readonly Memory data
    cdef readonly Memory offsets
    cdef int put(self, Py_ssize_t row, Slice value) noexcept nogil
    cdef void blank(self, Py_ssize_t row) noexcept nogil
    cdef int take(self, Slice value) noexcept nogil
    # The error for a row that wasn't taken.
    cdef object refusal(self, int code, str what)
