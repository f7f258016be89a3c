"""How much history is kept: what is older, or behind more writes, is compacted by itself.

etcd's auto-compaction, but on unless it is switched off: without it a store that is only ever
overwritten grows for ever. Every member takes note of how far the history went at which time, so
that a new leader can go on at once; the leader alone proposes.

Time is the log's (docs/adr/0006), which goes on where it was after a restart and is the same for
all members. So what was noted of it is kept on the disk, and history that is older goes however
often its members are started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from kvstore.errors import Error
from kvstore.service.etcd.member import LocalMember, Model
from kvstore.state.mvcc.alarms import Refused, refused_by
from kvstore.state.mvcc.answers import Answer
from kvstore.state.mvcc.requests import Compact, Operation

__all__ = ["History", "Kept", "Mark", "Retention"]

STEPS = 16
"""So often a retention's length is looked at: history is kept for a sixteenth longer at most."""

LOOK_S = 1.0
"""How often the bytes of the log are asked for, at most."""

SAVE_S = 60.0
"""How often what was noted of time is written to the disk, at most; not before the first."""


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


Mark = tuple[int, int]
"""How much there was of something that only grows, and the revision then."""


class Kept(Protocol):
    """Where marks of time are kept over a restart: milliseconds of the log's clock, ascending."""

    def load(self) -> Sequence[Mark]: ...
    def save(self, marks: Sequence[Mark]) -> None: ...


class _Marks:
    """Marks of which the oldest is hardly more than ``bound`` behind; few are ever kept."""

    def __init__(self, bound: int, marks: Iterable[Mark] = ()) -> None:
        """``bound`` of 0: of nothing."""
        self._bound = bound
        self.marks = deque(marks)
        # The newest revision that a mark, far enough behind, has told of.
        self._known = 0

    def note(self, at: int, revision: int) -> bool:
        """Keep a mark a sixteenth of the bound after the one before; whether it did."""
        if not self._bound:
            return False
        if self.marks:
            last_at, last_revision = self.marks[-1]
            if revision == last_revision or at - last_at < self._bound // STEPS:
                return False
        self.marks.append((at, revision))
        return True

    def due(self, at: int) -> int:
        """Below which revision nothing need be kept; 0 where that isn't known."""
        while self.marks and at - self.marks[0][0] >= self._bound:
            self._known = max(self._known, self.marks.popleft()[1])
        return self._known


class History:
    """Compacts what a retention doesn't cover. To be called at each tick; one thread."""

    def __init__(
        self, service: Service, retention: Retention, kept: Kept, *, now: Callable[[], float]
    ) -> None:
        self._service = service
        self._retention = retention
        self._kept = kept
        self._loaded = kept.load()
        self._now = now
        self._member: LocalMember | None = None
        self._times = _Marks(int(retention.seconds * 1000))
        self._sizes = _Marks(retention.size_bytes)
        self._look_at = now()
        self._save_at = now() + SAVE_S
        self._is_saved = True
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
        revision, time_ms = machine.revision, machine.clock_ms
        if service.is_leader:
            # Time passes without writes, too: it says so in the next one.
            time_ms = max(time_ms, member.log_time_ms())
        if member is not self._member:
            if self._member is None:
                self._times = _Marks(int(self._retention.seconds * 1000), self._known_of(machine))
            # Another member's log has other bytes behind it: what was seen says nothing of them.
            self._sizes = _Marks(self._retention.size_bytes)
            self._member = member
        if self._times.note(time_ms, revision):
            self._is_saved = False
        self._sizes.note(member.log_bytes, revision)
        self._save(now)
        bound = self._retention.revisions
        due = [self._times.due(time_ms), self._sizes.due(member.log_bytes)]
        revision = max(*due, revision - bound if bound else 0)
        if refused_by(machine.alarms) is Refused.WRITES:
            return  # it would be refused, again and again
        if revision > max(machine.compacted, 1) and service.is_leader and not self._is_proposing:
            self._is_proposing = True
            service.propose_here(Compact(revision), self._done)

    def _known_of(self, machine: Model) -> list[Mark]:
        """What was kept before, as far as it can be of this state."""
        marks = self._loaded
        return [
            mark for mark in marks if mark[0] <= machine.clock_ms and mark[1] <= machine.revision
        ]

    def _save(self, now: float) -> None:
        if not self._is_saved and now >= self._save_at:
            self._is_saved = True
            self._save_at = now + SAVE_S
            self._kept.save([*self._times.marks])

    def _done(self, outcome: Answer | Error) -> None:
        # Where it came to nothing a later tick tries again.
        self._is_proposing = False
