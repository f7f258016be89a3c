"""What a member did since it was opened, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ReplicaCounters"]


@dataclass(slots=True)
class ReplicaCounters:
    """``leader_changes`` counts each other leader that it came to know, itself included.

    Bytes of snapshots move with each part that the receiver has; snapshots are counted when whole.
    ``log_read_back_bytes``: payloads read from the log's tail for followers. ``log_tails_lost``:
    how often that tail was damaged or couldn't be read, and was given up. ``repairs_started``,
    ``repairs_done``, ``repairs_failed``: of damaged state and logs (``repair.py``); each try that
    came to nothing is counted as failed, and the next one belongs to the same repair.
    ``repairs_by_range``: of those done, for which rows of a range of keys were enough;
    ``repair_received_bytes``: of such rows.
    """

    leader_changes: int = 0
    snapshots_sent: int = 0
    snapshot_sent_bytes: int = 0
    snapshots_received: int = 0
    snapshot_received_bytes: int = 0
    log_read_back_bytes: int = 0
    log_tails_lost: int = 0
    repairs_started: int = 0
    repairs_done: int = 0
    repairs_failed: int = 0
    repairs_by_range: int = 0
    repair_received_bytes: int = 0
