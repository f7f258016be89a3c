"""Consensus as a pure function (Raft): ticks, messages and proposals in, bundles of work out."""

from kvstore.raft.core import Raft, bootstrap
from kvstore.raft.messages import (
    NOBODY,
    Bundle,
    Entry,
    EntryKind,
    Fetch,
    HardState,
    Membership,
    Message,
    MessageKind,
    Proposed,
    ReadState,
    Role,
    SnapshotMeta,
)
from kvstore.raft.options import Options
from kvstore.raft.progress import PeerState
from kvstore.raft.status import PeerStatus, Status

__all__ = [
    "NOBODY",
    "Bundle",
    "Entry",
    "EntryKind",
    "Fetch",
    "HardState",
    "Membership",
    "Message",
    "MessageKind",
    "Options",
    "PeerState",
    "PeerStatus",
    "Proposed",
    "Raft",
    "ReadState",
    "Role",
    "SnapshotMeta",
    "Status",
    "bootstrap",
]
