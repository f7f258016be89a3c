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

__all__ = ["LEFT_MIN_S", "Checkpoints"]

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
    """Of one reign."""

    def __init__(self, deadlines: Deadlines, propose: Propose, now: float) -> None:
        """``propose`` puts what it is given into the log in that order, or not at all."""
        self._deadlines = deadlines
        self._propose = propose
        self._next_at = now + INTERVAL_S
        # Those of this round that were not looked at yet.
        self._left: list[Tenure] = []

    def tick(self, now: float) -> None:
        """Note some of those that are due, in one entry."""
        if not self._left:
            if now < self._next_at:
                return
            self._next_at = now + INTERVAL_S
            self._left = self._deadlines.all()
        looked, self._left = self._left[-LOOKS_MAX:], self._left[:-LOOKS_MAX]
        found = [tenure for tenure in looked if self._is_worth_it(tenure, now)]
        for first in range(0, len(found), NOTES_MAX):
            self._note(found[first : first + NOTES_MAX], now)

    def _is_worth_it(self, tenure: Tenure, now: float) -> bool:
        left = tenure.deadline - now
        stated = tenure.ttl if tenure.rest == FOR_EVER else tenure.rest
        return (
            left > LEFT_MIN_S
            and stated - left >= GAIN_MIN_S
            and not tenure.gone
            and not tenure.clearing
        )

    def _note(self, tenures: Sequence[Tenure], now: float) -> None:
        for tenure in tenures:
            # From now on the log may say so, whatever becomes of this proposal.
            tenure.rest = ceil(tenure.deadline - now)
        rests = tuple((tenure.id, tenure.birth, tenure.rest) for tenure in tenures)
        self._propose(LeaseCheckpoint(rests), _forget)

    def clear(self, tenures: Sequence[Tenure], done: Callable[[Outcome], None]) -> None:
        """Take back what the log says of ``tenures``; ``done`` gets a LeaseCheckpointAnswer once
        it does no more, or why that isn't known."""
        for tenure in tenures:
            tenure.clearing += 1
        rests = tuple((tenure.id, tenure.birth, FOR_EVER) for tenure in tenures)
        self._propose(LeaseCheckpoint(rests), partial(_cleared, tenures, done))


def _cleared(tenures: Sequence[Tenure], done: Callable[[Outcome], None], outcome: Outcome) -> None:
    for tenure in tenures:
        tenure.clearing -= 1
        if isinstance(outcome, LeaseCheckpointAnswer):
            # Nothing was noted since: not while this was under way.
            tenure.rest = FOR_EVER
    done(outcome)


def _forget(outcome: Outcome) -> None:
    """A note that wasn't taken costs a new leader's guess only; the next one comes in time."""
