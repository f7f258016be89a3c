"""A replica's status in the words of the Admin service."""

from __future__ import annotations

from typing import Any

from kvstore.api.v1 import admin_pb2
from kvstore.replica import Replica
from kvstore.server.nodes.comparison import findings

__all__ = ["member_status"]


def member_status(
    replica: Replica, *, client_address: str = "", peer_address: str = ""
) -> admin_pb2.MemberStatus:
    """Return the message for one replica's status."""
    status = replica.status()
    raft = status.raft
    engine: Any = status.engine
    cache = engine["cache"]
    compared_s = replica.comparing.figures().compared_s
    scrub = replica.scrub.figures()
    return admin_pb2.MemberStatus(
        member_id=raft.id,
        role=f"ROLE_{status.role.upper()}",
        term=raft.term,
        leader_id=raft.leader,
        commit_index=raft.commit,
        applied_index=status.applied,
        last_index=raft.last_index,
        revision=status.revision,
        client_address=client_address,
        peer_address=peer_address,
        fault=(
            status.repair or status.storage_trouble
            if status.failure is None
            else str(status.failure)
        ),
        table_bytes=engine["table_bytes"],
        log_bytes=replica.directory.log_bytes(),
        free_bytes=replica.directory.free_bytes(),
        memory_bytes=engine["memtable_bytes"],
        cache_bytes=cache["used_bytes"],
        cache_capacity_bytes=cache["capacity_bytes"],
        cache_hits=cache["hits"],
        cache_misses=cache["misses"],
        findings=findings(replica),
        compared_seconds=-1.0 if compared_s is None else compared_s,
        scrub_progress=scrub.progress,
        scrub_rounds=scrub.rounds,
        scrub_ended_seconds=scrub.ended_s,
        scrub_damages=scrub.damages,
    )
