"""From a member to a backup, and from a backup to the members of a new cluster."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import Membership
from kvstore.replica import Identity
from kvstore.replica.backup import ReplicaBackup, restore_member
from kvstore.replica.backup_file import (
    SEAL_BYTES,
    BackupInfo,
    encode_backup,
    read_backup,
    sealed,
    sealed_bytes,
)
from kvstore.replica.checkpoint_stream import CheckpointReader
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    Compact,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    Operation,
    Proposal,
    Put,
)
from tests.unit.replica.driven_group import DrivenGroup

NEW = Membership(voters=frozenset({1, 2, 3, 4, 5}))
KEYS = 40


def filled() -> DrivenGroup:
    """Three members that have flushed, compacted their logs and changed leaders."""
    driven = DrivenGroup()
    for n in range(KEYS):
        assert driven.put(b"%d" % n, b"v" * 3000) == [False]
    driven.delete(b"0", "gone")
    driven.settle()
    return driven


def save(driven: DrivenGroup, file: Path) -> BackupInfo:
    backup = ReplicaBackup(driven.leader())
    file.write_bytes(b"".join(backup.pieces(1_700_000_000)))
    backup.close()
    return read_backup(str(file))


def operate(driven: DrivenGroup, *operations: Operation) -> None:
    proposals = [
        Proposal(b"%016d" % place, operation) for place, operation in enumerate(operations)
    ]
    done: list[object] = []
    driven.leader().propose(encode_operations(proposals), done.append)
    driven.until(lambda: done)
    assert done == [b""]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.kvs"


def restored(file: Path) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories("/data")
    for member in sorted(NEW.voters):
        identity = Identity("a-cluster", member)
        restore_member(str(file), f"/data/node{member}", identity, NEW, filesystem=disk)
    return disk


def test_members_that_begin_with_a_backup_go_on_from_it_after_a_power_loss(file: Path) -> None:
    with filled() as old:
        info = save(old, file)
        hashes = old.hashes()
    assert info[:5] == ("a-cluster", info.index, info.term, KEYS + 1, info.state_hash)
    assert info.saved_at == 1_700_000_000
    # The parent is made durable by whoever marks the data directory; what is in it is already.
    disk = restored(file)
    disk.sync_directory("/data")
    with DrivenGroup(disk.crash(keep="none"), members=5) as new:
        assert new.hashes() == hashes
        assert new.read(b"0") is None
        assert [new.read(b"%d" % n) for n in range(1, KEYS)] == [b"v" * 3000] * (KEYS - 1)
        assert new.put(b"3", b"v" * 3000) == [False], "remembered: its first answer"
        assert new.put(b"3", b"new", "another") == [True]
        new.settle()
        (hash_of_all,) = new.hashes()
        assert hash_of_all[0] == KEYS + 2
        status = new.leader().status().raft
        assert status.membership == NEW
        assert status.term > info.term
        assert status.first_index == info.index + 1


def test_a_backup_has_all_of_the_model(file: Path) -> None:
    def told_by(driven: DrivenGroup) -> tuple[object, ...]:
        machine = driven.leader().machine
        return (
            machine.revision,
            machine.compacted,
            dict(machine.leases()),
            machine.lease_keys(7),
            machine.hash_kv(0),
            machine.events(3, machine.revision, 1 << 20, previous=True),
        )

    with DrivenGroup() as old:
        operate(old, EnableModel(), LeaseGrant(7, 60))
        operate(old, *(Put(b"%d" % n, b"v" * 3000, lease=7) for n in range(KEYS)))
        old.put(b"0", b"by v1")
        operate(old, DeleteRange(b"1", b"2"), Compact(3))
        old.settle()
        hashes = old.hashes()
        expected = told_by(old)
        save(old, file)
    with DrivenGroup(restored(file), members=5) as new:
        assert new.hashes() == hashes
        assert told_by(new) == expected
        operate(new, Put(b"on", b"and on"))
        new.settle()
        (hash_of_all,) = new.hashes()
        assert hash_of_all[0] == expected[0] + 1  # type: ignore[operator]


def test_a_backup_taken_while_entries_are_applied_is_one_moment(file: Path) -> None:
    with filled() as driven:
        backup = ReplicaBackup(driven.leader())
        pieces = backup.pieces(0)
        head = next(pieces)
        for n in range(KEYS):
            driven.put(b"later %d" % n, b"w" * 3000)
        driven.settle()
        file.write_bytes(head + b"".join(pieces))
        backup.close()
    assert read_backup(str(file)).revision == KEYS + 1
    with DrivenGroup(restored(file), members=5) as new:
        assert new.read(b"later 0") is None
        assert new.read(b"1") == b"v" * 3000


def test_closing_a_backup_leaves_nothing_and_a_cut_one_goes_at_the_next_start(file: Path) -> None:
    with filled() as driven:
        path = driven.leader().directory.path
        before = driven.disk.names(path)
        save(driven, file)
        assert driven.disk.names(path) == before
        next(ReplicaBackup(driven.leader()).pieces(0))
        assert "outgoing-backup" in driven.disk.names(path)
        disk = driven.disk.crash(keep="all")
    with DrivenGroup(disk):
        assert disk.names(path) == before


def test_a_member_with_a_damaged_table_gives_no_backup() -> None:
    with filled() as driven:
        leader = driven.leader()
        leader.machine.flush()
        (state,) = (name for name in driven.disk.names(leader.directory.path) if "state" in name)
        path = f"{leader.directory.path}/{state}"
        table = next(name for name in driven.disk.names(path) if name.endswith(".sst"))
        byte = driven.disk.read(f"{path}/{table}", 100, 1)[0]
        driven.disk.write(f"{path}/{table}", 100, bytes([byte ^ 1]))
        backup = ReplicaBackup(leader)
        with pytest.raises(CorruptionError, match=r"outgoing-backup/.*sst"):
            next(backup.pieces(0))
        backup.close()


def test_a_file_that_says_more_than_it_holds_is_not_restored(file: Path, tmp_path: Path) -> None:
    with filled() as driven:
        info = save(driven, file)
        backup = ReplicaBackup(driven.leader())
        next(backup.pieces(0))
        stream = CheckpointReader(driven.disk, f"{driven.leader().directory.path}/outgoing-backup")
        for lie in (info._replace(index=info.index + 1), info._replace(revision=1)):
            wrong = lie._replace(stream_bytes=stream.total)
            file.write_bytes(b"".join(encode_backup(wrong, stream.read)))
            with pytest.raises(CorruptionError, match="the snapshot says") as caught:
                restored(file)
            assert caught.value.code is IntegrityCode.INVALID_RECORD


INFO = BackupInfo("c", 1, 2, 3, 4, 5, 6, 0)


def sealed_pieces(file: Path) -> list[bytes]:
    """Those of a sealed backup, which is in the file as well."""
    driven = filled()
    backup = ReplicaBackup(driven.leader())
    pieces = list(sealed(backup.pieces(1_700_000_000)))
    backup.close()
    file.write_bytes(b"".join(pieces))
    return pieces


def test_a_sealed_backup_is_as_good_as_the_plain_one(file: Path) -> None:
    pieces = sealed_pieces(file)
    whole = file.read_bytes()
    assert len(whole) == sealed_bytes(pieces[0])
    assert len(whole) % 512 == SEAL_BYTES
    assert whole[-SEAL_BYTES:] == hashlib.sha256(whole[:-SEAL_BYTES]).digest()
    info = read_backup(str(file))
    restored(file)
    file.write_bytes(b"".join(pieces[:-1]))
    assert read_backup(str(file)) == info


def test_what_is_wrong_with_a_seal_is_found(file: Path) -> None:
    sealing = len(sealed_pieces(file)[-1])
    whole = file.read_bytes()
    for at in range(len(whole) - sealing, len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1
        file.write_bytes(broken)
        with pytest.raises(CorruptionError):
            read_backup(str(file))
    for size in (1, sealing // 2, sealing - 1):
        file.write_bytes(whole[: len(whole) - sealing + size])
        with pytest.raises(CorruptionError) as cut:
            read_backup(str(file))
        assert cut.value.code is IntegrityCode.TRUNCATED_RECORD
    for more in (b"\0", whole[-sealing:]):
        file.write_bytes(whole + more)
        with pytest.raises(CorruptionError):
            read_backup(str(file))


@pytest.mark.parametrize("size", [1, 400, 512, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_the_size_of_a_sealed_file_is_known_from_its_head(size: int) -> None:
    info = INFO._replace(stream_bytes=size)
    pieces = [*sealed(encode_backup(info, lambda offset, wanted: bytes(wanted)))]
    assert sealed_bytes(pieces[0]) == sum(map(len, pieces))
