"""How fast members that are behind are caught up, so that those who write hardly notice.

One bucket for all that a leader sends them beyond what it has in memory: entries from the log's
tail and parts of snapshots. Its rate is given, and gives way, step by step, while entries take
longer to be committed than they did before; never so far that those behind fall back further.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.raft import Raft, Role

__all__ = ["FLOOR_BYTES_PER_S", "Pace"]

FLOOR_BYTES_PER_S = 8 << 20
"""It gives way no further than to this and twice the bytes that come in, or what
:meth:`Pace.outrun` asked for."""

TIMES = 2.0

SLOWDOWN = 2.0
"""So many times as long as usual may a commit take."""

# The rate doubles in this time while all is well, and after as long without a commit under way, or
# without anybody to catch up, nothing is known of how well it is.
PAUSE_S = 1.0
CUT = 0.7
CUT_PAUSE_S = 0.1

# Of what was not spent so much is kept.
BURST_S = 0.1

# Until commits have told: and below it nobody notices.
USUAL_S = 0.02
USUAL_MIN_S = 0.005


class Pace:
    """A token bucket whose rate follows the time that commits take."""

    def __init__(self, raft: Raft, bytes_per_s: int, now: Callable[[], float]) -> None:
        """``bytes_per_s`` at most; 0 for no limit, and no giving way either. ``now``: seconds."""
        self._raft = raft
        self._limit = bytes_per_s
        self._now = now
        self.rate = float(bytes_per_s)
        """Bytes a second, this moment."""
        self._left = self.rate * BURST_S
        self._ticked_at = now()
        self._spent_at = self._sampled_at = self._cut_at = self._ticked_at - PAUSE_S
        # Bytes of the log: all that were written, and a second.
        self._written = 0
        self._incoming = 0.0
        self._times = TIMES
        # An entry whose commit is waited for, and since when.
        self._index = 0
        self._since = 0.0
        self._usual_s = USUAL_S
        self._recent_s = USUAL_S

    @property
    def allows(self) -> bool:
        """More may be sent now."""
        return not self._limit or self._left > 0

    def spend(self, size: int) -> None:
        """So much was sent; it may be more than there was, and is waited for then."""
        now = self._now()
        if now - self._spent_at >= PAUSE_S and now - self._sampled_at < PAUSE_S:
            # Under load it begins carefully.
            self.rate = self._floor()
            self._left = min(self._left, self.rate * BURST_S)
        self._spent_at = now
        self._left -= size

    def outrun(self, total: int, kept: int) -> None:
        """A snapshot of ``total`` bytes is about to be sent, and so many of the log are kept while
        it is: it has to arrive before half of them have come in."""
        self._times = max(TIMES, 2 * total / max(kept, 1))

    def tick(self, written: int) -> None:
        """Some time has passed. ``written``: bytes that the log was ever given."""
        now = self._now()
        passed = max(now - self._ticked_at, 0.0)
        self._ticked_at = now
        if not self._limit or not passed:
            return
        share = min(passed / PAUSE_S, 1.0)
        if self._written:
            self._incoming += share * ((written - self._written) / passed - self._incoming)
        self._written = written
        if now - self._sampled_at >= PAUSE_S:
            self.rate = float(self._limit)
        else:
            self.rate = min(max(self.rate * 2**share, self._floor()), self._limit)
        self._left = min(self._left + self.rate * passed, self.rate * BURST_S)

    def _floor(self) -> float:
        return min(FLOOR_BYTES_PER_S + self._times * self._incoming, self._limit)

    def look(self) -> None:
        """Something may have been committed or proposed. To be called often."""
        raft = self._raft
        if raft.role is not Role.LEADER:
            self._index = 0
            return
        if self._index and raft.commit >= self._index:
            self._index = 0
            self._took(self._now() - self._since)
        if not self._index and raft.last_entry[1] > raft.commit:
            self._index = raft.last_entry[1]
            self._since = self._now()

    def _took(self, seconds: float) -> None:
        now = self._sampled_at = self._now()
        self._recent_s += (seconds - self._recent_s) / 4
        if now - self._spent_at >= PAUSE_S:
            self._usual_s += (seconds - self._usual_s) / 16
        elif (
            self._recent_s > SLOWDOWN * max(self._usual_s, USUAL_MIN_S)
            and now - self._cut_at >= CUT_PAUSE_S
        ):
            self._cut_at = now
            self.rate = max(self.rate * CUT, self._floor())
