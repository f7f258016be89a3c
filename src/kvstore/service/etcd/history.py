"""How much history is kept: what is older, or behind more writes, is compacted by itself.

etcd's auto-compaction, but on unless it is switched off: without it a store that is only ever
overwritten grows for ever. Every member takes note of how far the history went at which time, so
that a new leader can go on at once; the leader alone proposes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from kvstore.errors import Error
from kvstore.service.etcd.member import LocalMember, Model
from kvstore.state.mvcc.alarms import Refused, refused_by
from kvstore.state.mvcc.answers import Answer
from kvstore.state.mvcc.requests import Compact, Operation

__all__ = ["History", "Retention"]

STEPS = 16
"""So often a retention's length is looked at: history is kept for a sixteenth longer at most."""

LOOK_S = 1.0
"""How often the bytes of the log are asked for, at most."""


class Retention(NamedTuple):
    """What is kept at least, each bound 0 for none; the least of them counts.

    ``size_bytes``: of what was written to the log, as this member saw it.
    """

    seconds: float = 3600.0
    size_bytes: int = 1 << 30
    revisions: int = 0

    @property
    def is_for_ever(self) -> bool:
        """Nothing is compacted unless somebody asks."""
        return not any(self)


class Service(Protocol):
    """What is needed of :class:`kvstore.service.etcd.EtcdService`."""

    @property
    def member(self) -> LocalMember | None: ...

    @property
    def machine(self) -> Model | None: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def model_enabled(self) -> bool: ...

    def propose_here(
        self, operation: Operation, done: Callable[[Answer | Error], None]
    ) -> None: ...


class _Sample(NamedTuple):
    """How far the history went at a time, and how much had been written by then."""

    at: float
    revision: int
    written: int


class History:
    """Compacts what a retention doesn't cover. To be called at each tick; one thread."""

    def __init__(self, service: Service, retention: Retention, *, now: Callable[[], float]) -> None:
        self._service = service
        self._retention = retention
        self._now = now
        self._member: LocalMember | None = None
        self._samples: deque[_Sample] = deque()
        # The newest revision that a sample, old enough, has told of.
        self._known = 0
        self._look_at = now()
        self._is_proposing = False

    def tick(self) -> None:
        """Take note of this moment, and compact what is due."""
        now = self._now()
        service = self._service
        member, machine = service.member, service.machine
        if now < self._look_at or self._retention.is_for_ever:
            return
        self._look_at = now + LOOK_S
        if member is None or machine is None or not service.model_enabled:
            return
        if member is not self._member:
            # Another member's log has other bytes behind it: what was seen says nothing of them.
            self._member = member
            self._samples.clear()
        self._note(_Sample(now, machine.revision, member.log_bytes))
        revision = self._due(now, machine.revision, member.log_bytes)
        if refused_by(machine.alarms) is Refused.WRITES:
            return  # it would be refused, again and again
        if revision > max(machine.compacted, 1) and service.is_leader and not self._is_proposing:
            self._is_proposing = True
            service.propose_here(Compact(revision), self._done)

    def _note(self, sample: _Sample) -> None:
        """Keep a sample a sixteenth of a bound after the one before; few are ever kept."""
        samples, retention = self._samples, self._retention
        if samples:
            last = samples[-1]
            if sample.revision == last.revision:
                return
            grown_old = retention.seconds and sample.at - last.at >= retention.seconds / STEPS
            grown_large = (
                retention.size_bytes
                and sample.written - last.written >= retention.size_bytes // STEPS
            )
            if not (grown_old or grown_large):
                return
        samples.append(sample)

    def _due(self, now: float, revision: int, written: int) -> int:
        """Below which revision nothing need be kept; 0 where that isn't known."""
        retention, samples = self._retention, self._samples
        due = revision - retention.revisions if retention.revisions else 0
        while samples and (
            (retention.seconds and now - samples[0].at >= retention.seconds)
            or (retention.size_bytes and written - samples[0].written >= retention.size_bytes)
        ):
            self._known = max(self._known, samples.popleft().revision)
        return max(due, self._known)

    def _done(self, outcome: Answer | Error) -> None:
        # Where it came to nothing a later tick tries again.
        self._is_proposing = False
