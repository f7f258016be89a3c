"""When a store is full: the member that finds it so has an alarm raised.

While the alarm NOSPACE stands every member refuses, at apply, what would make the store grow: so
what is refused depends on the log alone, and never on the disk of whoever applies it. Deletes and
compactions go on, and make room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from kvstore.errors import Error
from kvstore.replica.work import Work
from kvstore.service.etcd.member import LocalMember, Model
from kvstore.state.mvcc.answers import AlarmAnswer, Answer
from kvstore.state.mvcc.requests import Alarm, AlarmAction, AlarmKind, Operation

__all__ = ["DISK_RESERVE_BYTES", "Quota", "QuotaFigures"]

DISK_RESERVE_BYTES: Final = 128 << 20
"""A disk is nearly full when it has less left: enough for the deletes and compactions
that are to make room, whose log, memtables and new tables come before the old ones go."""

LOOK_S: Final = 0.5
"""How often sizes are looked at: what is written in between is how far a store may go beyond."""


class QuotaFigures(NamedTuple):
    """For metrics. ``quota_bytes``: 0 for none; ``alarms``: (member, kind) of those that stand."""

    quota_bytes: int
    stored_bytes: int
    alarms: frozenset[tuple[int, int]]


class Service(Protocol):
    """What is needed of :class:`kvstore.service.etcd.EtcdService`."""

    @property
    def member_id(self) -> int: ...

    @property
    def member(self) -> LocalMember | None: ...

    @property
    def machine(self) -> Model | None: ...

    @property
    def model_enabled(self) -> bool: ...

    def propose_for_server(
        self, operation: Operation, done: Callable[[Answer | Error], None]
    ) -> None: ...


Told = Callable[[str], None]
"""Gets in words why an alarm was raised, or that it was ended."""


class Quota:
    """Of the member that takes the calls of this process. To be called at each tick; one thread.

    A store beyond its quota raises the alarm, and once it is disarmed raises it again with the next
    write: whoever disarms it has to make room first, as in etcd. A disk that is nearly full does so
    where there is no other: in a cluster members with room go on, and one of them leads. That alarm
    is ended by the process that raised it, once there is twice as much left, since disks are
    emptied by others who know nothing of it.
    """

    def __init__(
        self,
        service: Service,
        quota_bytes: int,
        *,
        now: Callable[[], float],
        work: Work,
        raised: Told,
        ended: Told,
        is_alone: Callable[[], bool],
        reserve_bytes: int = DISK_RESERVE_BYTES,
    ) -> None:
        """``quota_bytes``: 0 for none. ``work`` asks the disk, which may hang. ``is_alone``: all
        voters are in this process. ``raised`` and ``ended`` are told why."""
        self._service = service
        self._quota_bytes = quota_bytes
        self._reserve_bytes = reserve_bytes
        self._now = now
        self._work = work
        self._raised = raised
        self._ended = ended
        self._is_alone = is_alone
        self._look_at = now()
        self._is_asking = False
        self._is_proposing = False
        # The revision when the alarm was last seen to stand.
        self._revision = 0
        # The alarm that stands, or may come to, is this process's, and its disk the only reason.
        self._is_for_disk = False
        # It has stood since then. What was proposed may be applied long after that was given up.
        self._was_seen = False

    def figures(self) -> QuotaFigures:
        """This moment."""
        machine = self._service.machine
        if machine is None:
            return QuotaFigures(self._quota_bytes, 0, frozenset())
        return QuotaFigures(self._quota_bytes, machine.stored_bytes, frozenset(machine.alarms))

    def tick(self) -> None:
        """Look, if it is time."""
        now = self._now()
        service = self._service
        member, machine = service.member, service.machine
        if now < self._look_at or member is None or machine is None or not service.model_enabled:
            return
        self._look_at = now + LOOK_S
        stored = machine.stored_bytes
        stands = self._stands
        if stands:
            self._revision = machine.revision
            self._was_seen = True
        if self._is_over(stored):
            self._is_for_disk = False
            if not stands and machine.revision != self._revision:
                self._raise(
                    f"the store has {stored} bytes, of a quota of {self._quota_bytes}: it takes "
                    "deletes only until there is room and the alarm is disarmed"
                )
        elif not self._is_asking and (self._is_for_disk or self._is_alone()):
            self._ask_disk(member)

    def _is_over(self, stored: int) -> bool:
        return 0 < self._quota_bytes <= stored

    @property
    def _stands(self) -> bool:
        machine = self._service.machine
        return machine is not None and self._alarm in machine.alarms

    @property
    def _alarm(self) -> tuple[int, int]:
        return self._service.member_id, AlarmKind.NOSPACE

    def _ask_disk(self, member: LocalMember) -> None:
        self._is_asking = True
        free: list[int] = []

        def answered() -> None:
            self._is_asking = False
            if free and self._service.member is member:
                self._judge_disk(free[0])

        self._work.run("free bytes", lambda: free.append(member.free_bytes()), answered)

    def _judge_disk(self, free: int) -> None:
        if free < self._reserve_bytes:
            if not self._stands:
                self._is_for_disk = True
                self._was_seen = False
                self._raise(
                    f"the disk has {free} bytes left, of {self._reserve_bytes} that it should: the "
                    "store takes deletes only until there are twice as many"
                )
        elif self._is_for_disk and free >= 2 * self._reserve_bytes:
            if self._stands:
                reason = f"the disk has room again: {free} bytes"
                self._propose(AlarmAction.DEACTIVATE, reason, self._ended)
            elif self._was_seen:
                self._is_for_disk = False

    def _raise(self, reason: str) -> None:
        self._propose(AlarmAction.ACTIVATE, reason, self._raised)

    def _propose(self, action: AlarmAction, reason: str, told: Told) -> None:
        if self._is_proposing:
            return
        self._is_proposing = True

        def done(outcome: Answer | Error) -> None:
            # Where it came to nothing a later look tries again.
            self._is_proposing = False
            if isinstance(outcome, AlarmAnswer):
                told(reason)

        self._service.propose_for_server(Alarm(action, *self._alarm), done)
