"""The leases of a process: its lessor, the calls of it, and what both hear of the local member."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvstore.service.etcd.lease_calls import AskLeader, LeaseCalls
from kvstore.service.etcd.lessor import Lessor, ttl_min_s
from kvstore.service.etcd.member import Answers, LocalMember
from kvstore.service.etcd.service import EtcdService

__all__ = ["LeaseFigures", "Leases"]


class LeaseFigures(NamedTuple):
    """For metrics. ``leases``: in the state of the local member; ``waiting``: renewals and
    questions here. Of this process as a leader: ``ending`` (leases that have run out and are not
    gone), and since its start, ``expired``, ``renewed``, ``rounds`` (reads asked of a quorum for
    all that) and ``stalls`` (of its loop, after which nothing runs out for a while)."""

    leases: int
    waiting: int
    ending: int
    expired: int
    renewed: int
    rounds: int
    stalls: int


class Leases:
    """Beside an :class:`EtcdService`, for as long as that is there. One thread."""

    def __init__(
        self,
        service: EtcdService,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        ask_leader: AskLeader | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """As for :class:`LeaseCalls`. ``clock``: by which leases run out, ``now`` if not given."""
        self._service = service
        self.ttl_min_s = ttl_min_s(service.election_timeout_s)
        self.lessor = Lessor(
            self._leading,
            service.propose_here,
            election_timeout_s=service.election_timeout_s,
            now=now if clock is None else clock,
            soon=soon,
        )
        self.calls = LeaseCalls(
            service,
            self.lessor,
            patience_s=service.patience_s,
            now=now,
            soon=soon,
            ask_leader=ask_leader,
        )
        service.listen(self)
        service.at_tick(self._tick)

    def _leading(self) -> LocalMember | None:
        return self._service.member if self._service.is_leader else None

    def applied(self, answers: Answers, revision: int) -> None:
        """The local member has applied a slice."""
        member = self._leading()
        if member is not None and answers:
            self.lessor.applied(member, answers)

    def installed(self) -> None:
        """The local member's state is another one; it doesn't lead, or has only begun to."""

    def _tick(self) -> None:
        self.lessor.tick()
        self.calls.tick()

    def figures(self) -> LeaseFigures:
        """This moment, for metrics."""
        machine = self._service.machine
        figures = self.lessor.figures
        return LeaseFigures(
            0 if machine is None else len(machine.leases()),
            self.calls.waiting,
            self.lessor.ending,
            figures.expired,
            figures.renewed,
            figures.rounds,
            figures.stalls,
        )

    def close(self) -> None:
        """The members of this process do nothing any more."""
        self.calls.close()
