"""The data directory: ours or not, which format, and never two processes in one.

``KVSTORE`` in the directory says what it is, in one line of text::

    kvstore-data format=1 mode=embedded crc32=0a1b2c3d

The checksum covers what stands before it. ``LOCK`` is locked by the running kvd. The members'
files lie below, in directories of their own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode, StorageError
from kvstore.replica.recovery import Directory, Findings, refused
from kvstore.server.config.private_files import (
    is_left_over,
    open_private,
    replace_private,
    sync_directory,
)
from kvstore.small_files import read_small

FORMAT_VERSION = 1
MARKER = "KVSTORE"
# Beside what a restore has made so far; once the marker is there, all of it is made.
RESTORING = "RESTORING"
LOCK = "LOCK"

# What may lie in a directory that is about to become ours: the traces of a start that was cut off,
# and what a fresh file system brings along.
_LEFT_OVER = {LOCK, "lost+found"}

# Later formats may say more between the format and the checksum; they must still be told apart.
_LINE = re.compile(r"(kvstore-data format=(\d+)(?: mode=(\S+))?[^\n]*) crc32=([0-9a-f]{8})\n")


class DataDirectory:
    """A data directory that this process owns until :meth:`close`.

    Opening creates the directory (its parent must exist) and its marker where they are missing and
    writes nothing into a directory that it refuses. Raises ConfigurationError for a directory that
    is not a kvstore's, has a newer format, belongs to another mode, can't be written, or is held by
    another process.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self._lock: int | None = None
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            refuse_foreign(path, mode)
            self._lock = self._take_lock()
            # Again: somebody may have been faster before we had the lock.
            refuse_foreign(path, mode)
            self._shut_out_others()
            if not (path / MARKER).exists():
                write_marker(path, mode)
            self._probe_writing()
        except OSError as error:
            self.close()
            raise ConfigurationError(
                f"cannot use data directory {path}: {unusable_because(error)}"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the lock; closing twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take_lock(self) -> int:
        lock = open_private(self.path / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = _in_use(self.path, lock)
            os.close(lock)
            raise ConfigurationError(reason) from None
        except OSError:
            os.close(lock)
            raise
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def _shut_out_others(self) -> None:
        """Nobody else may read, or plant, anything: keys and values lie here in clear.

        Raises ConfigurationError for a directory of somebody else that others can enter.
        """
        mode, wanted = modes(self.path)
        if wanted == mode:
            return
        try:
            self.path.chmod(wanted)
        except PermissionError:
            raise ConfigurationError(open_to_others(self.path)) from None

    def _probe_writing(self) -> None:
        """A directory may be readable and locked, and still refuse files: say so at the start."""
        probe = self.path / f"{MARKER}.probe"
        probe.unlink(missing_ok=True)
        os.close(open_private(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        probe.unlink()


def refuse_foreign(path: Path, mode: str) -> None:
    """Raise ConfigurationError unless ``path`` is empty or carries a marker that we understand, of
    this mode. Raises OSError where it can't be read."""
    marker = path / MARKER
    try:
        with open(open_private(marker, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            line = file.read()
    except FileNotFoundError:
        others = sorted(
            name for name in set(os.listdir(path)) - _LEFT_OVER if not is_left_over(name, MARKER)
        )
        if RESTORING in others:
            raise _refused(
                Directory.FOREIGN,
                f"{path} is not a kvstore data directory: a restore of it was broken off; begin it "
                "again ('kvctl snapshot restore')",
            ) from None
        if others:
            raise _refused(
                Directory.FOREIGN,
                f"{path} is not a kvstore data directory: it holds {others[0]!r} but no "
                f"{MARKER} file",
            ) from None
        return
    match = _intact(line)
    if match is None:
        raise _refused(
            Directory.DAMAGED,
            f"{path} is not a kvstore data directory: {marker} is damaged or not ours",
        )
    if int(match[2]) > FORMAT_VERSION:
        raise _refused(
            Directory.NEWER,
            f"data directory {path} has format version {match[2]}, newer than the "
            f"{FORMAT_VERSION} that this kvd knows",
        )
    if match[3] != mode:
        raise _refused(
            Directory.OTHER_MODE,
            f"data directory {path} was made with --mode={match[3]}, not --mode={mode}",
        )


def _intact(line: str) -> re.Match[str] | None:
    """The parts of a marker's line; None where it isn't as it was written."""
    match = _LINE.fullmatch(line)
    if match is None or f"{zlib.crc32(match[1].encode()):08x}" != match[4]:
        return None
    return match


def _refused(directory: Directory, said: str) -> ConfigurationError:
    return refused(Findings(directory=directory), ConfigurationError(said))


def check_marker(path: Path) -> None:
    """Raise CorruptionError unless the marker in ``path`` is as it was written; StorageError."""
    marker = path / MARKER
    try:
        line = read_small(marker)
    except OSError as error:
        raise StorageError(
            f"failed to read: {error.strerror}", path=str(marker), errno=error.errno
        ) from error
    if _intact(line.decode("utf-8", "replace")) is None:
        raise CorruptionError(
            "checksum does not match", code=IntegrityCode.CHECKSUM_MISMATCH, path=str(marker)
        )


def modes(path: Path) -> tuple[int, int]:
    """The mode that a data directory has and the one that it is given. Raises OSError.

    The group of one with its set-group-id bit keeps what it has: so volumes are handed over.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    return mode, mode & ~(0o007 if mode & stat.S_ISGID else 0o077)


def open_to_others(path: Path) -> str:
    """What is wrong with the data directory of somebody else that others can enter."""
    mode, wanted = modes(path)
    return (
        f"data directory {path} has mode {mode:04o}: others could read it, and it isn't this "
        f"user's to change; chmod {wanted:o} {path}"
    )


def locked_by_another(path: Path) -> str | None:
    """What is wrong when another kvd has the data directory ``path``; None when none has.

    Where there is a lock to ask it is held for a moment. Raises OSError.
    """
    try:
        lock = open_private(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _in_use(path, lock)
    finally:
        os.close(lock)
    return None


def _in_use(path: Path, lock: int) -> str:
    holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    by = f" (process {holder})" if holder.isdecimal() else ""
    return f"data directory {path} is in use by another kvd{by}"


def member_path(directory: Path, member: int) -> str:
    """Where a member lives in a data directory."""
    return str(directory / f"node{member}")


def refuse_links(path: str) -> None:
    """Raise ConfigurationError when a member's directory is a link, or holds one, at any depth.

    What is written there would land elsewhere, in files of somebody else's choice; and a member
    whose directory leads to another's would vote twice. Raises OSError where it can't be read.
    """
    if os.path.islink(path):
        raise ConfigurationError(f"{path} is a symbolic link: {_NO_LINKS}")
    if not os.path.isdir(path):
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink() or entry.is_dir(follow_symlinks=False):
                refuse_links(entry.path)


_NO_LINKS = "kvd follows none to files of its own; move or mount it there instead"


def refuse_used(path: Path) -> None:
    """Raise ConfigurationError unless ``path`` could be made, is an empty directory, or has what
    is left of a restore that was broken off."""
    try:
        others = sorted(set(os.listdir(path)) - {"lost+found"})
    except FileNotFoundError:
        if not path.absolute().parent.is_dir():
            raise ConfigurationError(
                f"cannot use data directory {path}: its parent directory does not exist"
            ) from None
        return
    except OSError as error:
        raise ConfigurationError(
            f"cannot use data directory {path}: {unusable_because(error)}"
        ) from error
    if others and (RESTORING not in others or MARKER in others):
        raise ConfigurationError(
            f"data directory {path} is not empty: it holds {others[0]!r}; "
            "give an empty or a new directory"
        )


def write_marker(path: Path, mode: str) -> None:
    """Make the directory ours, durably. Raises OSError."""
    text = f"kvstore-data format={FORMAT_VERSION} mode={mode}"
    replace_private(path / MARKER, f"{text} crc32={zlib.crc32(text.encode()):08x}\n".encode())
    sync_directory(path.resolve().parent)


def unusable_because(error: OSError) -> str:
    """Why a directory can't be used, in a person's words."""
    match error.errno:
        case errno.EROFS:
            return "it is on a read-only file system"
        case errno.EACCES | errno.EPERM:
            return "no permission to write there"
        case errno.ENOENT:
            return "its parent directory does not exist"
        case errno.ELOOP:
            return "a symbolic link stands where a file of kvd's own should be"
        case errno.EEXIST | errno.ENOTDIR:
            return "it is not a directory"
        case _:
            return error.strerror or str(error)
