from libc.stdint cimport uint64_t


cdef class EventCount:
    """Wakes threads that wait for something that others change, also one only about to sleep.

    Who waits reads `count`, looks whether there is what it waits for, and calls wait() with what it
    read; who changes something calls advance() after that. Nobody polls.

    No lock of Python's `threading` guards it, and no bytecode of its own runs: a signal's handler
    that raises (Ctrl-C) finds no moment in which a lock were kept for good or half of the waiters
    told, as it does in `threading.Condition`, which is Python.
    """

    cdef readonly uint64_t count
    cdef list sleepers          # for each thread that waits, what wakes it

    cpdef advance(self)
    cpdef wait(self, uint64_t seen, double seconds=?)
