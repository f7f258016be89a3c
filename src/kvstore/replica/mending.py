"""Entries whose data is damaged in this member's log get it back from others (``raft.mending``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from kvstore.errors import Error
from kvstore.raft import Entry, Raft
from kvstore.replica.storage import MemberLog
from kvstore.replica.work import Jobs, raise_unless_passing

__all__ = ["Mending"]


class Mending:
    """Writes what came in its place, beside the loop, and tells the core when it is durable."""

    def __init__(self, raft: Raft, log: MemberLog, jobs: Jobs) -> None:
        self._raft = raft
        self._log = log
        self._jobs = jobs
        self._waiting: deque[Entry] = deque()

    def take(self, entries: Sequence[Entry]) -> None:
        """Data for hollow entries, from another member."""
        self._waiting += entries
        self._start()

    def tick(self) -> None:
        """One tick has passed."""
        if self._waiting:
            self._start()

    @property
    def trouble(self) -> str:
        """What its log lacks; empty where it is whole."""
        status = self._raft.status()
        if not status.hollow:
            return ""
        if status.lost:
            return (
                f"entry {status.lost} of the log is damaged at every member: nobody can lead; "
                "begin anew with a backup"
            )
        return "damaged entries of the log are to be had from other members"

    def _start(self) -> None:
        entries = list(self._waiting)
        mend = partial(self._log.mend, entries)
        # No segment is removed meanwhile.
        if self._jobs.start("segments", mend, partial(self._mended, entries)):
            self._waiting.clear()

    def _mended(self, entries: list[Entry], outcome: list[tuple[Entry, bool]] | Error) -> None:
        if isinstance(outcome, Error):
            raise_unless_passing(outcome)
            outcome = [(entry, False) for entry in entries]
        for entry, right in outcome:
            self._raft.mended(entry, right=right)
