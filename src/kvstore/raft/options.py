"""The settings of one member. All members of a cluster use the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.errors import ConfigurationError

__all__ = ["Options"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """Bounds and timings. Ticks are whatever the caller calls ``Raft.tick()`` with.

    ``election_ticks``: a follower that hears nothing for this long to twice this long (drawn at
    random) campaigns (Raft §5.2); a leader without contact to a quorum for this long steps down.
    ``heartbeat_ticks``: pause between heartbeats; less than ``election_ticks``.
    ``pulse_ticks``: a member whose process lives, as ``Raft.pulse`` is told, counts as heard for so
    long after its last message; 0: messages alone count.

    ``message_bytes_max``: payload of one APPEND; a single larger entry still goes, alone.
    ``message_entries_max``: entries in one.
    ``inflight_messages_max``, ``inflight_bytes_max``: what a follower may be sent beyond what
    it acknowledged. ``uncommitted_bytes_max``: proposals are refused while more than this waits
    for commit. ``apply_bytes_max``: committed entries offered and not yet applied.
    ``log_bytes_max``: the log kept in memory; proposals and appends are refused beyond it, and
    from half of it on ``Raft.wants_compaction`` asks for a compaction.
    ``log_entries_max``: the same by count. ``tail_entries``, ``tail_bytes``: what a compaction
    leaves for slow followers, whichever is reached first. ``transfer_bytes``: what it leaves at
    most for a follower to which a snapshot is under way or was sent lately, as it needs what
    follows that snapshot next.
    ``proposal_bytes_max``: one command.
    ``reads_waiting_max``: reads in the core. ``read_ticks_max``: a read that could not be
    confirmed for this long is given up; 0 means twice ``election_ticks``.
    ``promote_lag_max``: a learner may lack this many committed entries when it is promoted.
    """

    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pulse_ticks: int = 0
    message_bytes_max: int = MIB
    message_entries_max: int = 4096
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 16 * MIB
    uncommitted_bytes_max: int = 64 * MIB
    apply_bytes_max: int = 16 * MIB
    log_bytes_max: int = 256 * MIB
    log_entries_max: int = 1_000_000
    tail_entries: int = 10_000
    tail_bytes: int = 16 * MIB
    transfer_bytes: int = 64 * MIB
    proposal_bytes_max: int = 8 * MIB
    reads_waiting_max: int = 10_000
    read_ticks_max: int = 0
    promote_lag_max: int = 1_000

    def __post_init__(self) -> None:
        """Raise ConfigurationError for values that contradict each other."""
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ConfigurationError(
                f"heartbeat_ticks={self.heartbeat_ticks} must be at least 1 and less than "
                f"election_ticks={self.election_ticks}"
            )
        for name in (
            "message_bytes_max",
            "message_entries_max",
            "inflight_messages_max",
            "inflight_bytes_max",
            "uncommitted_bytes_max",
            "apply_bytes_max",
            "log_bytes_max",
            "log_entries_max",
            "proposal_bytes_max",
            "reads_waiting_max",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}={getattr(self, name)} must be at least 1")
        for name in (
            "pulse_ticks",
            "tail_entries",
            "tail_bytes",
            "transfer_bytes",
            "read_ticks_max",
            "promote_lag_max",
        ):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name}={getattr(self, name)} must be at least 0")
        if 2 * self.uncommitted_bytes_max > self.log_bytes_max:
            raise ConfigurationError(
                f"log_bytes_max={self.log_bytes_max} must be at least twice "
                f"uncommitted_bytes_max={self.uncommitted_bytes_max}"
            )
