"""Waiting without a lock: see event_count.pxd."""

import threading

from libc.math cimport INFINITY


cdef class EventCount:
    def __cinit__(self):
        self.sleepers = []

    cpdef advance(self):
        """Let everybody look."""
        self.count += 1
        # Nothing here allocates or gives up the GIL between the two halves of one wake-up.
        while self.sleepers:
            self.sleepers.pop()()

    cpdef wait(self, uint64_t seen, double seconds=INFINITY):
        """Until it has advanced beyond ``seen``, at most ``seconds``, or until a handler raises."""
        lock = threading.Lock()
        lock.acquire()
        wake = lock.release
        self.sleepers.append(wake)
        try:
            if self.count == seen:
                lock.acquire(True, min(max(seconds, 0), threading.TIMEOUT_MAX))
        finally:
            if wake in self.sleepers:
                self.sleepers.remove(wake)
