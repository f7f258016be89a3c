"""Turns a Status from code without the GIL into the exception that users see."""

import os

from libc.errno cimport ENOMEM, ENXIO, ESTALE

from kvstore.errors import CorruptionError, IntegrityCode, OutOfMemoryError, StorageError

cdef tuple CODES = (None, *IntegrityCode)


cdef object status_error(Status* status, str path):
    what = status.what.decode() if status.what != NULL else "unspecified"
    offset = status.offset if status.offset >= 0 else None
    if status.code == IO_ERROR and status.os_error == ENOMEM:
        # Of ours, or the system's.
        message = f"no {what}" if what.startswith("memory") else f"{what}: {os.strerror(ENOMEM)}"
        return OutOfMemoryError(message, path=path, offset=offset, errno=ENOMEM)
    if status.code == IO_ERROR:
        message = f"{what}: {os.strerror(status.os_error)}" if status.os_error else what
        if status.os_error == ENXIO:
            message = f"{what}: it is not a regular file"
        if status.os_error == ESTALE:
            message = f"{what}: the directory was moved, or its LOCK removed, while it was open"
        return StorageError(message, path=path, offset=offset, errno=status.os_error or None)
    return CorruptionError(what, code=CODES[status.code], path=path, offset=offset)


cdef object status_error_in(Status* status, str directory):
    return status_error(
        status, f"{directory}/{status.table:06d}.sst" if status.table else directory
    )
