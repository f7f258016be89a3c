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

    def __init__(
        self,
        replicas: Callable[[], Iterable[Replica]],
        round_ended: Callable[[], None] = lambda: None,
    ) -> None:
        """``round_ended`` is called when a member's round has."""
        self._replicas = replicas
        self._round_ended = round_ended
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
                self._round_ended()
