"""The small files of a process beside its members' directories, checked while it runs.

What they say is in memory: one that is damaged, or gone, is written anew, before a start would be
refused for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from kvstore.errors import CorruptionError, Error, IntegrityCode, StorageError
from kvstore.replica.work import Work
from kvstore.server.config.data_directory import MARKER, check_marker, write_marker
from kvstore.server.config.sealed_file import read_sealed

__all__ = ["SmallFiles", "marker_again"]

log = structlog.get_logger("kvstore.scrub")


class SmallFiles:
    """Of one process. On its event loop's thread; files are read and written by a worker."""

    def __init__(
        self,
        directory: Path,
        work: Work,
        rewrite: Mapping[str, Callable[[], None]],
        found: Callable[[StorageError], None],
    ) -> None:
        """``rewrite``: what writes each of the files anew, on any thread; raises StorageError.
        ``found`` is told of damage."""
        self._directory = directory
        self._work = work
        self._rewrite = rewrite
        self._found = found
        self._is_checking = False

    def check(self) -> None:
        """Look at each of them, unless that is under way."""
        if self._is_checking:
            return  # a disk that hangs gets no more to do
        self._is_checking = True
        damaged: list[StorageError] = []
        self._work.run("small files", lambda: self._check(damaged), lambda: self._checked(damaged))

    def _checked(self, damaged: list[StorageError]) -> None:
        self._is_checking = False
        for error in damaged:
            self._found(error)

    def _check(self, damaged: list[StorageError]) -> None:
        """On a worker."""
        for name, rewrite in self._rewrite.items():
            try:
                _read(self._directory, name)
            except CorruptionError as error:
                damaged.append(error)
            except StorageError:
                continue  # as it can't be read it may be whole
            else:
                continue
            try:
                rewrite()
            except Error as error:
                log.error("a damaged file can't be written anew", file=name, reason=str(error))


def _read(directory: Path, name: str) -> None:
    path = directory / name
    if not os.path.lexists(path):
        raise CorruptionError("it is gone", code=IntegrityCode.TRUNCATED_RECORD, path=str(path))
    if name == MARKER:
        check_marker(directory)
    else:
        read_sealed(path)


def marker_again(directory: Path, mode: str) -> Callable[[], None]:
    """What writes the data directory's marker anew."""

    def write() -> None:
        try:
            write_marker(directory, mode)
        except OSError as error:
            raise StorageError(
                f"failed to write: {error.strerror}", path=str(directory), errno=error.errno
            ) from error

    return write
