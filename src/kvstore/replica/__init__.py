"""One member of a cluster: core, log, state machine, transport and time, tied together."""

from kvstore.replica.group import Group, InProcessNetwork, is_fresh
from kvstore.replica.listener import Listener
from kvstore.replica.packets import (
    Packet,
    RangeLoan,
    RangeWish,
    SnapshotPart,
    SnapshotProgress,
    StateProbe,
    StateReport,
    Transport,
    decode_packet,
    encode_packet,
)
from kvstore.replica.replica import Replica, ReplicaOptions, ReplicaStatus
from kvstore.replica.storage import Identity
from kvstore.replica.work import Work, WorkerThreads

__all__ = [
    "Group",
    "Identity",
    "InProcessNetwork",
    "Listener",
    "Packet",
    "RangeLoan",
    "RangeWish",
    "Replica",
    "ReplicaOptions",
    "ReplicaStatus",
    "SnapshotPart",
    "SnapshotProgress",
    "StateProbe",
    "StateReport",
    "Transport",
    "Work",
    "WorkerThreads",
    "decode_packet",
    "encode_packet",
    "is_fresh",
]
