"""A new cluster from a backup: the data directories that its members start with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from kvstore._engine.files.native import PosixFileSystem
from kvstore.errors import ConfigurationError, StorageError
from kvstore.raft import Membership
from kvstore.replica import Identity
from kvstore.replica.backup import restore_member
from kvstore.replica.backup_file import BackupInfo, read_backup
from kvstore.server.config.cluster_config import ClusterConfig
from kvstore.server.config.data_directory import (
    MARKER,
    RESTORING,
    member_path,
    refuse_used,
    write_marker,
)
from kvstore.server.config.private_files import replace_private, sync_directory
from kvstore.server.nodes.embedded import CLUSTER_ID, MEMBERS
from kvstore.server.peers.addresses import founding_membership
from kvstore.server.peers.identity import FILE, MemberIdentity, Stage, save_identity

__all__ = ["restore_cluster", "restore_embedded"]

_DISK = PosixFileSystem()


def restore_embedded(backup: str, directory: Path) -> BackupInfo:
    """Make ``directory`` the data directory of an embedded kvd that holds what ``backup`` does.

    Everything is checked before anything is made, and what a failure left is removed. Raises
    ConfigurationError for a directory in use, CorruptionError, StorageError.
    """
    refuse_used(directory)
    info = read_backup(backup)
    members = Membership(voters=frozenset(range(1, MEMBERS + 1)))
    with _Made() as made:
        made.make(directory)
        for member in sorted(members.voters):
            path = made.member(directory, member)
            identity = Identity(CLUSTER_ID, member)
            _refuse_other(backup, info, restore_member(backup, path, identity, members))
        made.mark(directory, "embedded")
    return info


def restore_cluster(backup: str, configs: Sequence[ClusterConfig]) -> BackupInfo:
    """Make the data directories of those founders of a new cluster whose ``configs`` are given.

    The others may be made elsewhere, from the same file. The new cluster has a name of its own,
    and its members are those of ``nodes``. Raises as :func:`restore_embedded`.
    """
    info = _checked(backup, configs)
    with _Made() as made:
        for config in configs:
            directory = Path(config.data_dir)
            made.make(directory)
            path = made.member(directory, config.self_id)
            members = founding_membership(config.nodes)
            identity = Identity(config.cluster_id, config.self_id)
            _refuse_other(backup, info, restore_member(backup, path, identity, members))
            made.identity(directory, config, info)
        for config in configs:
            made.mark(Path(config.data_dir), "cluster-node")
    return info


def _checked(backup: str, configs: Sequence[ClusterConfig]) -> BackupInfo:
    """What the backup is of, once nothing speaks against restoring it."""
    first = configs[0]
    taken: set[Path] = set()
    members: set[int] = set()
    for config in configs:
        who = f"member {config.self_id}"
        if config.join:
            raise ConfigurationError(
                f"{who} has join = true: it gets its data from the cluster; restore the founders"
            )
        if config.founders_digest != first.founders_digest:
            raise ConfigurationError(
                f"{who} has another cluster_id or other [[nodes]] than member {first.self_id}"
            )
        directory = Path(config.data_dir)
        refuse_used(directory)
        if config.self_id in members or directory.resolve() in taken:
            raise ConfigurationError(f"{who} or its data_dir {directory} is given twice")
        members.add(config.self_id)
        taken.add(directory.resolve())
    info = read_backup(backup)
    if info.cluster == first.cluster_id:
        raise ConfigurationError(
            f"cluster_id = {first.cluster_id!r} is the cluster that was saved: give the new one "
            "another name, so that none of the old one's members can talk to it"
        )
    return info


def _refuse_other(backup: str, checked: BackupInfo, restored: BackupInfo) -> None:
    if restored != checked:
        raise ConfigurationError(f"{backup} was replaced by another snapshot meanwhile")


def _founders_digest(config: ClusterConfig, info: BackupInfo) -> str:
    """Equal for founders of one list that were restored from one file.

    Members refuse each other where it differs, and so a founder that was forgotten, or restored
    from another file, can't take part: its history would be another one.
    """
    founders = json.dumps([config.founders_digest, *info])
    return hashlib.sha256(founders.encode()).hexdigest()[:16]


class _Made:
    """What was made so far; removed again unless the block ends well."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._directories: list[Path] = []

    def __enter__(self) -> _Made:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for path in self._paths:
            _DISK.remove_tree(path)
        for directory in self._directories:
            with contextlib.suppress(OSError):
                directory.rmdir()

    def make(self, directory: Path) -> None:
        """Make a data directory that isn't there, and take away what is left of another try."""
        try:
            if not directory.exists():
                directory.mkdir(mode=0o700)
                self._directories.append(directory)
            elif (directory / RESTORING).exists():
                _take_back(directory)
            self._paths.append(str(directory / RESTORING))
            replace_private(directory / RESTORING, b"")
        except OSError as error:
            raise _unusable(directory, error) from error

    def member(self, directory: Path, member: int) -> str:
        """Where a member is to be made."""
        path = member_path(directory, member)
        self._paths.append(path)
        return path

    def identity(self, directory: Path, config: ClusterConfig, info: BackupInfo) -> None:
        """Say whose directory it is: a founder that the others don't know yet."""
        self._paths.append(str(directory / FILE))
        save_identity(
            directory,
            MemberIdentity(
                cluster_id=config.cluster_id,
                member=config.self_id,
                incarnation=secrets.randbits(63) | 1,
                starts=0,
                founders=_founders_digest(config, info),
                stage=Stage.REGISTERING,
            ),
        )

    def mark(self, directory: Path, mode: str) -> None:
        """The directory is complete; without this mark kvd refuses it."""
        self._paths.append(str(directory / MARKER))
        try:
            write_marker(directory, mode)
            # From here on it is nobody's to throw away, whether this is still there or not.
            (directory / RESTORING).unlink()
            sync_directory(directory)
        except OSError as error:
            raise _unusable(directory, error) from error


def _take_back(directory: Path) -> None:
    """Remove what a restore has made that was killed, what says so at last. Raises OSError."""
    for path in directory.iterdir():
        if path.name not in (RESTORING, "lost+found"):
            _DISK.remove_tree(str(path))
    (directory / RESTORING).unlink()


def _unusable(directory: Path, error: OSError) -> StorageError:
    return StorageError(
        f"failed to make the data directory: {error.strerror}",
        path=str(directory),
        errno=error.errno,
    )
