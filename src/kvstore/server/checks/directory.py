"""A data directory: whether a member could live in it, and whether it is this one's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kvstore._engine.files.native import PosixFileSystem
from kvstore.errors import Error
from kvstore.replica import is_fresh
from kvstore.replica.group import lost_member
from kvstore.replica.log_loss import has_history, is_unfounded
from kvstore.server.checks.findings import Finding, fault, refusal, warning
from kvstore.server.config.cluster_config import ClusterConfig
from kvstore.server.config.data_directory import (
    LOCK,
    MARKER,
    locked_by_another,
    member_path,
    modes,
    open_to_others,
    refuse_foreign,
    refuse_links,
    unusable_because,
)
from kvstore.server.peers.identity import FILE as IDENTITY_FILE
from kvstore.server.peers.identity import Stage, lost_log, read_identity, refuse_lost_identity
from kvstore.server.peers.registry import FILE as REGISTRY_FILE
from kvstore.server.peers.registry import PeerRegistry

__all__ = ["check_directory", "check_identity"]

# Below it an operator should act, whatever the load.
FEW_FREE_BYTES = 1 << 30

# What each start writes anew, identity, lock and peers, takes a few blocks of it.
START_BYTES = 1 << 20


def check_directory(
    path: Path, mode: str, members: range, first_bytes: int, *, running: bool
) -> Iterator[Finding]:
    """``members`` live below ``path``, and a new one's log takes ``first_bytes`` at once.

    ``running``: a kvd that has the directory is no fault.
    """
    try:
        if not path.is_dir():
            yield from _to_be_made(path)
            yield from _space(path.absolute().parent, len(members) * first_bytes)
            return
        wrong = list(_not_ours(path, mode, members))
        yield from wrong
        holder = None if any(finding.fault for finding in wrong) else locked_by_another(path)
        if holder is not None and not running:
            yield fault(holder)
        disk = PosixFileSystem()
        new = [member for member in members if is_unfounded(disk, member_path(path, member))]
        begun = (member_path(path, member) for member in members if member not in new)
        # A founding that was cut off is gone on with.
        if new and any(has_history(disk, f"{own}/log") for own in begun):
            yield from _lost(path, members, new)
        yield from _space(path, len(new) * first_bytes)
    except OSError as error:
        yield fault(f"cannot use data directory {path}: {unusable_because(error)}")
    except Error as error:
        yield fault(str(error))


def check_identity(path: Path, config: ClusterConfig) -> Iterator[Finding]:
    """Whether the member that lives in ``path`` is that of ``config``, and may still be one."""
    try:
        if not path.is_dir():
            return
        identity = read_identity(path, config)
        if identity is None:
            refuse_lost_identity(path, config)
            return
        if identity.stage is Stage.MEMBER and is_fresh(
            PosixFileSystem(), member_path(path, config.self_id)
        ):
            yield fault(str(lost_log(path, identity)))
        if PeerRegistry(path, identity.incarnation).is_removed(config.self_id):
            yield fault(
                f"member {config.self_id} was removed from cluster {config.cluster_id!r}; its id "
                "can't come back: add a member under a new id, with an empty data_dir"
            )
    except Error as error:
        yield fault(str(error))
    except OSError:
        return  # said of the directory already


def _lost(path: Path, members: range, lost: list[int]) -> Iterator[Finding]:
    """Whose log is gone where others have history, as :class:`kvstore.replica.Group` judges it."""
    for member in lost:
        if 2 * (len(members) - len(lost)) > len(members):
            yield warning(
                f"{member_path(path, member)} has no log but other members have data: it goes on "
                "as one that lost all, and votes again when they have brought it up to date"
            )
        else:
            yield fault(str(lost_member(str(path), member)))


def _to_be_made(path: Path) -> Iterator[Finding]:
    parent = path.absolute().parent
    if path.is_symlink() or path.exists():
        yield fault(f"cannot use data directory {path}: it is not a directory")
    elif not parent.is_dir():
        yield fault(f"cannot use data directory {path}: its parent directory does not exist")
    elif not os.access(parent, os.W_OK | os.X_OK):
        yield fault(f"cannot make data directory {path}: {_no_writing(parent)}")


def _not_ours(path: Path, mode: str, members: range) -> Iterator[Finding]:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield fault(f"cannot use data directory {path}: {_no_writing(path)}")
        return
    yield from refusal(refuse_foreign, path, mode)
    now, wanted = modes(path)
    if now != wanted:
        if os.geteuid() in (0, path.stat().st_uid):
            yield warning(f"others can enter {path} (mode {now:04o}); kvd closes it at its start")
        else:
            yield fault(open_to_others(path))
    files = [path / name for name in (MARKER, LOCK, IDENTITY_FILE, REGISTRY_FILE)]
    for member in members:
        own = Path(member_path(path, member))
        links = refusal(refuse_links, str(own))
        yield from links
        if not links:
            files += [own, own / "log"]
    for file in files:
        yield from _own_file(file)


def _own_file(file: Path) -> Iterator[Finding]:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        yield fault(f"{file} is a symbolic link: kvd follows none to files of its own")
    elif not os.access(file, os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        yield fault(f"{file} is not this user's to read and write (it belongs to {_owner(file)})")


def _owner(file: Path) -> str:
    try:
        return file.owner()
    except KeyError:
        return f"user {file.stat().st_uid}"


def _no_writing(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "it is on a read-only file system"
    return f"no permission to write in {path} (it belongs to {_owner(path)})"


def _space(path: Path, needed: int) -> Iterator[Finding]:
    if not path.is_dir():
        return
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        yield fault(
            f"the disk of {path} has {free >> 20} MiB free; a new log takes {needed >> 20} MiB"
        )
    elif free < START_BYTES:
        yield fault(
            f"the disk of {path} has {free >> 10} KiB free; a start takes {START_BYTES >> 10} KiB"
        )
    elif free < FEW_FREE_BYTES:
        yield warning(f"the disk of {path} has only {free >> 20} MiB free")
