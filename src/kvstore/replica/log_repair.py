"""A running member lets the part of its log go that is damaged on the disk.

What was acknowledged is in memory, or in the state, which can be made durable: then no start needs
the damaged segment. So the log goes on in a new one, the state is brought up to its end, and what
was before that is removed. A crash before that is done leaves the damage for the next start.
"""

from __future__ import annotations

from kvstore.errors import Error, StorageError
from kvstore.raft import Raft
from kvstore.replica.applying import Applying
from kvstore.replica.compaction import Compaction
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.storage import MemberLog
from kvstore.replica.tail import Tail
from kvstore.replica.work import Jobs, raise_unless_passing

__all__ = ["LogRepair"]


class LogRepair:
    """Of one member's log."""

    def __init__(
        self,
        raft: Raft,
        log: MemberLog,
        applying: Applying,
        compaction: Compaction,
        tail: Tail,
        *,
        jobs: Jobs,
        counters: ReplicaCounters,
    ) -> None:
        self._raft = raft
        self._log = log
        self._applying = applying
        self._compaction = compaction
        self._tail = tail
        self._jobs = jobs
        self._counters = counters
        self._damage: StorageError | None = None
        # The newer segment, and the last entry that may be in those before it.
        self._newer: tuple[int, int] | None = None
        # Damage was found again, maybe in the newer segment.
        self._again = False

    @property
    def under_way(self) -> str:
        """Why the log is made shorter; empty when it isn't."""
        return "" if self._damage is None else f"its log lets go of what is damaged: {self._damage}"

    def begin(self, damage: StorageError) -> None:
        """Something of the log's files is damaged."""
        if self._damage is None:
            self._damage = damage
            self._counters.repairs_started += 1
        elif self._newer is not None:
            self._again = True

    def tick(self) -> None:
        """One tick has passed."""
        if self._damage is None or self._applying.damage is not None:
            return  # a damaged state comes first
        if self._newer is None:
            self._jobs.start("segment", self._log.begin_next_segment, self._begun)
            return
        segment, last = self._newer
        if self._log.oldest_segment < segment:
            self._compaction.reach(last)
        else:
            self._newer = None
            if self._again:
                self._again = False
            else:
                self._damage = None
                self._counters.repairs_done += 1

    def _begun(self, outcome: int | Error) -> None:
        if isinstance(outcome, Error):
            self._counters.repairs_failed += 1
            raise_unless_passing(outcome)
            return
        last = self._raft.last_entry[1]
        self._newer = outcome, last
        self._tail.give_up(last + 1)
