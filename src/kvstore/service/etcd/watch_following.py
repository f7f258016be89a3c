"""Has a hub of watches follow the member that takes the calls of etcd's API."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from kvstore.errors import StorageError
from kvstore.replica.work import Work
from kvstore.service.etcd.hub import WatchHub
from kvstore.service.etcd.member import Answers, Listener, LocalMember, Model

__all__ = ["Following", "Service"]


class Service(Protocol):
    """What it needs of a :class:`kvstore.service.etcd.EtcdService`."""

    @property
    def member(self) -> LocalMember | None: ...
    def listen(self, listener: Listener) -> None: ...
    def at_tick(self, call: Callable[[], None]) -> None: ...


class Following:
    """A :class:`kvstore.service.etcd.member.Listener`. One thread."""

    def __init__(
        self,
        service: Service,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        work: Work,
        rng: random.Random,
    ) -> None:
        """``now``, ``soon``, ``work`` and ``rng`` are for the hub."""
        self._service = service
        self._machine: Model | None = None
        self.hub = WatchHub(now=now, soon=soon, work=work, rng=rng, damaged=self._damaged)
        service.listen(self)
        service.at_tick(self._tick)

    def applied(self, answers: Answers, revision: int) -> None:
        """See :class:`kvstore.service.etcd.member.Listener`."""
        self._look()

    def installed(self) -> None:
        """See :class:`kvstore.service.etcd.member.Listener`."""
        self._look()

    def _look(self) -> None:
        member = self._service.member
        if member is None or not member.machine.model_enabled:
            return
        if member.machine is self._machine:
            self.hub.applied()
        else:
            self._machine = member.machine
            self.hub.follow(member.machine)

    def _tick(self) -> None:
        member = self._service.member
        if member is not None and member.machine is self._machine and member.state_is_damaged:
            # Until another state is in its place, and followed.
            self.hub.halt()
        self.hub.tick()
        if member is not None:
            member.reads_take(self.hub.reading_ticks, "watches")

    def _damaged(self, error: StorageError) -> None:
        member = self._service.member
        if member is not None:
            member.read_failed(error)
