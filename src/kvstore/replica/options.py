"""What a member is given to run with, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.engine import Options as EngineOptions
from kvstore.errors import Error
from kvstore.raft import Options, Role
from kvstore.raft import Status as RaftStatus
from kvstore.replica.snapshots import PART_BYTES
from kvstore.replica.ticks import TICK_S
from kvstore.state import MemoryBounds

__all__ = ["ROLES", "ReplicaOptions", "ReplicaStatus"]

ROLES = ("leader", "follower", "candidate", "learner", "stopped")


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """Settings of one member.

    ``segment_bytes``: size of a log segment. ``engine``: the engine's options (its log is always
    off: the Raft log is the log). ``log_tail_bytes``: how much of the log stays on the disk, and up
    to a segment more, for members that were away; one that lacks more needs a snapshot. 0 keeps no
    more than memory does. ``catch_up_bytes_per_s``: how much of that, and of
    snapshots, is sent to them at most, less under load (``pace.py``); 0 for no limit and no giving
    way. ``snapshot_part_bytes``: what a snapshot moves at a time.
    ``memory``: what is remembered of clients; must be the same on all members. ``tick_s``: seconds
    between two calls of ``Replica.tick``. ``apply_turn_s``: what one turn gives to applying
    entries, a slice of at most ``apply_slice_entries`` at least. ``plain_state``: entries are
    applied by the readable form of what is done natively, with the same outcome.
    ``compare_s``: between two comparisons of the members' states, 0 for none. ``scrub_round_s``: in
    what time all that the member holds is read and checked once, and stored rows compared; 0 for
    neither.
    """

    raft: Options = field(default_factory=Options)
    engine: EngineOptions = field(
        default_factory=lambda: EngineOptions(wal=False, write_buffer_size=16 << 20)
    )
    segment_bytes: int = 16 << 20
    log_tail_bytes: int = 64 << 20
    catch_up_bytes_per_s: int = 0
    snapshot_part_bytes: int = PART_BYTES
    memory: MemoryBounds = field(default_factory=MemoryBounds)
    tick_s: float = TICK_S
    apply_turn_s: float = 0.005
    apply_slice_entries: int = 64
    plain_state: bool = False
    compare_s: float = 2.0
    scrub_round_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One moment of a member. ``applied`` and ``durable`` (in tables) are log indexes.

    ``remembered``: plain requests that are remembered, their bytes, and open sessions.
    ``storage_trouble``: why its storage takes nothing for now, empty when it does. ``repair``: what
    is being repaired, and why; empty when nothing is.
    ``model_enabled``, ``compacted``: see :class:`kvstore.state.StateMachine`.
    """

    raft: RaftStatus
    applied: int
    durable: int
    revision: int
    state_hash: int
    log: dict[str, int]
    engine: dict[str, object]
    failure: Error | None
    remembered: tuple[int, int, int] = (0, 0, 0)
    storage_trouble: str = ""
    repair: str = ""
    model_enabled: bool = False
    compacted: int = -1

    @property
    def role(self) -> str:
        """What operators are told: one of :data:`ROLES`."""
        if self.failure is not None:
            return "stopped"
        if self.raft.id in self.raft.membership.learners:
            return "learner"
        return {Role.LEADER: "leader", Role.FOLLOWER: "follower"}.get(self.raft.role, "candidate")
