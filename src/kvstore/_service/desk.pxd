"""The calls that wait in a service: kvstore.service.plain is the readable form."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice
from kvstore._state.native cimport Applying, Command


cdef class Waiter:
    cdef object call
    cdef object answered
    cdef double deadline
    cdef readonly bint decided


cdef class Read(Waiter):
    cdef readonly bytes key


cdef class Write(Waiter):
    # `command` borrows from what the write itself holds.
    cdef Command command
    cdef uint8_t request[16]
    cdef bytes key
    cdef bytes value
    cdef bytes identity         # what two tries of it have in common
    cdef double sent_at         # of a retry, by the service's clock; NaN for a first try
    cdef list twins             # waiters for the same result, or None
    cdef size_t size(self) noexcept
    cdef bint is_over(self, double now) noexcept


cdef class Entry:
    cdef Desk desk
    cdef list writes
    cdef readonly bytes data


cdef class Point:
    cdef Desk desk
    cdef list reads
    cdef Py_ssize_t next


# What is decided in one go, to be handed back to each front in one go.
cdef class Answers:
    cdef object answered
    cdef list calls
    cdef list results
    cdef list complete          # (answered, calls, results) of other fronts before
    cdef int add(self, Waiter waiter, object result) except -1
    cdef int give(self) except -1


cdef class Desk:
    cdef object limits
    cdef Py_ssize_t calls_max, entry_commands_max
    cdef size_t gathered_bytes_max, entry_bytes_max, answer_bytes_max
    cdef double delay_s
    cdef readonly Py_ssize_t waiting
    cdef readonly size_t write_bytes
    cdef list gathered_writes
    cdef list gathered_reads
    cdef dict writes_under_way          # identity -> Write
    cdef dict open                      # entries and points that are not answered, in their order
    cdef double earliest                # no deadline is before it
    cdef object take_one(
        self, object call, object answered, double now, object refusal, object machine,
        Applying applying
    )
    cdef object take_write(
        self, object call, object answered, double now, double deadline, int method, bytes key,
        bytes value, bytes request_id, object machine, Applying applying
    )
    cdef int gather(self, Write write) except -1
    cdef int decide_one(self, Waiter waiter, object result, Answers answers) except -1
    cdef int decide_write(self, Write write, object result, Answers answers) except -1
    cdef int forget(self, Write write) except -1
    cdef bint may_be_joined(self, object open_one) except -1
    cdef int expire_open(self, double now, Answers answers) except -1
    cdef bint watch(self, Waiter waiter, double now, Answers answers) except -1
