"""What a check of stored files came to, file by file."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kvstore.errors import Error, StorageError
from kvstore.replica.repair import WITHHELD

__all__ = ["FileReport", "Outcome", "Progress", "Report"]

Progress = Callable[[int], object]
"""Is told of each so many bytes more that were checked, or left out."""


class Outcome(enum.Enum):
    """Of one file."""

    WHOLE = "whole"
    """Every byte of it that means something is right."""
    DAMAGED = "damaged"
    EMPTY = "without content"
    """It holds nothing that could be damaged: a lock, reserved space."""
    LEFT_OVER = "left over"
    """Of an earlier state or a work that was cut off; it is removed at the next start."""
    FOREIGN = "not ours"


@dataclass(frozen=True, slots=True)
class FileReport:
    """``path`` as from where the check began; ``reason``: what is wrong, with its code."""

    path: str
    bytes: int
    outcome: Outcome
    reason: str = ""


class Report:
    """Collects what is found below ``root``: of each file once, the worst that is said of it."""

    def __init__(self, root: str, progress: Progress = lambda count: None) -> None:
        self.root = root
        self.progress = progress
        self.findings: list[str] = []
        """What is wrong between files, or in rows that checksums call right."""
        self._files: dict[str, FileReport] = {}

    @property
    def files(self) -> list[FileReport]:
        """By their paths."""
        return [self._files[path] for path in sorted(self._files)]

    @property
    def is_whole(self) -> bool:
        """Nothing is damaged."""
        damaged = any(file.outcome is Outcome.DAMAGED for file in self._files.values())
        return not damaged and not self.findings

    def say(self, path: str, outcome: Outcome, reason: str = "", *, counted: bool = False) -> None:
        """``path``, absolute, came to ``outcome``. ``counted``: its bytes are in the progress."""
        name = os.path.relpath(path, self.root) if path != self.root else os.path.basename(path)
        before = self._files.get(name)
        if before is not None and before.outcome is Outcome.DAMAGED:
            return
        size = _size(path)
        self._files[name] = FileReport(name, size, outcome, reason)
        if before is None and not counted:
            self.progress(size)

    def say_all(self, paths: Iterable[str], outcome: Outcome) -> None:
        """The same of several, but for those of which something was said."""
        for path in paths:
            if os.path.relpath(path, self.root) not in self._files:
                self.say(path, outcome)

    def note(self, error: Error, path: str) -> None:
        """Checking ``path`` raised ``error``, which may name another file, or a directory.

        Raises it where the system withheld what there is: rights, descriptors, memory.
        """
        if isinstance(error, StorageError) and (error.retryable or error.errno in WITHHELD):
            raise error
        where = getattr(error, "path", None) or path
        if os.path.isdir(where) or not os.path.lexists(where):
            self.findings.append(str(error))
        else:
            self.say(where, Outcome.DAMAGED, str(error), counted=where != path)

    @contextmanager
    def noting(self, path: str) -> Iterator[None]:
        """What is raised in it is noted of ``path``, or of the file that it names."""
        try:
            yield
        except StorageError as error:
            self.note(error, path)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
