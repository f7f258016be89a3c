"""The data directories of a new cluster that begins with a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstore.engine import DB
from kvstore.errors import ConfigurationError, StorageError
from kvstore.replica.backup_file import BackupInfo, encode_backup
from kvstore.replica.checkpoint_stream import CheckpointReader
from kvstore.server.config.cluster_config import ClusterConfig, Node
from kvstore.server.config.data_directory import DataDirectory
from kvstore.server.nodes import restore
from kvstore.server.nodes.restore import restore_cluster, restore_embedded
from kvstore.server.peers.identity import MemberIdentity, Stage, start_identity
from kvstore.state import StateMachine, encode_commands, put_command, request_digest

NODES = tuple(Node(n, f"db{n}:50051", f"db{n}:50052") for n in (1, 2, 3))


def config(directory: Path, member: int, *, nodes: tuple[Node, ...] = NODES) -> ClusterConfig:
    own = NODES[member - 1]
    data = str(directory / f"data{member}")
    return ClusterConfig("new", member, data, nodes, own.client_addr, own.peer_addr)


def make_backup(directory: Path, name: str, entries: int) -> str:
    """A backup of a state to which so many puts were applied."""
    state = directory / f"{name}.state"
    machine = StateMachine(DB(state, wal=False))
    for n in range(1, entries + 1):
        command = put_command(request_digest(b"%d" % n), b"k%d" % n, b"v")
        machine.apply([(n, 1, encode_commands([command]))])
    checkpoint = directory / f"{name}.checkpoint"
    machine.checkpoint(str(checkpoint))
    machine.close()
    stream = CheckpointReader(restore._DISK, str(checkpoint))
    info = BackupInfo(
        "old", entries, 1, machine.revision, machine.state_hash, 1, 1_700_000_000, stream.total
    )
    file = directory / name
    file.write_bytes(b"".join(encode_backup(info, stream.read)))
    return str(file)


@pytest.fixture
def backup(tmp_path: Path) -> str:
    return make_backup(tmp_path, "file.kvs", 3)


def identity_of(config: ClusterConfig) -> MemberIdentity:
    return start_identity(Path(config.data_dir), config)


def test_a_restored_member_is_a_founder_that_nobody_knows_yet(backup: str, tmp_path: Path) -> None:
    one, two = config(tmp_path, 1), config(tmp_path, 2)
    assert restore_cluster(backup, [one, two]).revision == 3
    DataDirectory(Path(one.data_dir), "cluster-node").close()
    first, second = identity_of(one), identity_of(two)
    assert (first.member, second.member) == (1, 2)
    assert first.stage is Stage.REGISTERING
    assert first.starts == 1
    assert first.incarnation != second.incarnation


def test_founders_of_one_list_and_one_file_go_together_and_no_others(
    backup: str, tmp_path: Path
) -> None:
    restore_cluster(backup, [config(tmp_path, 1)])
    restore_cluster(backup, [config(tmp_path, 2)])
    together = identity_of(config(tmp_path, 1)).founders
    assert identity_of(config(tmp_path, 2)).founders == together
    other = make_backup(tmp_path, "other.kvs", 4)
    restore_cluster(other, [config(tmp_path, 3)])
    assert identity_of(config(tmp_path, 3)).founders != together
    apart = tmp_path / "apart"
    apart.mkdir()
    restore_cluster(backup, [config(apart, 1, nodes=NODES[:2])])
    assert identity_of(config(apart, 1)).founders not in (together, "")
    # A founder that was forgotten and starts with nothing.
    (apart / "data3").mkdir()
    assert identity_of(config(apart, 3)).founders != together


def test_a_failure_in_the_middle_leaves_nothing(
    backup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "data2"
    empty.mkdir()
    configs = [config(tmp_path, member) for member in (1, 2, 3)]
    marked: list[Path] = []
    write_marker = restore.write_marker

    def fail_at_the_third(path: Path, mode: str) -> None:
        if len(marked) == 2:
            raise OSError(28, "No space left on device")
        marked.append(path)
        write_marker(path, mode)

    monkeypatch.setattr(restore, "write_marker", fail_at_the_third)
    with pytest.raises(StorageError, match="No space left on device"):
        restore_cluster(backup, configs)
    assert not (tmp_path / "data1").exists()
    assert not (tmp_path / "data3").exists()
    assert list(empty.iterdir()) == []
    marked.clear()
    monkeypatch.undo()
    restore_cluster(backup, configs)


def test_a_file_that_is_exchanged_meanwhile_is_noticed(
    backup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_backup(tmp_path, "other.kvs", 4)
    restore_member = restore.restore_member
    monkeypatch.setattr(
        restore, "restore_member", lambda backup, *rest: restore_member(other, *rest)
    )
    with pytest.raises(ConfigurationError, match="was replaced by another snapshot"):
        restore_embedded(backup, tmp_path / "data")
    assert not (tmp_path / "data").exists()


class Killed(BaseException):
    """The process ends here: nobody cleans up."""


@pytest.mark.parametrize("made", [0, 1, 2])
def test_one_that_was_killed_half_way_is_done_by_the_next_try(
    backup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    configs = [config(tmp_path, member) for member in (1, 2)]
    count = 0
    restore_member = restore.restore_member

    def until_killed(*arguments: Any) -> Any:
        nonlocal count
        if count == made:
            raise Killed
        count += 1
        return restore_member(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(restore._Made, "__exit__", lambda *_: None)
        patch.setattr(restore, "restore_member", until_killed)
        if made == 2:
            patch.setattr(restore, "write_marker", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            restore_cluster(backup, configs)
    with pytest.raises(ConfigurationError, match="a restore of it was broken off"):
        DataDirectory(tmp_path / "data1", "cluster-node")
    restore_cluster(backup, configs)
    for member in (1, 2):
        directory = tmp_path / f"data{member}"
        assert not (directory / "RESTORING").exists()
        DataDirectory(directory, "cluster-node").close()
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore_cluster(backup, configs)


def test_a_directory_that_serves_already_is_not_thrown_away(backup: str, tmp_path: Path) -> None:
    """The mark of a restore may outlive it by a moment, and the process may die in it."""
    restore_cluster(backup, [config(tmp_path, 1, nodes=NODES[:1])])
    (tmp_path / "data1" / "RESTORING").touch()
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore_cluster(backup, [config(tmp_path, 1, nodes=NODES[:1])])
