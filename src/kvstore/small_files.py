"""Reading files that somebody names: configurations, certificates, secrets."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["SMALL_BYTES_MAX", "read_small"]

SMALL_BYTES_MAX = 1 << 20


def read_small(path: str | Path, bytes_max: int = SMALL_BYTES_MAX) -> bytes:
    """The bytes of a regular file, which never keeps anybody waiting.

    Raises OSError, whose ``strerror`` says why: also for a pipe, on which one would wait for ever,
    a device, which may have no end, and for more than ``bytes_max``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:  # a NUL character
        raise OSError(errno.EINVAL, str(error)) from error
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, f"it has more than {bytes_max} bytes")
    return data
