"""What the log may forget, because the engine's tables hold it for good."""

from __future__ import annotations

from collections import deque
from functools import partial

from kvstore.errors import Error, StorageError
from kvstore.raft import Raft
from kvstore.replica.applying import Applying
from kvstore.replica.storage import MemberLog
from kvstore.replica.work import Jobs
from kvstore.state import StateMachine

__all__ = ["COMPACTION_TICKS", "Compaction"]

COMPACTION_TICKS = 20
"""Ticks between two looks at what the engine has made durable and the log may forget."""


class Compaction:
    """Compacts the core's log, marks on disk what the tables hold, and removes old segments."""

    def __init__(self, raft: Raft, log: MemberLog, applying: Applying, jobs: Jobs) -> None:
        self._raft = raft
        self._log = log
        self._applying = applying
        self._jobs = jobs
        # Marks on their way to the disk: (ticket, index of the mark).
        self._marks: deque[tuple[int, int]] = deque()
        self._marked = log.mark.index
        self._ticks = COMPACTION_TICKS

    def is_due(self) -> bool:
        """A tick has passed: is it time to :meth:`compact`?"""
        self._ticks -= 1
        if self._ticks > 0 and not self._raft.wants_compaction:
            return False
        self._ticks = COMPACTION_TICKS
        return True

    def compact(self) -> None:
        """Let the log forget what the state machine holds durably."""
        machine = self._applying.machine
        if self._raft.wants_compaction:
            self._jobs.start("flush", machine.flush, partial(self._flushed, machine))
        self._forget()

    def _flushed(self, machine: StateMachine, outcome: Error | None) -> None:
        if machine is not self._applying.machine:
            return
        if outcome is None:
            self._forget()
        elif not (isinstance(outcome, StorageError) and outcome.retryable):
            raise outcome

    def _forget(self) -> None:
        raft = self._raft
        machine = self._applying.machine
        raft.compact(min(machine.durable_index, machine.applied_index))
        gone = raft.status().first_index - 1
        if gone > self._marked:
            self._marked = gone
            self._marks.append((self._log.write_mark(raft.snapshot_meta(gone)), gone))

    def remove_log(self) -> None:
        """Segments that a durable mark stands for; what can't be done now a later turn does."""
        try:
            while self._marks and self._log.remove_before(self._marks[0][1] + 1, self._marks[0][0]):
                self._marks.popleft()
        except StorageError as error:
            if not error.retryable:
                raise

    def installed(self, index: int) -> None:
        """The log begins after the snapshot of ``index`` now, as its mark on disk says."""
        self._marked = index
        self._marks.clear()
