"""Ends leases that have run out: at a rate that leaves room for others' writes, and for sure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.lessor_deadlines import Tenure
from kvstore.state.mvcc.answers import Answer, LeaseRevokeAnswer
from kvstore.state.mvcc.requests import LeaseRevoke, Operation

__all__ = ["QUEUE_MAX", "Expiry", "Outcome", "Propose"]

Outcome = Answer | Error
Propose = Callable[[Operation, Callable[[Outcome], None]], None]
"""Proposes through the member that leads here alone, in its present term, and tells the outcome."""

RATE_MAX = 1000
"""Revocations a second."""
BURST_MAX = 100
IN_FLIGHT_MAX = 16
QUEUE_MAX = 1024
"""Leases that wait for their revocation; the others wait in the heap."""


class Expiry:
    """Of one reign: revokes in its term, and again what did not happen."""

    def __init__(
        self, term: int, propose: Propose, ended: Callable[[Tenure], None], now: float
    ) -> None:
        """``ended`` is told which lease is gone."""
        self._term = term
        self._propose = propose
        self._ended = ended
        self._queue: deque[Tenure] = deque()
        self._again: list[Tenure] = []
        self._in_flight = 0
        self._allowance = float(BURST_MAX)
        self._refilled_at = now
        self._pumping = False

    @property
    def waiting(self) -> int:
        """How many are to be revoked, or being."""
        return len(self._queue) + len(self._again) + self._in_flight

    @property
    def room(self) -> int:
        """For how many more."""
        return QUEUE_MAX - self.waiting

    def add(self, tenures: list[Tenure]) -> None:
        """These have run out."""
        for tenure in tenures:
            tenure.is_ending = True
        self._queue.extend(tenures)

    def tick(self, now: float) -> None:
        """Go on with what waits."""
        self._allowance = min(BURST_MAX, self._allowance + (now - self._refilled_at) * RATE_MAX)
        self._refilled_at = now
        self._queue.extend(self._again)
        self._again = []
        self._pump()

    def _pump(self) -> None:
        # An outcome may come from within a proposal.
        if self._pumping:
            return
        self._pumping = True
        while self._queue and self._in_flight < IN_FLIGHT_MAX and self._allowance >= 1:
            tenure = self._queue.popleft()
            if tenure.gone:
                continue
            self._in_flight += 1
            self._allowance -= 1
            revoke = LeaseRevoke(tenure.id, self._term, tenure.birth)
            self._propose(revoke, partial(self._proposed, tenure))
        self._pumping = False

    def _proposed(self, tenure: Tenure, outcome: Outcome) -> None:
        self._in_flight -= 1
        if isinstance(outcome, LeaseRevokeAnswer) or _is_unknown(outcome):
            self._ended(tenure)
        elif not tenure.gone:
            # At the next tick: what refuses now refuses at once again.
            self._again.append(tenure)
        self._pump()


def _is_unknown(outcome: Outcome) -> bool:
    return isinstance(outcome, EtcdError) and outcome.reason is Reason.LEASE_NOT_FOUND
