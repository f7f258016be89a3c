"""What the log may forget, because the engine's tables hold it for good."""

from __future__ import annotations

from collections import deque
from functools import partial

from kvstore.errors import Error
from kvstore.raft import Raft
from kvstore.replica.applying import Applying
from kvstore.replica.storage import MemberLog
from kvstore.replica.tail import Tail
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs, raise_unless_passing
from kvstore.state import StateMachine

__all__ = ["COMPACTION_S", "Compaction"]

COMPACTION_S = 1.0
"""Between two looks at what the engine has made durable and the log may forget."""


class Compaction:
    """Compacts the core's log, marks on disk what the tables hold, and removes old segments."""

    def __init__(
        self,
        raft: Raft,
        log: MemberLog,
        applying: Applying,
        jobs: Jobs,
        tail: Tail,
        tick_s: float,
    ) -> None:
        self._raft = raft
        self._log = log
        self._applying = applying
        self._jobs = jobs
        self._tail = tail
        # Marks on their way to the disk: (ticket, index of the mark).
        self._marks: deque[tuple[int, int]] = deque()
        self._marked = log.mark.index
        self._durable_mark = log.mark.index
        self._pause_ticks = self._ticks = ticks_of(COMPACTION_S, tick_s)
        self._failed = False

    def is_due(self) -> bool:
        """A tick has passed: is it time to :meth:`compact`?"""
        self._failed = False
        self._ticks -= 1
        if self._ticks > 0 and not self._raft.wants_compaction:
            return False
        self._ticks = self._pause_ticks
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
        if outcome is not None:
            raise_unless_passing(outcome)
        self._forget()

    def _forget(self) -> None:
        raft = self._raft
        machine = self._applying.machine
        # The core may not have been told of the last that was applied: while a damaged state is
        # held, it isn't.
        raft.compact(min(machine.durable_index, machine.applied_index, raft.status().applied))
        gone = raft.status().first_index - 1
        if gone > self._marked:
            self._marked = gone
            self._marks.append((self._log.write_mark(raft.snapshot_meta(gone)), gone))

    def reach(self, index: int) -> None:
        """Have the log need nothing up to ``index``: soon, once that is applied.

        On the disk: what memory keeps for slow followers is another matter.
        """
        machine = self._applying.machine
        durable = min(machine.durable_index, self._raft.commit)
        if durable < index:
            if machine.applied_index >= index:
                self._jobs.start("flush", machine.flush, partial(self._flushed, machine))
        elif not self._marks:
            # Also where one says so already: older segments go once a newer one is durable.
            self._marked = durable
            self._marks.append((self._log.write_mark(self._raft.snapshot_meta(durable)), durable))

    def remove_log(self) -> None:
        """Remove segments that a durable mark stands for, but for the tail of the log.

        After a failure at a later tick.
        """
        if not self._marks or self._failed:
            return
        ticket, index = self._marks[0]
        if self._log.is_durable(ticket):
            self._durable_mark = max(self._durable_mark, index)
            remove = partial(self._log.remove_before, self._tail.first_kept(index + 1))
            self._jobs.start("segments", remove, partial(self._removed, index))

    def make_room(self) -> None:
        """The disk is full: all segments go that the state doesn't need."""
        self._tail.give_up(self._durable_mark + 1)
        remove = partial(self._log.remove_before, self._durable_mark + 1)
        self._jobs.start("segments", remove, partial(self._removed, 0))

    def _removed(self, index: int, outcome: Error | None) -> None:
        self._tail.segments_removed()
        if outcome is not None:
            raise_unless_passing(outcome)
            self._failed = True
            return
        while self._marks and self._marks[0][1] <= index:
            self._marks.popleft()

    def installed(self, index: int) -> None:
        """The log begins after the snapshot of ``index`` now, as its mark on disk says."""
        self._marked = self._durable_mark = index
        self._marks.clear()
        # What was before is void, and goes.
        self._tail.give_up(index + 1)
        self._marks.append((0, index))
