"""Letting go of the GIL in code that may have it or not, and getting it back soon.

A user's iterator moves with the GIL held, a background job without it; both read from disk in the
same functions.

Who waits for the GIL gets it from a thread that computes when its five milliseconds are over, which is
time for ten thousand puts: a flush that comes back from the disk a few times would be later than the
memtable that is filled meanwhile. So it asks before it waits, and who writes in a loop looks for that, and
steps aside until it has been answered.
"""

from libc.stdint cimport uint32_t


cdef extern from *:
    """
    #include <Python.h>
    #include <limits.h>
    #include <linux/futex.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
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

    static inline int kv_asked(
            const uint32_t* asked, const uint32_t* answers, const uint32_t* vain) {
        return __atomic_load_n(asked, __ATOMIC_RELAXED)
            && __atomic_load_n(vain, __ATOMIC_RELAXED) != __atomic_load_n(answers, __ATOMIC_RELAXED) + 1;
    }
    static inline void kv_ask_for_gil(uint32_t* asked) {
        __atomic_fetch_add(asked, 1, __ATOMIC_SEQ_CST);
    }
    static inline void kv_answer(uint32_t* asked, uint32_t* answers, const uint32_t* aside) {
        __atomic_fetch_sub(asked, 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(answers, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(aside, __ATOMIC_SEQ_CST))
            syscall(SYS_futex, answers, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    /* With the GIL. Whoever asks may itself be kept from it, by a thread that only computes, or for want of
       a processor: nobody waits for it for long, nor again. */
    static inline void kv_step_aside(
            const uint32_t* asked, const uint32_t* answers, uint32_t* aside, uint32_t* vain) {
        const struct timespec most = {0, 1000000};
        uint32_t seen = __atomic_load_n(answers, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(aside, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(asked, __ATOMIC_SEQ_CST)) {
            PyThreadState* own = PyEval_SaveThread();
            syscall(SYS_futex, answers, FUTEX_WAIT_PRIVATE, seen, &most, NULL, 0);
            if (__atomic_load_n(answers, __ATOMIC_SEQ_CST) == seen)
                __atomic_store_n(vain, seen + 1, __ATOMIC_RELAXED);
            PyEval_RestoreThread(own);
        }
        __atomic_fetch_sub(aside, 1, __ATOMIC_SEQ_CST);
    }
    """
    ctypedef struct PyThreadState:
        pass
    # What take_gil wants back: NULL if this thread didn't have it.
    PyThreadState* let_go_of_gil "kv_let_go_of_gil"() noexcept nogil
    bint has_gil "kv_has_gil"() noexcept nogil
    void take_gil "kv_take_gil"(PyThreadState* own) noexcept nogil
    bint asked "kv_asked"(
        const uint32_t* asked, const uint32_t* answers, const uint32_t* vain
    ) noexcept nogil
    void ask "kv_ask_for_gil"(uint32_t* asked) noexcept nogil
    void answer "kv_answer"(uint32_t* asked, uint32_t* answers, const uint32_t* aside) noexcept nogil
    void step "kv_step_aside"(
        const uint32_t* asked, const uint32_t* answers, uint32_t* aside, uint32_t* vain
    ) noexcept


cdef struct GilTurn:
    uint32_t asked              # atomic: threads that wait for the GIL, or are about to
    uint32_t answers            # atomic, a futex: how many of them got it
    uint32_t aside              # atomic: threads that let them
    uint32_t vain               # atomic: one more than `answers` when one had done so in vain

# Of the process, whatever the number of extension modules.
cdef GilTurn gil_turn


cdef inline void gil_ask() noexcept nogil:
    """The last thing before the GIL is taken again; `gil_have` is the first thing after it."""
    ask(&gil_turn.asked)


cdef inline void gil_have() noexcept nogil:
    answer(&gil_turn.asked, &gil_turn.answers, &gil_turn.aside)


cdef inline bint gil_is_asked_for() noexcept nogil:
    return asked(&gil_turn.asked, &gil_turn.answers, &gil_turn.vain)


cdef inline void gil_step_aside() noexcept:
    """Lets another thread in where one asks, and so any: as what may let others in is to be placed."""
    step(&gil_turn.asked, &gil_turn.answers, &gil_turn.aside, &gil_turn.vain)
