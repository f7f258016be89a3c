"""Alarms, as they are applied, and what they refuse: on every member the same, by the log alone."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from typing import Final

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import AlarmAnswer
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    Alarm,
    AlarmAction,
    AlarmKind,
    AuthOperation,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    Operation,
    Put,
    RaiseLevel,
    Txn,
)
from kvstore.state.mvcc.txn import has_put
from kvstore.state.mvcc.view import View

__all__ = ["ALARMS_MAX", "Refused", "alarm", "check_alarms", "refused_by", "told_of"]

ALARMS_MAX: Final = 1024
"""That stand at one time: they name members, of which there are fewer. Part of the replicated
state's rules."""


class Refused(enum.IntEnum):
    """What alarms that stand let nobody do. Numbers as what applies v1's commands has them."""

    NOTHING = 0
    PUTS = 1
    """Nor grants of leases."""
    WRITES = 2


_ALWAYS: Final = Alarm | EnableModel | RaiseLevel | LeaseCheckpoint | AuthOperation


def refused_by(alarms: Collection[tuple[int, int]]) -> Refused:
    """What these, ``(member, kind)``, refuse together; DIFFERS nothing."""
    kinds = {kind for _, kind in alarms}
    if AlarmKind.CORRUPT in kinds:
        return Refused.WRITES
    return Refused.PUTS if AlarmKind.NOSPACE in kinds else Refused.NOTHING


def check_alarms(view: View, operation: Operation) -> None:
    """Raise EtcdError where an alarm that stands refuses the operation."""
    if not view.alarms or isinstance(operation, _ALWAYS):
        return
    refused = refused_by(view.alarms)
    if refused is Refused.WRITES:
        raise EtcdError(Reason.CORRUPT)
    if refused is Refused.PUTS and (
        isinstance(operation, Put | LeaseGrant)
        or (isinstance(operation, Txn) and has_put(operation))
    ):
        raise EtcdError(Reason.NO_SPACE)


def alarm(view: View, request: Alarm) -> AlarmAnswer:
    """Tell of alarms, or let one stand, or stand no more; an action that isn't known does nothing.

    A member of 0 is that member, not all of them. To end CORRUPT ends DIFFERS too, which is told as
    that. Raises EtcdError where too many stand.
    """
    action, member, kind = request
    told: set[tuple[int, int]] = set()
    if action == AlarmAction.GET:
        told = {known for known in told_of(view.alarms) if kind in (AlarmKind.NONE, known[1])}
    elif action == AlarmAction.ACTIVATE and _may_stand(view, kind):
        one = (member, kind)
        if one not in view.alarms:
            if len(view.alarms) >= ALARMS_MAX:
                raise EtcdError(Reason.TOO_MANY_REQUESTS)
            view.raise_alarm(*one)
        told = told_of([one])
    elif action == AlarmAction.DEACTIVATE:
        ended = [known for known in view.alarms if told_of([known]) == {(member, kind)}]
        for one in ended:
            view.end_alarm(*one)
        told = told_of(ended)
    return AlarmAnswer(view.revision, tuple(sorted(told)))


def told_of(alarms: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those that stand, as clients are told of them."""
    return {(member, AlarmKind(kind).told_as) for member, kind in alarms}


def _may_stand(view: View, kind: int) -> bool:
    """Where not all members know DIFFERS it does nothing, as with those who don't."""
    if kind == AlarmKind.DIFFERS:
        return view.level >= LEVEL_ACCUSES
    return kind in (AlarmKind.NOSPACE, AlarmKind.CORRUPT)
