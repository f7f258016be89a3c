"""Tells operators when all that a member holds was checked, and of damage that this found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from kvstore.replica import Replica
from kvstore.replica.scrub import ScrubFigures

__all__ = ["ScrubReport"]

log = structlog.get_logger("kvstore.scrub")

TOLD_EVERY_S: Final = 24 * 3600.0
"""So often a member's rounds that found nothing are told at the level ``info``."""


class ScrubReport:
    """A line of the log for each damage, and for a round a day, of the members of this process."""

    def __init__(
        self,
        replicas: Callable[[], Iterable[Replica]],
        round_ended: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``round_ended`` is called when a member's round has; ``clock``: seconds, only forward."""
        self._replicas = replicas
        self._round_ended = round_ended
        self._clock = clock
        self._told: dict[int, ScrubFigures] = {}
        self._quiet_until: dict[int, float] = {}

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
                self._quiet_until[member] = 0.0
            if now.rounds > before.rounds:
                self._tell_round(member, now)
                self._round_ended()

    def _tell_round(self, member: int, now: ScrubFigures) -> None:
        # Of a small store a round takes seconds: a line for each would be all that the log says.
        at = self._clock()
        tell = log.debug
        if at >= self._quiet_until.get(member, 0.0):
            tell = log.info
            self._quiet_until[member] = at + TOLD_EVERY_S
        tell("scrub has checked all", member=member, damages=now.damages)
