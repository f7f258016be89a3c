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
from kvstore.server.config.cluster_config import ClusterConfig
from kvstore.server.config.sealed_file import read_sealed, write_sealed

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


def read_identity(directory: Path, config: ClusterConfig) -> MemberIdentity | None:
    """The identity of the member of ``config``; None in a new directory. Raises the same."""
    path = directory / FILE
    fields = read_sealed(path)
    if fields is None:
        return None
    identity = _parse(fields, path)
    if identity.cluster_id != config.cluster_id:
        raise ConfigurationError(
            f"data directory {directory} belongs to cluster {identity.cluster_id!r}, not to "
            f"{config.cluster_id!r}; give the right data_dir or cluster_id"
        )
    if identity.member != config.self_id:
        raise ConfigurationError(
            f"data directory {directory} belongs to member {identity.member}, not to member "
            f"{config.self_id}; give the right data_dir or self_id"
        )
    return identity


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
        raise ConfigurationError(
            f"{path} has format version {version}; this kvd knows {FORMAT_VERSION}; "
            "use a newer kvstore"
        )
    try:
        identity = MemberIdentity(**fields)  # type: ignore[arg-type]
        return dataclasses.replace(identity, stage=Stage(identity.stage))
    except (TypeError, ValueError) as error:
        raise CorruptionError(
            "not a member's identity", code=IntegrityCode.INVALID_RECORD, path=str(path)
        ) from error
