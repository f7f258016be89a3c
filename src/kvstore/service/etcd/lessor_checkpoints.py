"""Notes in the log how much is left of long leases, so that a new leader doesn't begin them anew.

A note is taken back before a renewal is told: the next leader must not go by what was left before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil

from kvstore.service.etcd.lessor_deadlines import Deadlines, Tenure
from kvstore.service.etcd.lessor_expiry import Outcome, Propose
from kvstore.state.mvcc.answers import LeaseCheckpointAnswer
from kvstore.state.mvcc.requests import FOR_EVER, LeaseCheckpoint

__all__ = ["Checkpoints"]

INTERVAL_S = 300.0
LEFT_MIN_S = 300.0
"""Leases with no more than this left are not noted: a new leader prolongs them by that at most."""
GAIN_MIN_S = 60.0
"""Nor are those that a new leader would prolong by less, such as were renewed lately."""
LOOKS_MAX = 2000
"""Leases that are looked at in one tick."""
NOTES_MAX = 1000
"""In one entry of the log."""


class Checkpoints:
    """Of one reign. One entry is under way at a time: so a note never comes after what takes it
    back, in whatever order those who propose get them into the log."""

    def __init__(self, term: int, deadlines: Deadlines, propose: Propose, now: float) -> None:
        """``propose`` tells no outcome before that is settled: nothing that it has not given to
        Raft by then ever gets into the log."""
        self._term = term
        self._deadlines = deadlines
        self._propose = propose
        self._next_at = now + INTERVAL_S
        # Those of this round that were not looked at yet.
        self._left: list[Tenure] = []
        self._to_clear: list[tuple[Tenure, Callable[[Outcome], None]]] = []
        self._is_under_way = False

    def tick(self, now: float) -> None:
        """Note some of those that are due."""
        if self._is_under_way:
            return
        if not self._left:
            if now < self._next_at:
                return
            self._next_at = now + INTERVAL_S
            self._left = self._deadlines.all()
        looked, self._left = self._left[-LOOKS_MAX:], self._left[:-LOOKS_MAX]
        due = [tenure for tenure in looked if _is_worth_it(tenure, now)]
        self._left += due[NOTES_MAX:]
        if due:
            self._note(due[:NOTES_MAX], now)

    def _note(self, tenures: Sequence[Tenure], now: float) -> None:
        for tenure in tenures:
            # From now on the log may say so, whatever becomes of this proposal.
            tenure.rest = ceil(tenure.deadline - now)
        rests = tuple((tenure.id, tenure.birth, tenure.rest) for tenure in tenures)
        self._put(rests, self._ended)

    def clear(self, tenure: Tenure, done: Callable[[Outcome], None]) -> None:
        """Take back what the log says of ``tenure``; ``done`` gets a LeaseCheckpointAnswer once it
        does no more, or why that isn't known."""
        self._to_clear.append((tenure, done))
        self._clear()

    def _clear(self) -> None:
        if self._is_under_way or not self._to_clear:
            return
        clearing, self._to_clear = self._to_clear[:NOTES_MAX], self._to_clear[NOTES_MAX:]
        rests = tuple((tenure.id, tenure.birth, FOR_EVER) for tenure, _ in clearing)
        self._put(rests, partial(self._cleared, clearing))

    def _cleared(
        self,
        clearing: Sequence[tuple[Tenure, Callable[[Outcome], None]]],
        outcome: Outcome,
    ) -> None:
        for tenure, done in clearing:
            if isinstance(outcome, LeaseCheckpointAnswer):
                tenure.rest = FOR_EVER
            done(outcome)
        self._ended(outcome)

    def _put(
        self, rests: tuple[tuple[int, int, int], ...], done: Callable[[Outcome], None]
    ) -> None:
        self._is_under_way = True
        self._propose(LeaseCheckpoint(self._term, rests), done)

    def _ended(self, outcome: Outcome) -> None:
        # A note that wasn't taken costs a new leader's guess only: the next one comes in time.
        self._is_under_way = False
        self._clear()


def _is_worth_it(tenure: Tenure, now: float) -> bool:
    left = tenure.deadline - now
    stated = tenure.ttl if tenure.rest == FOR_EVER else tenure.rest
    return left > LEFT_MIN_S and stated - left >= GAIN_MIN_S and not tenure.gone
