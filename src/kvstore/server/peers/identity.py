"""Whose data a cluster node's directory holds, and how often it was started.

The file ``MEMBER`` is written before anything else. Its incarnation is random: a member whose disk
was wiped comes back with another one, and a member whose disk was restored from an old copy with
fewer starts. Peers remember both (``peer_registry``), so neither can vote as if it knew what it
has forgotten.
"""

from __future__ import annotations

import dataclasses
import enum
import secrets
from pathlib import Path

from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode
from kvstore.replica.recovery import Findings, LogFound, Owner, refused
from kvstore.server.config.cluster_config import ClusterConfig
from kvstore.server.config.data_directory import member_path
from kvstore.server.config.sealed_file import read_sealed, write_sealed
from kvstore.server.peers.registry import FILE as PEERS

FILE = "MEMBER"
FORMAT_VERSION = 1


class Stage(enum.StrEnum):
    """How far a member is on its way into the cluster."""

    REGISTERING = "registering"
    """A founder that has not been noted by enough other founders; it holds no log."""
    JOINING = "joining"
    """To be added to a cluster that exists; its log is being made."""
    FOUNDING = "founding"
    """Noted; its log is being made."""
    MEMBER = "member"
    """Its log was made. Should it be missing, then it was lost."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemberIdentity:
    """One data directory's member. ``founders`` is empty for one that joined later."""

    cluster_id: str
    member: int
    incarnation: int
    starts: int
    founders: str
    stage: Stage


def start_identity(directory: Path, config: ClusterConfig) -> MemberIdentity:
    """Read the identity, or make one in a new directory, and count this start, durably.

    Raises ConfigurationError when the directory is another member's or another cluster's, and
    CorruptionError when the file can't be trusted.
    """
    identity = read_identity(directory, config)
    if identity is None:
        refuse_lost_identity(directory, config)
        identity = MemberIdentity(
            cluster_id=config.cluster_id,
            member=config.self_id,
            incarnation=secrets.randbits(63) | 1,
            starts=1,
            founders="" if config.join else config.founders_digest,
            stage=Stage.JOINING if config.join else Stage.REGISTERING,
        )
    else:
        identity = dataclasses.replace(identity, starts=identity.starts + 1)
    save_identity(directory, identity)
    return identity


def refuse_lost_identity(directory: Path, config: ClusterConfig) -> None:
    """Raise CorruptionError where anything is beside the identity that isn't there: it was lost.

    Nothing else is written before it.
    """
    for left in (directory / PEERS, Path(member_path(directory, config.self_id))):
        if left.exists():
            error = CorruptionError(
                f"it is gone, but {left.name} is there: this member was in the cluster before, "
                f"and must not come back as another one",
                code=IntegrityCode.INVALID_RECORD,
                path=str(directory / FILE),
            )
            raise refused(Findings(owner=Owner.GONE), error)


def read_identity(directory: Path, config: ClusterConfig) -> MemberIdentity | None:
    """The identity of the member of ``config``; None in a new directory. Raises the same."""
    path = directory / FILE
    try:
        fields = read_sealed(path)
    except CorruptionError as error:
        raise refused(Findings(owner=Owner.DAMAGED), error) from None
    if fields is None:
        return None
    identity = _parse(fields, path)
    if identity.cluster_id != config.cluster_id:
        raise _refused(
            Owner.FOREIGN,
            f"data directory {directory} belongs to cluster {identity.cluster_id!r}, not to "
            f"{config.cluster_id!r}",
        )
    if identity.member != config.self_id:
        raise _refused(
            Owner.FOREIGN,
            f"data directory {directory} belongs to member {identity.member}, not to member "
            f"{config.self_id}",
        )
    return identity


def lost_log(directory: Path, identity: MemberIdentity) -> ConfigurationError:
    """What is wrong where the log of one that has been a member isn't there."""
    error = ConfigurationError(
        f"{directory} says that it holds member {identity.member}, but its log is gone"
    )
    return refused(Findings(log=LogFound.GONE), error)


def save_identity(directory: Path, identity: MemberIdentity) -> None:
    """Make the identity durable. Raises StorageError."""
    write_sealed(
        directory / FILE,
        {"format": FORMAT_VERSION, **dataclasses.asdict(identity)},
    )


def reach_stage(directory: Path, identity: MemberIdentity, stage: Stage) -> MemberIdentity:
    """Note, durably, that the member has come further."""
    reached = dataclasses.replace(identity, stage=stage)
    save_identity(directory, reached)
    return reached


def _parse(fields: dict[str, object], path: Path) -> MemberIdentity:
    version = fields.pop("format", None)
    if version != FORMAT_VERSION:
        raise _refused(
            Owner.NEWER, f"{path} has format version {version}; this kvd knows {FORMAT_VERSION}"
        )
    try:
        identity = MemberIdentity(**fields)  # type: ignore[arg-type]
        return dataclasses.replace(identity, stage=Stage(identity.stage))
    except (TypeError, ValueError) as error:
        damage = CorruptionError(
            "not a member's identity", code=IntegrityCode.INVALID_RECORD, path=str(path)
        )
        raise refused(Findings(owner=Owner.DAMAGED), damage) from error


def _refused(owner: Owner, said: str) -> ConfigurationError:
    return refused(Findings(owner=owner), ConfigurationError(said))
