"""Files that nobody else may read or put in another's place.

Links are not followed: in a directory that others can write they would lead to files of their
choice, which a kvd of root could overwrite.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kvstore.errors import ConfigurationError

__all__ = ["open_private", "refuse_readable_by_others", "replace_private", "sync_directory"]

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


def open_private(path: Path, flags: int) -> int:
    """A descriptor of a file of ours, made with mode 0600 where it isn't there. Raises OSError."""
    return os.open(path, flags | _FLAGS, 0o600)


def replace_private(path: Path, data: bytes) -> None:
    """Replace ``path``, durably: after a crash it holds the old or the new bytes. Raises OSError.

    What a crash, or somebody else, left under the new file's name goes first.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(path.parent)


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
