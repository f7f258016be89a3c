"""When the states of members differ: the leader's process has an alarm raised for who is accused.

While the alarm CORRUPT stands every member refuses writes, by the log: nobody knows what they would
rest on. It stands until somebody disarms it, who has mended the member first or taken it out; where
that is not so it is raised again by the next comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from kvstore.errors import Error
from kvstore.service.etcd.member import Model
from kvstore.state.mvcc.answers import AlarmAnswer, Answer
from kvstore.state.mvcc.requests import Alarm, AlarmAction, AlarmKind, Operation

__all__ = ["LOOK_S", "CorruptionAlarms"]

LOOK_S: Final = 0.25
"""How often it is looked for who is accused."""


class Accused(Protocol):
    """An accusation: see :class:`kvstore.replica.comparing.Accusation`."""

    @property
    def times(self) -> int: ...


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
        raised: Callable[[int], None],
    ) -> None:
        """``accused``: whom the members of this process accuse, if one of them leads. ``raised`` is
        told for which member an alarm stands now."""
        self._service = service
        self._accused = accused
        self._now = now
        self._raised = raised
        self._look_at = now()
        self._is_proposing = False
        # How often a member was accused when its alarm was last seen to stand.
        self._stood: dict[int, int] = {}

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
            if (member, AlarmKind.CORRUPT) in machine.alarms:
                self._stood[member] = accusation.times
            elif accusation.times > self._stood.get(member, 0):
                self._raise(member)

    def _raise(self, member: int) -> None:
        if self._is_proposing:
            return
        self._is_proposing = True

        def done(outcome: Answer | Error) -> None:
            # Where it came to nothing a later look tries again.
            self._is_proposing = False
            if isinstance(outcome, AlarmAnswer):
                self._raised(member)

        alarm = Alarm(AlarmAction.ACTIVATE, member, AlarmKind.CORRUPT)
        self._service.propose_for_server(alarm, done)
