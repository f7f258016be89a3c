"""Files that nobody else may read or put in another's place.

Links are not followed: in a directory that others can write they would lead to files of their
choice, which a kvd of root could overwrite.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kvstore.errors import ConfigurationError

__all__ = [
    "is_left_over",
    "open_private",
    "refuse_readable_by_others",
    "replace_private",
    "replacing",
    "sync_directory",
]

# A pipe in a file's place keeps nobody waiting.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_private(path: Path, flags: int) -> int:
    """A descriptor of a file of ours, made with mode 0600 where it isn't there. Raises OSError."""
    return os.open(path, flags | _FLAGS, 0o600)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write into that becomes ``path``, durably, when the block ends.

    After a crash ``path`` holds all of the old bytes or all of the new. When the block or the disk
    fails, ``path`` stays as it was and what was written is removed; what a process that was killed
    left goes with the next file for the same path. The file has ``mode`` from its first byte on.
    Raises OSError, also where ``path`` is there and no file: a device or a pipe would be gone.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "what is there is no regular file, and stays", str(path))
    _remove_left_over(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.absolute().parent)


def replace_private(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``, as :func:`replacing` does. Raises OSError."""
    with replacing(path, mode=mode) as file:
        file.write(data)


def is_left_over(name: str, of: str) -> bool:
    """Whether a file called ``name`` is what a crash leaves of replacing the file ``of``."""
    return re.fullmatch(rf"\.{re.escape(of)}\.[0-9]+\.new", name) is not None


def _remove_left_over(path: Path) -> None:
    """Remove the unfinished files of processes that are gone, and of this one."""
    for name in os.listdir(path.absolute().parent):
        if is_left_over(name, path.name):
            writer = int(name.split(".")[-2])
            if writer == os.getpid() or not _runs(writer):
                path.with_name(name).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def refuse_readable_by_others(what: str, path: str) -> None:
    """Raise ConfigurationError when anybody can read a secret, or its group can write it.

    Its group may read it: that is how a key of root is given to one service.
    """
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return  # reading it says why it can't be used
    if mode & 0o027:
        raise ConfigurationError(
            f"failed to read {what} from {path}: its mode {mode:04o} lets others read or replace "
            f"it; chmod 600 {path}"
        )
