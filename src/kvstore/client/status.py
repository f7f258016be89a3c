"""What a server says about itself and its members."""

from __future__ import annotations

from dataclasses import dataclass, fields

from kvstore.api.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One replica. ``leader_id`` is whom it believes to lead, 0 when it knows of nobody."""

    member_id: int
    role: str
    """``leader``, ``follower``, ``candidate``, ``learner``, ``stopped`` or ``unspecified``."""
    term: int
    leader_id: int
    commit_index: int
    applied_index: int
    last_index: int
    revision: int
    client_address: str
    peer_address: str
    fault: str
    """Why it stopped; empty while it works."""
    table_bytes: int = 0
    """Its state on disk."""
    log_bytes: int = 0
    """Its log on disk, reserved space included."""
    free_bytes: int = 0
    """What its disk has left."""
    memory_bytes: int = 0
    """Writes that are not in tables yet."""
    cache_bytes: int = 0
    """Blocks in memory, of ``cache_capacity_bytes`` at most."""
    cache_capacity_bytes: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    findings: tuple[str, ...] = ()
    """What operators should know of it, or what it found of others."""
    compared_seconds: float = -1.0
    """Since its state was last found to be the others'; -1: there is nobody to compare with."""
    scrub_progress: float = -1.0
    """Of the round under way in which all that it holds is read and checked; -1: there is none."""
    scrub_rounds: int = 0
    """That ended, since it was opened."""
    scrub_ended_seconds: float = -1.0
    """Since one ended last; -1: none did yet."""
    scrub_damages: int = 0
    """That they found."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What one kvd knows: its version, mode and the members it can see.

    ``warnings`` say what it is open to.
    """

    version: str
    mode: str
    leader_id: int
    uptime_s: float
    members: tuple[MemberStatus, ...]
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: admin_pb2.StatusResponse) -> ClusterStatus:
        return cls(
            version=message.version,
            mode=message.mode,
            leader_id=message.leader_id,
            uptime_s=message.uptime_seconds,
            members=tuple(_member(member) for member in message.members),
            warnings=tuple(message.warnings),
        )


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a cluster; a ``learner`` gets the log and doesn't vote."""

    member_id: int
    client_address: str
    peer_address: str
    learner: bool


@dataclass(frozen=True, slots=True)
class SlowCall:
    """So many calls of clients that came to a server together, took long, and ended alike.

    ``ended_at``: seconds since 1970, by its clock. ``method``: as its metrics name it; ``code``:
    gRPC's, by name. ``request_bytes``: of all of them. ``queue_s``, ``commit_s``, ``apply_s``:
    until their entry of the log was proposed, then committed, then applied; None where that isn't
    known: of reads, and of what another member did.
    """

    ended_at: float
    method: str
    code: str
    calls: int
    request_bytes: int
    seconds: float
    queue_s: float | None
    commit_s: float | None
    apply_s: float | None

    @classmethod
    def from_message(cls, message: admin_pb2.SlowCall) -> SlowCall:
        known = message.HasField("queue_seconds")
        return cls(
            ended_at=message.ended_at,
            method=message.method,
            code=message.code,
            calls=message.calls,
            request_bytes=message.request_bytes,
            seconds=message.seconds,
            queue_s=message.queue_seconds if known else None,
            commit_s=message.commit_seconds if known else None,
            apply_s=message.apply_seconds if known else None,
        )


@dataclass(frozen=True, slots=True)
class Repairs:
    """What a member checks and repairs; counts are since its start.

    ``checks``: of all that it holds, to their end. ``checked``: share of the one under way, 0.0
    where none is. ``damages``: found by checks. ``repairing``: what is repaired now, and why, empty
    while nothing is. ``repairs_started``, ``repairs_done``, and ``repairs_failed``, tries that came
    to nothing: whoever found the damage. ``repairs_by_range``: of those done, by rows of other
    members, not by their whole state; ``repair_received_bytes``: of such rows. ``fault``: why it
    stopped, empty while it runs.
    """

    member_id: int
    checks: int
    checked: float
    damages: int
    repairing: str
    repairs_started: int
    repairs_done: int
    repairs_failed: int
    fault: str
    repairs_by_range: int = 0
    repair_received_bytes: int = 0

    @classmethod
    def from_message(cls, message: admin_pb2.MemberRepair) -> Repairs:
        return cls(
            member_id=message.member_id,
            checks=message.checks,
            checked=message.checked,
            damages=message.damages,
            repairing=message.repairing,
            repairs_started=message.repairs_started,
            repairs_done=message.repairs_done,
            repairs_failed=message.repairs_failed,
            fault=message.fault,
            repairs_by_range=message.repairs_by_range,
            repair_received_bytes=message.repair_received_bytes,
        )


@dataclass(frozen=True, slots=True)
class Members:
    """Who belongs to the cluster, by id, and who leads it."""

    leader_id: int
    members: tuple[Member, ...]

    @classmethod
    def from_message(cls, message: admin_pb2.MembersResponse) -> Members:
        return cls(
            leader_id=message.leader_id,
            members=tuple(
                Member(one.member_id, one.client_address, one.peer_address, one.learner)
                for one in message.members
            ),
        )


# A role is an enumeration there and a word here, and what is repeated is a tuple; everything else
# has the message's name and value.
_COPIED = tuple(
    field.name for field in fields(MemberStatus) if field.name not in ("role", "findings")
)


def _member(message: admin_pb2.MemberStatus) -> MemberStatus:
    return MemberStatus(
        role=admin_pb2.Role.Name(message.role).removeprefix("ROLE_").lower(),
        findings=tuple(message.findings),
        **{name: getattr(message, name) for name in _COPIED},
    )
