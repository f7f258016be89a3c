"""The options of history, in the words of what keeps it, and its marks on the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from kvstore.errors import Error
from kvstore.replica.work import Work
from kvstore.server.config.options import ServerOptions
from kvstore.server.config.sealed_file import read_sealed, write_sealed
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.history import History, Mark, Retention

__all__ = ["HistoryFile", "keep_history"]

FILE: Final = "HISTORY"

log = structlog.get_logger("kvstore.history")


class HistoryFile:
    """Marks in a data directory. Losing them costs nothing but that history is kept for longer.

    ``owner`` says whose history it is, so that the marks of another one, by which too much of this
    one would go, are none. Marks from before that was noted have no owner, and are believed.
    """

    def __init__(self, directory: Path, owner: str, work: Work) -> None:
        self._path = directory / FILE
        self._owner = owner
        self._work = work
        self._is_saving = False

    def load(self) -> Sequence[Mark]:
        """See :class:`kvstore.service.etcd.history.Kept`."""
        try:
            fields = read_sealed(self._path) or {"marks": []}
            marks = fields["marks"]
            if not isinstance(marks, list) or fields.get("owner", self._owner) != self._owner:
                raise ValueError("not a list of this history's marks")
            return sorted((int(at), int(revision)) for at, revision in marks)
        except (Error, KeyError, TypeError, ValueError) as error:
            log.warning("history is kept for longer", path=str(self._path), reason=str(error))
            return []

    def save(self, marks: Sequence[Mark]) -> None:
        """See :class:`kvstore.service.etcd.history.Kept`."""
        if self._is_saving:
            return  # a disk that hangs gets no more to do; the next time has all of them
        self._is_saving = True
        self._work.run("history", lambda: self._write(marks), self._saved)

    def _write(self, marks: Sequence[Mark]) -> None:
        try:
            listed = [list(mark) for mark in marks]
            write_sealed(self._path, {"owner": self._owner, "marks": listed})
        except Error as error:
            log.warning("history is kept for longer", path=str(self._path), reason=str(error))

    def _saved(self) -> None:
        self._is_saving = False


def keep_history(
    etcd: EtcdService, options: ServerOptions, directory: Path, owner: str, work: Work
) -> None:
    """Have ``etcd`` compact, at its ticks, what the options don't want to be kept.

    ``directory``: where marks are kept; ``owner``: see :class:`HistoryFile`.
    """
    retention = Retention(
        float(options.history_s), options.history_mib << 20, options.history_revisions
    )
    kept = HistoryFile(directory, owner, work)
    etcd.at_tick(History(etcd, retention, kept, now=time.monotonic).tick)
