"""Tells operators what members found at their start, and of trouble with their storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from kvstore.replica import Replica
from kvstore.replica.recovery import Decision

__all__ = ["REASON_TICKS", "StorageReport"]

REASON_TICKS = 200
"""As long as a reason must have been told before another one is: they may change to and fro."""

log = structlog.get_logger("kvstore.storage")


class StorageReport:
    """A line of the log at each end of a trouble, and where its reason has become another one, for
    each member of this process."""

    def __init__(self, replicas: Callable[[], Iterable[Replica]]) -> None:
        self._replicas = replicas
        # What was told of a member, and how many ticks ago.
        self._told: dict[int, tuple[str, int]] = {}
        self._repairs: dict[int, str] = {}
        self._repaired: dict[int, int] = {}
        self._fallen_back: dict[int, str] = {}
        self._logs: dict[int, str] = {}
        self._started: set[int] = set()
        self._aside: set[int] = set()

    def tick(self) -> None:
        """To be called as often as members tick."""
        for replica in self._replicas():
            if replica.member not in self._started:
                self._started.add(replica.member)
                _tell_of_start(replica)
            self._tell_of_vote(replica)
            self._tell_of_repair(replica)
            self._tell_of_log(replica)
            self._tell_of_trouble(replica.member, replica.storage_trouble)

    def _tell_of_vote(self, replica: Replica) -> None:
        member = replica.member
        if replica.stands_aside and member not in self._aside:
            self._aside.add(member)
            reason = replica.log_short or replica.recovery.name
            if replica.recovery.decision is not Decision.STAND_ASIDE:
                reason = "its leader remembers more of its log than is there"
            log.warning(
                "stands aside: its vote counts for nothing yet", member=member, reason=reason
            )
        elif not replica.stands_aside and member in self._aside and not replica.failure:
            self._aside.discard(member)
            log.warning("votes again: it has all that was acknowledged", member=member)

    def _tell_of_trouble(self, member: int, trouble: str) -> None:
        told, ticks = self._told.get(member, ("", REASON_TICKS))
        if trouble and trouble != told and ticks >= REASON_TICKS:
            self._told[member] = trouble, 0
            log.error("storage takes no writes", member=member, reason=trouble)
        elif trouble:
            self._told[member] = told, ticks + 1
        elif told:
            del self._told[member]
            log.info("storage takes writes again", member=member, was=told)

    def _tell_of_repair(self, replica: Replica) -> None:
        member, repair = replica.member, replica.repair.under_way
        if repair and member not in self._repairs:
            self._repairs[member] = repair
            log.error("repair begun", member=member, reason=repair)
        why = replica.repair.fallen_back
        if why and why != self._fallen_back.get(member):
            log.warning("repair needs the whole state", member=member, reason=why)
        self._fallen_back[member] = why
        done = replica.counters.repairs_done
        if not repair and (member in self._repairs or done > self._repaired.get(member, 0)):
            # One that is done between two ticks has this line alone.
            reason = self._repairs.pop(member, "")
            counters = replica.counters
            log.warning(
                "repair done",
                member=member,
                was=reason,
                failed_tries=counters.repairs_failed,
                by_range=counters.repairs_by_range,
                received_rows_bytes=counters.repair_received_bytes,
            )
        self._repaired[member] = done

    def _tell_of_log(self, replica: Replica) -> None:
        trouble = replica.log_trouble
        if trouble == self._logs.get(replica.member, ""):
            return
        self._logs[replica.member] = trouble
        if trouble:
            log.error("entries of the log are damaged", member=replica.member, reason=trouble)
        else:
            log.info("the log is whole again", member=replica.member)


def _tell_of_start(replica: Replica) -> None:
    decision = replica.recovery.decision
    if decision is Decision.CUT:
        log.info("a torn tail of the log was cut off", member=replica.member)
    if replica.vote_lost:
        log.warning(
            "term and vote were damaged, and are its own alone: it goes on in a later term",
            member=replica.member,
            reason=replica.vote_lost,
        )
    if replica.note_damage:
        reason = replica.note_damage
        log.warning("the note of the log's end is damaged", member=replica.member, reason=reason)
