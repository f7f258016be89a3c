"""When followers are told what is committed, though nothing else is due that would say so.

The commit index travels with the next entries, and with each heartbeat. So a notice of its own,
which costs a frame and a turn for each follower, waits for silence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.raft import Raft

__all__ = ["NOTICE_S", "CommitNotices", "Later", "at_once"]

NOTICE_S = 0.001
"""So long the commit index stands still before those who lack it are told, and twice that at most.
Short beside a heartbeat, long beside the way from one write of a lone client to its next."""

Later = Callable[[float, Callable[[], None]], object]
"""Makes a call after so many seconds, from where all calls of the replica come."""


def at_once(delay_s: float, call: Callable[[], None]) -> None:
    """A :data:`Later` where no time passes."""
    call()


class CommitNotices:
    """Asks the core for notices when followers lack what was committed a while ago."""

    def __init__(self, raft: Raft, later: Later, wake: Callable[[], None]) -> None:
        self._raft = raft
        self._later = later
        self._wake = wake
        self._asked = False

    def look(self) -> None:
        """To be called when something may have been committed or acknowledged."""
        if not self._asked and self._raft.commit_untold:
            self._asked = True
            self._later(NOTICE_S, partial(self._tell_after, self._raft.commit))

    def _tell_after(self, commit: int) -> None:
        """Tell, unless more was committed meanwhile: then entries are under way."""
        self._asked = False
        if self._raft.commit != commit:
            self.look()
        elif self._raft.commit_untold:
            self._raft.tell_commit()
            self._wake()
