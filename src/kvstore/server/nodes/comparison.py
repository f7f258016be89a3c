"""What comparing the members' states shows, in the words of the log, and the alarms for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

from kvstore.replica import Replica
from kvstore.replica.comparing import SILENT_S, Accusation
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.corruption import CorruptionAlarms
from kvstore.state.mvcc.requests import AlarmKind

__all__ = ["ComparisonReport", "findings", "raise_alarms"]

Replicas = Callable[[], Iterable[Replica]]

log = structlog.get_logger("kvstore.comparison")


class ComparisonReport:
    """One line of the log at each end of what a member of this process finds."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        # By who finds it: whose state differs, isn't compared.
        self._differing: dict[int, set[int]] = {}
        self._uncompared: dict[int, set[int]] = {}

    def tick(self) -> None:
        """To be called as often as members tick."""
        for replica in self._replicas():
            if replica.failure is None:
                self._look(replica)

    def _look(self, replica: Replica) -> None:
        figures = replica.comparing.figures()
        told = self._differing.setdefault(replica.member, set())
        for member in figures.accused.keys() - told:
            reason = figures.accused[member].why
            log.error("the state of a member differs", member=member, reason=reason)
        for member in told - figures.accused.keys() if replica.is_leader else ():
            log.info("the state of a member agrees again", member=member)
        self._differing[replica.member] = set(figures.accused)
        silent = dict(figures.uncompared)
        if not replica.is_leader and (figures.compared_s or 0.0) > SILENT_S:
            silent[replica.member] = "no leader has compared it"
        told = self._uncompared.setdefault(replica.member, set())
        for member in silent.keys() - told:
            reason = silent[member]
            log.warning("the state of a member is not compared", member=member, reason=reason)
        for member in told - silent.keys():
            log.info("the state of a member is compared again", member=member)
        self._uncompared[replica.member] = set(silent)


def findings(replica: Replica) -> list[str]:
    """What an operator should know of it, a line each."""
    figures = replica.comparing.figures()
    found = [f"member {member}: {told.why}" for member, told in sorted(figures.accused.items())]
    found += [f"member {member}: its state is {why}" for member, why in figures.uncompared.items()]
    compared_s = figures.compared_s
    if compared_s is not None and compared_s > SILENT_S and not figures.accused:
        found.append(f"its own state was not found to be the others' for {compared_s:.0f} s")
    return found


def raise_alarms(etcd: EtcdService, replicas: Replicas) -> None:
    """Have alarms raised, at the ticks of ``etcd``, for members that are accused."""

    def accused() -> dict[int, Accusation]:
        return {
            member: accusation
            for replica in replicas()
            if replica.is_leader
            for member, accusation in replica.comparing.figures().accused.items()
        }

    def raised(member: int, kind: AlarmKind) -> None:
        log.error("alarm CORRUPT", member=member, writes_refused=kind is AlarmKind.CORRUPT)

    alarms = CorruptionAlarms(etcd, accused, now=time.monotonic, raised=raised)
    etcd.at_tick(alarms.tick)
