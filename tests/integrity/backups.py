"""What leaves a member: backup files, and the checkpoint of a snapshot on its way to a follower."""

from __future__ import annotations

import tempfile
from typing import NamedTuple

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.engine import Options as EngineOptions
from kvstore.errors import StorageError
from kvstore.raft import Membership
from kvstore.replica import Identity
from kvstore.replica.backup import restore_member
from kvstore.replica.backup_file import BackupInfo, encode_backup
from kvstore.replica.checkpoint_stream import CheckpointReader, CheckpointWriter
from kvstore.replica.checkpoints import read_checkpoint
from kvstore.state import StateMachine, StoredState, open_state, stored_state
from tests.integrity.sources import Source
from tests.integrity.stories import OPTIONS, OUTGOING, ROOT, another, path_of, plain
from tests.integrity.trees import Tree, disk_of
from tests.integrity.verdicts import Outcome, Verdict, refused

__all__ = ["judge_backup", "judge_checkpoint", "sources"]

BACKUP = "/backup.kvs"
CHUNK_BYTES = 4096
INCOMING = f"{ROOT}/incoming"
RESTORED = Identity("restored", 1)
_READING = EngineOptions(wal=False, background=False, read_only=True, create_if_missing=False)


class Truth(NamedTuple):
    """What the state's own records say, and everything in it."""

    stored: StoredState | None
    content: dict[bytes, bytes]


def sources() -> list[Source]:
    """A backup file, and a checkpoint that is being sent."""
    told, other = plain(), another()
    checkpoints = [told.checkpoint, told.older_checkpoint, other.checkpoint]
    clusters = [told.story.cluster, told.story.cluster, other.story.cluster]
    files = [
        {BACKUP: _backup_of(cluster, checkpoint)}
        for cluster, checkpoint in zip(clusters, checkpoints, strict=True)
    ]
    # Another whole backup is no damage: it must be what it says it is.
    truths = [_truth(disk_of(checkpoint, ROOT), OUTGOING) for checkpoint in checkpoints]
    return [
        Source("backup", "backup", files[0], files[1], files[2], truths),
        Source(
            "snapshot-sent",
            "checkpoint",
            told.checkpoint,
            told.older_checkpoint,
            other.checkpoint,
            truths[0],
        ),
    ]


def _backup_of(cluster: str, checkpoint: Tree) -> bytes:
    """As :class:`kvstore.replica.backup.ReplicaBackup` makes it, but in several chunks."""
    disk = disk_of(checkpoint, OUTGOING)
    stream = CheckpointReader(disk, OUTGOING)
    state = read_checkpoint(OUTGOING, disk, verify=True)
    assert state is not None, "the story has written something"
    info = BackupInfo(
        cluster=cluster,
        index=state.applied_index,
        term=state.applied_term,
        revision=state.revision,
        state_hash=state.state_hash,
        member=1,
        saved_at=1_700_000_000,
        stream_bytes=stream.total,
    )
    return b"".join(encode_backup(info, stream.read, chunk_bytes=CHUNK_BYTES))


def _truth(disk: MemoryFileSystem, path: str) -> Truth:
    with DB(path, options=_READING, filesystem=disk) as db:
        return Truth(stored_state(db), dict(db))


def judge_backup(source: Source, tree: Tree) -> Verdict:
    """Make a member of the file; where that goes well, it must be the member that was saved."""
    disk = disk_of({}, ROOT)
    with tempfile.NamedTemporaryFile(prefix="kvstore-integrity-", suffix=".kvs") as file:
        if BACKUP not in tree:
            return Verdict(Outcome.DETECTED, "", "there is no file")
        file.write(tree[BACKUP])
        file.flush()
        members = Membership(voters=frozenset({1}))
        try:
            info = restore_member(file.name, path_of(1), RESTORED, members, filesystem=disk)
        except StorageError as error:
            return refused(error)
    (state,) = (name for name in disk.names(path_of(1)) if name.startswith("state"))
    found = _truth(disk, f"{path_of(1)}/{state}")
    index = 0 if found.stored is None else found.stored.applied_index
    if found not in source.truth or index != info.index:
        return Verdict(Outcome.WRONG, "", f"it was taken, and holds something else at {info}")
    return Verdict(Outcome.NO_EFFECT)


def _received(disk: MemoryFileSystem) -> tuple[int, int]:
    """Index and term of what arrived, checked as :class:`kvstore.replica.transfers.Transfers` does
    before it is installed."""
    with open_state(INCOMING, options=OPTIONS.engine, filesystem=disk) as db:
        db.verify()
        machine = StateMachine(db, memory=OPTIONS.memory)
        return machine.applied_index, machine.applied_term


def judge_checkpoint(source: Source, tree: Tree) -> Verdict:
    """Send it as it lies there, part by part; the receiver checks it as it does any snapshot."""
    disk = disk_of(tree, OUTGOING)
    disk.make_directories(INCOMING)
    truth: Truth = source.truth
    try:
        stream = CheckpointReader(disk, OUTGOING)
        writer = CheckpointWriter(disk, INCOMING, stream.total)
        for offset in range(0, stream.total, 4096):
            writer.write(stream.read(offset, 4096))
        writer.finish()
        machine = _received(disk)
    except StorageError as error:
        return refused(error)
    assert truth.stored is not None, "the story has written something"
    if machine != (truth.stored.applied_index, truth.stored.applied_term):
        # The receiver compares it with what the leader's message says.
        return Verdict(Outcome.DETECTED, "", f"refused: it is of index and term {machine}")
    if _truth(disk, INCOMING) != truth:
        return Verdict(Outcome.WRONG, "", "it was taken, and holds something else")
    return Verdict(Outcome.NO_EFFECT)
