"""The bytes of a Python argument: `bytes` at once, other contiguous buffers by their protocol."""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    Py_buffer,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE



cdef struct BytesView:
    # Lives no longer than the object; view_close afterwards, on every way out.
    Slice slice
    Py_buffer buffer
    bint held


cdef inline int view_open(object given, BytesView* view, str what) except -1:
    """TypeError unless `given` is bytes-like."""
    view.held = False
    if PyBytes_CheckExact(given):
        view.slice = slice_of(PyBytes_AS_STRING(given), <size_t> PyBytes_GET_SIZE(given))
        return 0
    if not PyObject_CheckBuffer(given):
        raise TypeError(f"{what} must be bytes-like, not {type(given).__name__}")
    try:
        PyObject_GetBuffer(given, &view.buffer, PyBUF_SIMPLE)
    except BufferError as error:
        raise TypeError(f"{what} must be one run of bytes: {error}") from None
    view.held = True
    view.slice = slice_of(view.buffer.buf, <size_t> view.buffer.len)
    return 0


cdef inline void view_close(BytesView* view) noexcept:
    if view.held:
        view.held = False
        PyBuffer_Release(&view.buffer)
