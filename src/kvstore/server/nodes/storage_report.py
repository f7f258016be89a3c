"""Tells operators what members found at their start, and of trouble with their storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from kvstore.replica import Replica
from kvstore.replica.recovery import Decision

__all__ = ["StorageReport"]

log = structlog.get_logger("kvstore.storage")


class StorageReport:
    """One line of the log at each end of a trouble, for each member of this process."""

    def __init__(self, replicas: Callable[[], Iterable[Replica]]) -> None:
        self._replicas = replicas
        self._told: dict[int, str] = {}
        self._repairs: dict[int, str] = {}
        self._repaired: dict[int, int] = {}
        self._logs: dict[int, str] = {}
        self._started: set[int] = set()

    def tick(self) -> None:
        """To be called as often as members tick."""
        for replica in self._replicas():
            if replica.member not in self._started:
                self._started.add(replica.member)
                _tell_of_start(replica)
            self._tell_of_repair(replica)
            self._tell_of_log(replica)
            trouble = replica.storage_trouble
            if bool(trouble) == (replica.member in self._told):
                continue
            if trouble:
                self._told[replica.member] = trouble
                log.error("storage takes no writes", member=replica.member, reason=trouble)
            else:
                reason = self._told.pop(replica.member)
                log.info("storage takes writes again", member=replica.member, was=reason)

    def _tell_of_repair(self, replica: Replica) -> None:
        member, repair = replica.member, replica.repair.under_way
        if repair and member not in self._repairs:
            self._repairs[member] = repair
            log.error("repair begun", member=member, reason=repair)
        done = replica.counters.repairs_done
        if not repair and (member in self._repairs or done > self._repaired.get(member, 0)):
            # One that is done between two ticks has this line alone.
            reason = self._repairs.pop(member, "")
            failed = replica.counters.repairs_failed
            log.warning("repair done", member=member, was=reason, failed_tries=failed)
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
    elif decision is Decision.STAND_ASIDE:
        log.warning(
            "stands aside: its vote counts for nothing yet",
            member=replica.member,
            reason=replica.log_short or replica.recovery.name,
        )
    if replica.note_damage:
        reason = replica.note_damage
        log.warning("the note of the log's end is damaged", member=replica.member, reason=reason)
