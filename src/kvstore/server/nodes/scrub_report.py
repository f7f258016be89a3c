"""Tells operators when all that a member holds was checked, and of damage that this found."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from kvstore.replica import Replica
from kvstore.replica.scrub import ScrubFigures

__all__ = ["ScrubReport"]

log = structlog.get_logger("kvstore.scrub")


class ScrubReport:
    """A line of the log for each round, and for each damage, of the members of this process."""

    def __init__(self, replicas: Callable[[], Iterable[Replica]]) -> None:
        self._replicas = replicas
        self._told: dict[int, ScrubFigures] = {}

    def tick(self) -> None:
        """To be called as often as members tick."""
        for replica in self._replicas():
            member = replica.member
            now = replica.scrub.figures()
            before = self._told.get(member)
            self._told[member] = now
            if before is None:
                continue
            if now.damages > before.damages:
                damage = str(replica.scrub.damage)
                log.error("scrub found damage", member=member, reason=damage)
            if now.rounds > before.rounds:
                log.info("scrub has checked all", member=member, damages=now.damages)
