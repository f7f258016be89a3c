"""A replica's status in the words of the Admin service."""

from __future__ import annotations

from kvstore.api.v1 import admin_pb2
from kvstore.raft import Role
from kvstore.replica import ReplicaStatus

__all__ = ["member_status"]

_ROLES = {
    Role.FOLLOWER: admin_pb2.ROLE_FOLLOWER,
    Role.PRE_CANDIDATE: admin_pb2.ROLE_CANDIDATE,
    Role.CANDIDATE: admin_pb2.ROLE_CANDIDATE,
    Role.LEADER: admin_pb2.ROLE_LEADER,
}


def member_status(
    status: ReplicaStatus, *, client_address: str = "", peer_address: str = ""
) -> admin_pb2.MemberStatus:
    """Return the message for one replica's status."""
    raft = status.raft
    role = _ROLES[raft.role]
    if raft.id in raft.membership.learners:
        role = admin_pb2.ROLE_LEARNER
    if status.failure is not None:
        role = admin_pb2.ROLE_STOPPED
    return admin_pb2.MemberStatus(
        member_id=raft.id,
        role=role,
        term=raft.term,
        leader_id=raft.leader,
        commit_index=raft.commit,
        applied_index=status.applied,
        last_index=raft.last_index,
        revision=status.revision,
        client_address=client_address,
        peer_address=peer_address,
        fault="" if status.failure is None else str(status.failure),
    )
