"""Alarms, as they are applied, and what they refuse: on every member the same, by the log alone."""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Final

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import AlarmAnswer
from kvstore.state.mvcc.requests import (
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

__all__ = ["ALARMS_MAX", "Refused", "alarm", "check_alarms", "refused_by"]

ALARMS_MAX: Final = 1024
"""That stand at one time: they name members, of which there are fewer. Part of the replicated
state's rules."""


class Refused(enum.IntEnum):
    """What alarms that stand let nobody do. Numbers as what applies v1's commands has them."""

    NOTHING = 0
    PUTS = 1
    """Nor grants of leases."""
    WRITES = 2


_RAISED: Final = frozenset((AlarmKind.NOSPACE, AlarmKind.CORRUPT))
_ALWAYS: Final = Alarm | EnableModel | RaiseLevel | LeaseCheckpoint | AuthOperation


def refused_by(alarms: Collection[tuple[int, int]]) -> Refused:
    """What these, ``(member, kind)``, refuse together."""
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

    A member of 0 is that member, not all of them. Raises EtcdError where too many stand.
    """
    action, member, kind = request
    one = (member, kind)
    told: list[tuple[int, int]] = []
    if action == AlarmAction.GET:
        told = sorted(known for known in view.alarms if kind in (AlarmKind.NONE, known[1]))
    elif action == AlarmAction.ACTIVATE and kind in _RAISED:
        if one not in view.alarms:
            if len(view.alarms) >= ALARMS_MAX:
                raise EtcdError(Reason.TOO_MANY_REQUESTS)
            view.raise_alarm(*one)
        told.append(one)
    elif action == AlarmAction.DEACTIVATE and one in view.alarms:
        told.append(one)
        view.end_alarm(*one)
    return AlarmAnswer(view.revision, tuple(told))
