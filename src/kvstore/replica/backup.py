"""From a running member to a backup, and from a backup to the directory of a new member."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.errors import CorruptionError, IntegrityCode, UnavailableError
from kvstore.raft import Membership, SnapshotMeta
from kvstore.replica.backup_file import BackupInfo, encode_backup, read_backup
from kvstore.replica.checkpoint_stream import CheckpointReader, CheckpointWriter
from kvstore.replica.checkpoints import read_checkpoint
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.log_note import NoteFile
from kvstore.replica.replica import Replica
from kvstore.replica.storage import Identity, MemberLog
from kvstore.state import StateMachine

__all__ = ["ReplicaBackup", "restore_member"]


class ReplicaBackup:
    """One backup of a replica. Made on its thread; the rest may run on any other one, in turn."""

    def __init__(self, replica: Replica) -> None:
        self._identity = replica.identity
        self._directory = replica.directory
        self._machine: StateMachine = replica.machine
        self._path = ""

    def pieces(self, saved_at: int) -> Iterator[bytes]:
        """The backup file's bytes: the state at this moment, every table of it verified.

        ``saved_at`` is the time to note, in Unix seconds. Raises CorruptionError (a table is
        damaged), StorageError, ClosedError when the member installs a snapshot meanwhile, and
        UnavailableError when it has applied nothing yet.
        """
        self._path = self._directory.backup()
        self._machine.checkpoint(self._path)
        state = read_checkpoint(self._path, self._directory.filesystem, verify=True)
        if state is None:
            raise UnavailableError("this member has applied nothing yet")
        stream = CheckpointReader(self._directory.filesystem, self._path)
        info = BackupInfo(
            cluster=self._identity.cluster,
            index=state.applied_index,
            term=state.applied_term,
            revision=state.revision,
            state_hash=state.state_hash,
            member=self._identity.member,
            saved_at=saved_at,
            stream_bytes=stream.total,
        )
        yield from encode_backup(info, stream.read)

    def close(self) -> None:
        """Remove the checkpoint, if there is one."""
        if self._path:
            self._directory.filesystem.remove_tree(self._path)


def restore_member(
    backup: str,
    path: str,
    identity: Identity,
    members: Membership,
    *,
    filesystem: FileSystem | None = None,
) -> BackupInfo:
    """Make ``path`` the directory of a member that begins with what the file ``backup`` holds.

    Every member of the new cluster begins with the same backup and the same ``members``: its log
    begins after the backup's last entry, as if a leader had sent it a snapshot. ``path`` must not
    exist, its parent must. All is durable when this returns; nothing but the parent knows of
    ``path`` before. Raises CorruptionError for a damaged backup, StorageError.
    """
    disk = PosixFileSystem() if filesystem is None else filesystem
    directory = MemberDirectory(path, disk)
    incoming = directory.make_incoming()
    info = read_backup(backup, lambda info: CheckpointWriter(disk, incoming, info.stream_bytes))
    state = read_checkpoint(incoming, disk, verify=True)
    said = (info.index, info.term, info.revision, info.state_hash)
    if state is None or state[: len(said)] != said:
        raise CorruptionError(
            f"the snapshot says that it is of index {info.index}, but holds {state}",
            code=IntegrityCode.INVALID_RECORD,
            path=backup,
        )
    directory.incoming_is_whole(info.index)
    directory.install(info.index)
    log = MemberLog(
        directory.log,
        identity,
        filesystem=disk,
        segment_bytes=1 << 20,
        note=NoteFile(disk, directory.log_note),
    )
    try:
        log.begin_after(SnapshotMeta(info.index, info.term, members))
    finally:
        log.close()
    return info
