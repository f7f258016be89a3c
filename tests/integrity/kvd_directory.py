"""kvd's own small files, made and read by kvd's own code.

Loads gRPC, after which nothing may fork: workers load it, the process that forks them doesn't.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import structlog

from kvstore.replica.work import AtOnce
from kvstore.server.config.data_directory import DataDirectory
from kvstore.server.nodes.cluster_node import tell_lost_memory
from kvstore.server.nodes.history import HistoryFile
from kvstore.server.peers.identity import MemberIdentity, Stage, save_identity, start_identity
from kvstore.server.peers.registry import Known, PeerRegistry, StaleMemberError, check

__all__ = ["CLUSTER", "MEMBER", "Said", "make", "read", "refused_by_peers"]

MODE = "cluster-node"
CLUSTER = "a-cluster"
MEMBER = 2
MARKS = [(1000, 5), (2000, 9), (70_000, 400)]


class Said(NamedTuple):
    """What the files say. ``warned``: what was logged while they were read."""

    identity: MemberIdentity
    known: dict[int, Known]
    marks: list[tuple[int, int]]
    warned: list[str]


def make(directory: Path, cluster: str, member: int, starts: int, mode: str) -> None:
    """The files of a member that was started so often."""
    DataDirectory(directory, mode).close()
    identity = MemberIdentity(
        cluster_id=cluster,
        member=member,
        incarnation=4_000_000_000_000_000_007 + member,
        starts=starts,
        founders="0123456789abcdef",
        stage=Stage.MEMBER,
    )
    save_identity(directory, identity)
    registry = PeerRegistry(directory, identity.incarnation)
    for other in (1, 3):
        registry.admit(other, Known(11 * other, starts), present=True)
    history = HistoryFile(directory, str(identity.incarnation), AtOnce())
    history.save([(at, revision + starts) for at, revision in MARKS])


def read(directory: Path) -> Said:
    """As kvd does at its start. Raises ConfigurationError, CorruptionError."""
    config: Any = SimpleNamespace(cluster_id=CLUSTER, self_id=MEMBER, nodes=(1, 2, 3))
    with structlog.testing.capture_logs() as logs, DataDirectory(directory, MODE):
        identity = start_identity(directory, config)
        tell_lost_memory(directory, identity, config)
        known = PeerRegistry(directory, identity.incarnation).known()
        history = HistoryFile(directory, str(identity.incarnation), AtOnce())
        marks = list(history.load())
    return Said(identity, known, marks, [line["event"] for line in logs])


def refused_by_peers(before: Said, said: Said) -> str:
    """Why a peer that knew the member ``before`` doesn't hear it now; empty: it does."""
    told, now = before.identity, said.identity
    try:
        check(told.member, Known(told.incarnation, told.starts), Known(now.incarnation, now.starts))
    except StaleMemberError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
