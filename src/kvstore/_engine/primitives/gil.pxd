"""Letting go of the GIL in code that may have it or not.

A user's iterator moves with the GIL held, a background job without it; both read from disk in the
same functions.
"""

cdef extern from *:
    """
    #include <Python.h>
    /* Not PyGILState_Check, which says yes to every thread once there are subinterpreters; before
       3.13 what answers this without failing for a thread that doesn't hold it has only a private
       name. */
    #if PY_VERSION_HEX >= 0x030D0000
    #define kv_current_thread_state PyThreadState_GetUnchecked
    #else
    #define kv_current_thread_state _PyThreadState_UncheckedGet
    #endif
    static inline PyThreadState* kv_let_go_of_gil(void) {
        PyThreadState* own = PyGILState_GetThisThreadState();
        return own && own == kv_current_thread_state() ? PyEval_SaveThread() : NULL;
    }
    static inline int kv_has_gil(void) {
        PyThreadState* own = PyGILState_GetThisThreadState();
        return own && own == kv_current_thread_state();
    }
    static inline void kv_take_gil(PyThreadState* own) { if (own) PyEval_RestoreThread(own); }
    """
    ctypedef struct PyThreadState:
        pass
    # What take_gil wants back: NULL if this thread didn't have it.
    PyThreadState* let_go_of_gil "kv_let_go_of_gil"() noexcept nogil
    bint has_gil "kv_has_gil"() noexcept nogil
    void take_gil "kv_take_gil"(PyThreadState* own) noexcept nogil
