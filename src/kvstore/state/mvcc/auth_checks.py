"""Who may do what: decided where an operation is applied, and where something is read.

Of a Txn all compares and both branches count, with all Txns that are nested in them, whether or not
they are come to, and before any of them is looked at (CVE-2026-33343).
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.requests import (
    SERVER,
    Alarm,
    AlarmAction,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    Txn,
)
from kvstore.state.mvcc.source import Span

__all__ = ["HasAttached", "check_permission", "check_proposal"]

HasAttached = Callable[[int, Span], bool]
"""Whether a key of the span is on a lease."""


def check_proposal(auth: Auth, proposal: Proposal, has_attached: HasAttached) -> None:
    """Raise EtcdError unless who proposed it is known, as of now, and may do it."""
    if not auth.enabled:
        return
    operation, who = proposal.operation, proposal.who
    if who == SERVER or (who is None and _is_of_servers(operation)):
        return
    if who is None or not who.user:
        raise EtcdError(Reason.USER_EMPTY)
    if who.auth_revision != auth.revision:
        # Whoever found out who it is, and perhaps what it may do, knew other users.
        raise EtcdError(Reason.AUTH_OLD_REVISION)
    check_permission(auth, who.user, operation, has_attached)


def _is_of_servers(operation: Operation) -> bool:
    """Nobody else proposes such a thing, and kvds without users said nothing of who they are."""
    return isinstance(operation, EnableModel | RaiseLevel | LeaseCheckpoint) or (
        isinstance(operation, LeaseRevoke) and operation.term != 0
    )


def check_permission(
    auth: Auth, user: str, operation: Operation | Range, has_attached: HasAttached | None = None
) -> None:
    """Raise EtcdError unless ``user`` may do it. What only reads needs no ``has_attached``."""
    if user not in auth.users:
        raise EtcdError(Reason.PERMISSION_DENIED)
    if auth.is_root(user):
        return
    match operation:
        case Range() | Put() | DeleteRange() | Txn():
            leases: set[int] = set()
            _check_keys(auth, user, operation, leases)
        case LeaseRevoke(lease):
            leases = {lease}
        case LeaseGrant() | Alarm(action=AlarmAction.GET):
            return
        case _:
            raise EtcdError(Reason.PERMISSION_DENIED)
    if leases:
        assert has_attached is not None, "who changes leases says what is on them"
        gaps = list(auth.write_spans(user).gaps())
        # What is put on a lease goes with it, and what else is on it with that.
        if any(has_attached(lease, gap) for lease in sorted(leases) for gap in gaps):
            raise EtcdError(Reason.PERMISSION_DENIED)


def _check_keys(
    auth: Auth, user: str, operation: Range | Put | DeleteRange | Txn, leases: set[int]
) -> None:
    """Raise EtcdError unless ``user`` may do it to the keys; adds leases that get a key."""
    match operation:
        case Range(key, range_end):
            _require(auth.may_read(user, key, range_end))
        case Put(key, _, lease, prev_kv):
            _require(auth.may_write(user, key))
            _require(not prev_kv or auth.may_read(user, key))
            if lease:
                leases.add(lease)
        case DeleteRange(key, range_end, prev_kv):
            _require(auth.may_write(user, key, range_end))
            _require(not prev_kv or auth.may_read(user, key, range_end))
        case Txn(compare, success, failure):
            for condition in compare:
                _require(auth.may_read(user, condition.key, condition.range_end))
            for nested in (*success, *failure):
                _check_keys(auth, user, nested, leases)


def _require(condition: bool) -> None:
    if not condition:
        raise EtcdError(Reason.PERMISSION_DENIED)
