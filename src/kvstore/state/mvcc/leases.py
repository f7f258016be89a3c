"""Leases, as their operations are applied. No clock is asked here: the leader's lessor has it."""

from __future__ import annotations

from typing import Final

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import (
    LeaseCheckpointAnswer,
    LeaseGrantAnswer,
    LeaseRevokeAnswer,
)
from kvstore.state.mvcc.records import LeaseRecord
from kvstore.state.mvcc.requests import (
    FOR_EVER,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
)
from kvstore.state.mvcc.view import View

__all__ = ["LEASES_MAX", "birth_of", "checkpoint", "grant", "revoke"]

LEASES_MAX: Final = 1_000_000
"""That stand at one time: each member holds all of them in memory, whatever their keys. Part of the
replicated state's rules."""

_BIRTH_BYTES: Final = 8


def birth_of(proposal_id: bytes) -> int:
    """The birth of the lease that the proposal grants."""
    return int.from_bytes(proposal_id[:_BIRTH_BYTES], "big")


def grant(view: View, request: LeaseGrant, birth: int) -> LeaseGrantAnswer:
    """Make a lease; raises EtcdError."""
    lease, ttl = request
    if not lease:
        raise EtcdError(Reason.LEASE_NOT_FOUND)
    if view.lease(lease) is not None:
        raise EtcdError(Reason.LEASE_EXISTS)
    if view.lease_count >= LEASES_MAX:
        raise EtcdError(Reason.TOO_MANY_REQUESTS)
    ttl = max(ttl, 1)
    view.set_lease(lease, LeaseRecord(ttl, FOR_EVER, birth))
    return LeaseGrantAnswer(view.revision, lease, ttl)


def revoke(view: View, request: LeaseRevoke, term: int) -> LeaseRevokeAnswer | EtcdError:
    """End a lease and delete its keys, in their order and at one revision; raises EtcdError.

    Of keys that are too much for an entry it deletes as many as there is room for, and returns
    TOO_MANY_REQUESTS: the lease still stands, for another one to go on. Refused as a whole it would
    stand, and be revoked in vain, for ever.

    ``term``: of the entry. A leader that was deposed meanwhile may have seen a lease expire that
    its successor has prolonged (etcd's #15247).
    """
    lease = request.id
    record = view.lease(lease)
    if request.term and request.term != term:
        raise EtcdError(Reason.LEADER_CHANGED)
    if record is None or (request.term and record.birth != request.birth):
        raise EtcdError(Reason.LEASE_NOT_FOUND)
    for kv in view.attached(lease):
        if not view.has_room_for(kv):
            view.commit()
            return EtcdError(Reason.TOO_MANY_REQUESTS)
        view.delete(kv)
    view.set_lease(lease, None)
    return LeaseRevokeAnswer(view.commit(), lease)


def checkpoint(view: View, request: LeaseCheckpoint, term: int) -> LeaseCheckpointAnswer:
    """Note what is left of leases; passes over those that are gone, or others by now.

    ``term``: of the entry. What a leader notes is no more true once another one has renewed leases
    (raises EtcdError).
    """
    if request.term != term:
        raise EtcdError(Reason.LEADER_CHANGED)
    for lease, birth, rest in request.rests:
        record = view.lease(lease)
        if record is not None and record.birth == birth:
            known = rest if 0 <= rest <= record.ttl else FOR_EVER
            view.set_lease(lease, record._replace(rest=known))
    return LeaseCheckpointAnswer(view.revision)
