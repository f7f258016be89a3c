"""How code without the GIL says what went wrong: a small struct, made an exception at the border."""

from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint64_t


cdef enum Code:
    # The integrity codes of kvstore.errors.IntegrityCode, in the same order, after OK.
    OK = 0
    CHECKSUM_MISMATCH = 1
    TRUNCATED_RECORD = 2
    INVALID_MAGIC = 3
    UNSUPPORTED_VERSION = 4
    INVALID_OPERATION = 5
    INVALID_RECORD = 6
    IO_ERROR = 7


cdef struct Status:
    int code            # one of Code
    int os_error        # errno of an IO_ERROR, else 0
    int64_t offset      # byte in the file at which the trouble begins, -1 if it is the whole file
    uint64_t table      # number of the table that it is about, 0 if it is about something else
    const char* what    # static text, e.g. b"block checksum"; never freed


cdef inline void status_clear(Status* status) noexcept nogil:
    status.code = OK
    status.os_error = 0
    status.offset = -1
    status.table = 0
    status.what = NULL


cdef inline int status_set(Status* status, int code, const char* what, int64_t offset) noexcept nogil:
    """Record a failure (of the table, if one is noted); returns -1 so that callers can, too."""
    status.code = code
    status.os_error = 0
    status.offset = offset
    status.what = what
    return -1


cdef inline int status_os_error(Status* status, int os_error, const char* what, int64_t offset) noexcept nogil:
    status.code = IO_ERROR
    status.os_error = os_error
    status.offset = offset
    status.what = what
    return -1


cdef inline int status_no_memory(Status* status, const char* what) noexcept nogil:
    """There was no memory for `what`: at the border a MemoryError that is a StorageError as well."""
    return status_os_error(status, ENOMEM, what, -1)


# Builds (does not raise) the StorageError, CorruptionError or OutOfMemoryError that says it.
cdef object status_error(Status* status, str path)
# The same where it may be about a table of the database in `directory`.
cdef object status_error_in(Status* status, str directory)
