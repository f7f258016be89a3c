"""A replica's status in the words of the Admin service."""

from __future__ import annotations

from typing import Any

from kvstore.api.v1 import admin_pb2
from kvstore.raft import Role
from kvstore.replica import Replica

__all__ = ["member_status"]

_ROLES = {
    Role.FOLLOWER: admin_pb2.ROLE_FOLLOWER,
    Role.PRE_CANDIDATE: admin_pb2.ROLE_CANDIDATE,
    Role.CANDIDATE: admin_pb2.ROLE_CANDIDATE,
    Role.LEADER: admin_pb2.ROLE_LEADER,
}


def member_status(
    replica: Replica, *, client_address: str = "", peer_address: str = ""
) -> admin_pb2.MemberStatus:
    """Return the message for one replica's status."""
    status = replica.status()
    raft = status.raft
    engine: Any = status.engine
    cache = engine["cache"]
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
        table_bytes=engine["table_bytes"],
        log_bytes=replica.directory.log_bytes(),
        free_bytes=replica.directory.free_bytes(),
        memory_bytes=engine["memtable_bytes"],
        cache_bytes=cache["used_bytes"],
        cache_capacity_bytes=cache["capacity_bytes"],
        cache_hits=cache["hits"],
        cache_misses=cache["misses"],
    )
