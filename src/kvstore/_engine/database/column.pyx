"""Columns: rows of keys or values in arrays, to be read and to be filled."""

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_WRITABLE,
    Py_buffer,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

from kvstore._engine.primitives.native cimport (
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    slice_of,
)

from kvstore.errors import InvalidArgumentError


@cython.no_gc_clear
cdef class Column:
    def __init__(self, given, str what):
        self.what = what
        if isinstance(given, tuple):
            if len(given) != 2:
                raise TypeError(f"{what} must be an array or a pair (data, offsets)")
            self.open_runs(given[0], given[1])
        else:
            self.open_array(given)

    def __dealloc__(self):
        if self.data_held:
            PyBuffer_Release(&self.data)
        if self.offsets_held:
            PyBuffer_Release(&self.offsets)

    cdef int open_buffer(self, object given, Py_buffer* view, str part) except -1:
        if not PyObject_CheckBuffer(given):
            raise TypeError(f"{part} must be an array, not {type(given).__name__}")
        try:
            PyObject_GetBuffer(given, view, PyBUF_ND | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except (BufferError, ValueError) as error:
            raise TypeError(f"{part} can't be read as one run of bytes: {error}") from None
        return 0

    cdef int open_array(self, object given) except -1:
        cdef bytes form
        self.open_buffer(given, &self.data, self.what)
        self.data_held = True
        form = self.data.format if self.data.format != NULL else b"B"
        if holds_objects(form):
            # Their addresses would be written, and mean nothing to who reads them.
            raise TypeError(f"{self.what}: an array of Python objects has no bytes to be written")
        if self.data.ndim == 2 and self.data.itemsize == 1:
            self.layout = FIXED
            self.rows = self.data.shape[0]
            self.width = <size_t> self.data.shape[1]
        elif self.data.ndim == 1 and form.endswith(b"s"):
            self.layout = PADDED
            self.rows = self.data.shape[0]
            self.width = <size_t> self.data.itemsize
        elif self.data.ndim == 1 and self.data.itemsize > 1 and not form.endswith(b"w"):
            self.layout = FIXED
            self.rows = self.data.shape[0]
            self.width = <size_t> self.data.itemsize
        else:
            raise TypeError(
                f"{self.what}: give a 2-D array of bytes, a 1-D array of 'S' or of another type "
                f"wider than a byte, or a pair (data, offsets); not {self.data.ndim}-D of "
                f"{form.decode()!r}"
            )
        return 0

    cdef int open_runs(self, object data, object offsets) except -1:
        cdef bytes form
        self.open_buffer(data, &self.data, f"{self.what}' data")
        self.data_held = True
        self.open_buffer(offsets, &self.offsets, f"{self.what}' offsets")
        self.offsets_held = True
        self.layout = RUNS
        form = self.offsets.format if self.offsets.format != NULL else b"B"
        if self.offsets.ndim != 1 or form.lstrip(b"@=<") not in (b"i", b"l", b"q") or (
            self.offsets.itemsize not in (4, 8)
        ):
            raise TypeError(f"{self.what}' offsets must be a 1-D array of int64 or int32")
        if self.offsets.shape[0] < 1:
            raise InvalidArgumentError(f"{self.what}' offsets must have one more than the rows")
        self.narrow = self.offsets.itemsize == 4
        self.rows = self.offsets.shape[0] - 1
        return 0

    cdef int64_t offset(self, Py_ssize_t row) noexcept nogil:
        if self.narrow:
            return (<const int32_t*> self.offsets.buf)[row]
        return (<const int64_t*> self.offsets.buf)[row]

    cdef int row(self, Py_ssize_t row, Slice* found) noexcept nogil:
        """-1 where the offsets say nonsense (checked each time: another thread may write them)."""
        cdef const uint8_t* at
        cdef size_t size
        cdef int64_t start, stop
        if self.layout == RUNS:
            start = self.offset(row)
            stop = self.offset(row + 1)
            if not 0 <= start <= stop <= self.data.len:
                return -1
            found[0] = slice_of(<const uint8_t*> self.data.buf + start, <size_t> (stop - start))
            return 0
        at = <const uint8_t*> self.data.buf + <size_t> row * self.width
        size = self.width
        if self.layout == PADDED:
            while size and at[size - 1] == 0:
                size -= 1
        found[0] = slice_of(at, size)
        return 0

    cdef int check(self, size_t more, size_t most) except -1:
        """That each row can be read, and with `more` bytes before it is no longer than `most`."""
        cdef Slice found
        cdef Py_ssize_t i
        cdef Py_ssize_t bad = -1
        cdef Py_ssize_t long = -1
        if self.layout != RUNS:
            long = 0 if self.rows and more + self.width > most else -1
        else:
            with nogil:
                for i in range(self.rows):
                    if self.row(i, &found) < 0:
                        bad = i
                        break
                    if more + found.size > most:
                        long = i
                        break
        if bad >= 0:
            raise InvalidArgumentError(
                f"{self.what}' offsets {bad} and {bad + 1} are {self.offset(bad)} and "
                f"{self.offset(bad + 1)}: not ascending within the data's {self.data.len} bytes"
            )
        if long >= 0:
            raise InvalidArgumentError(f"row {long} of {self.what} is over {most} bytes")
        return 0


cdef bint holds_objects(bytes form) except -1:
    """Whether a format has an `O`, but in the names of fields: those stand between colons."""
    return any(b"O" in part for part in form.split(b":")[::2])


@cython.no_gc_clear
cdef class Memory:
    def __cinit__(self):
        buffer_init(&self.bytes)

    def __dealloc__(self):
        buffer_free(&self.bytes)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.bytes.data, <Py_ssize_t> self.bytes.size, False, flags)


@cython.no_gc_clear
cdef class Sink:
    def __init__(self, array=None):
        """`array`: writable, rows x width bytes; None: rows of any size."""
        cdef int64_t zero = 0
        if array is not None:
            PyObject_GetBuffer(array, &self.array, PyBUF_ND | PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            self.held = True
            if self.array.ndim != 2 or self.array.itemsize != 1:
                raise TypeError("an array to be filled must be 2-D, of bytes")
            self.capacity = self.array.shape[0]
            self.width = <size_t> self.array.shape[1]
            return
        self.data = Memory()
        self.offsets = Memory()
        if buffer_append(&self.offsets.bytes, &zero, sizeof(zero)) < 0:
            raise MemoryError("no memory for rows")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.array)

    cdef int put(self, Py_ssize_t row, Slice value) noexcept nogil:
        """Into its place in the array. MISFIT: not of its width, or beyond its end."""
        if value.size != self.width or row >= self.capacity:
            self.refused = value
            self.refused_row = row
            return MISFIT
        if value.size:
            memcpy(<uint8_t*> self.array.buf + <size_t> row * self.width, value.data, value.size)
        return 0

    cdef void blank(self, Py_ssize_t row) noexcept nogil:
        if self.width:
            memset(<uint8_t*> self.array.buf + <size_t> row * self.width, 0, self.width)

    cdef int take(self, Slice value) noexcept nogil:
        """The next row; NO_MEMORY or MISFIT."""
        cdef int64_t end
        if self.held:
            if self.put(self.rows, value) < 0:
                return MISFIT
        else:
            if buffer_append(&self.data.bytes, value.data, value.size) < 0:
                return NO_MEMORY
            end = <int64_t> self.data.bytes.size
            if buffer_append(&self.offsets.bytes, &end, sizeof(end)) < 0:
                return NO_MEMORY
        self.rows += 1
        return 0

    cdef object refusal(self, int code, str what):
        if code == NO_MEMORY:
            return MemoryError("no memory for rows")
        if self.refused_row >= self.capacity:
            return InvalidArgumentError(f"the array has room for {self.capacity} {what}s only")
        return InvalidArgumentError(
            f"the {what} of row {self.refused_row} has {self.refused.size} bytes, the array's rows "
            f"{self.width}"
        )
