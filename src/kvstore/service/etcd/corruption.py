"""When the states of members differ: the leader's process has an alarm raised for who is accused.

Which one depends on whether it is known who is right. Where a majority of the voters agrees on
another state than a member's, it is DIFFERS, by which the member is named and nobody is refused
anything: else one member could stop all writes by lying about its own state. Where nobody will know
who is right it is CORRUPT: every member refuses writes, by the log, for nobody knows what they
would rest on. While those who would decide don't tell, no alarm is raised.

An alarm stands until somebody disarms it, who has mended the member first or taken it out; where
that is not so it is raised again by a later comparison, once in a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from kvstore.errors import Error
from kvstore.service.etcd.member import Model
from kvstore.state.mvcc.answers import AlarmAnswer, Answer
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    Alarm,
    AlarmAction,
    AlarmKind,
    Operation,
)

__all__ = ["AGAIN_S", "LOOK_S", "RETRY_S", "CorruptionAlarms"]

LOOK_S: Final = 0.25
"""How often it is looked for who is accused."""

AGAIN_S: Final = 10.0
"""Between two entries of the log about one member, whatever it does and however often somebody
disarms it."""


RETRY_S: Final = 1.0
"""And after a try that came to nothing."""


class Accused(Protocol):
    """An accusation: see :class:`kvstore.replica.comparing.Accusation`."""

    @property
    def times(self) -> int: ...

    @property
    def is_attributed(self) -> bool: ...

    @property
    def is_unattributed(self) -> bool: ...


class Service(Protocol):
    """What is needed of :class:`kvstore.service.etcd.EtcdService`."""

    @property
    def machine(self) -> Model | None: ...

    @property
    def model_enabled(self) -> bool: ...

    def propose_for_server(
        self, operation: Operation, done: Callable[[Answer | Error], None]
    ) -> None: ...


class CorruptionAlarms:
    """Of one process. To be called at each tick; one thread."""

    def __init__(
        self,
        service: Service,
        accused: Callable[[], Mapping[int, Accused]],
        *,
        now: Callable[[], float],
        raised: Callable[[int, AlarmKind], None],
    ) -> None:
        """``accused``: whom the members of this process accuse, if one of them leads. ``raised`` is
        told for which member which alarm stands now."""
        self._service = service
        self._accused = accused
        self._now = now
        self._raised = raised
        self._look_at = now()
        self._is_proposing = False
        # How often a member was accused when its alarm was last seen to stand; and from when on
        # it may be proposed again to raise one.
        self._stood: dict[int, int] = {}
        self._not_before: dict[int, float] = {}

    def tick(self) -> None:
        """Look, if it is time."""
        now = self._now()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        machine = self._service.machine
        if machine is None or not self._service.model_enabled:
            return  # there are no alarms; log, metrics and status tell
        accused = self._accused()
        for gone in self._stood.keys() - accused.keys():
            del self._stood[gone]
        for member, accusation in accused.items():
            kind = _kind_of(accusation, machine)
            if kind is None:
                continue
            if {(member, kind), (member, AlarmKind.CORRUPT)} & set(machine.alarms):
                self._stood[member] = accusation.times
            elif accusation.times > self._stood.get(member, 0):
                self._raise(member, kind)

    def _raise(self, member: int, kind: AlarmKind) -> None:
        if self._is_proposing or self._now() < self._not_before.get(member, 0.0):
            return
        self._is_proposing = True

        def done(outcome: Answer | Error) -> None:
            # Where it came to nothing a later look tries again.
            self._is_proposing = False
            is_raised = isinstance(outcome, AlarmAnswer)
            self._not_before[member] = self._now() + (AGAIN_S if is_raised else RETRY_S)
            if is_raised:
                self._raised(member, kind)

        self._service.propose_for_server(Alarm(AlarmAction.ACTIVATE, member, kind), done)


def _kind_of(accusation: Accused, machine: Model) -> AlarmKind | None:
    """The alarm that is to stand for it; None for none, or where not all members know it yet."""
    if accusation.is_unattributed:
        return AlarmKind.CORRUPT
    if accusation.is_attributed and machine.level >= LEVEL_ACCUSES:
        return AlarmKind.DIFFERS
    return None
