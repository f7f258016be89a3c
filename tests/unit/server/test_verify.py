"""Every byte of what lies on a disk, checked without a server."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from pathlib import Path

import pytest

from kvstore import DB
from kvstore._engine.files.native import PosixFileSystem
from kvstore.engine import Options as EngineOptions
from kvstore.errors import ConfigurationError, InvalidArgumentError, StorageError
from kvstore.raft import Membership
from kvstore.replica import Identity, Replica, ReplicaOptions
from kvstore.server.config.data_directory import write_marker
from kvstore.server.config.sealed_file import write_sealed
from kvstore.server.verify.directory import held_bytes, verify
from kvstore.server.verify.report import Outcome, Report
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import put_of
from tests.unit.replica.test_backup import filled, save


class Silent:
    """A transport to nobody."""

    def send(self, packets: object) -> None:
        """There is nobody."""


def make_member(path: Path, rows: int = 200) -> Path:
    """The directory of a member that was closed properly, below a data directory."""
    path.mkdir()
    write_marker(path, "cluster-node")
    write_sealed(path / "MEMBER", {"format": 1, "member": 1})
    replica = Replica(
        Identity("c", 1),
        str(path / "node1"),
        Silent(),
        options=ReplicaOptions(
            engine=EngineOptions(wal=False, background=False), segment_bytes=16 << 10
        ),
        rng=random.Random(1),
        wake=lambda: None,
        founders=Membership(voters=frozenset({1})),
        filesystem=PosixFileSystem(),
        threaded=False,
    )
    answers: list[object] = []
    for number in range(rows):
        while not replica.is_leader:
            drive(replica)
        command = put_of(f"r{number}", b"key%d" % number, random.Random(number).randbytes(300))
        replica.propose(encode_commands([command]), answers.append)
        while len(answers) <= number:
            drive(replica)
    replica.machine.flush()
    replica.close()
    return path


def drive(replica: Replica) -> None:
    replica.turn()
    while replica.storage_busy:
        replica.sync_storage()
        replica.turn()
    replica.tick()


def make_database(path: Path) -> Path:
    with DB(str(path), create_if_missing=True, write_buffer_size=64 << 10) as db:
        for number in range(500):
            db.put(b"key%d" % number, random.Random(number).randbytes(300))
        db.flush()
        db.put(b"last", b"in the log alone")
    return path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def outcomes(report: Report) -> dict[str, Outcome]:
    return {file.path: file.outcome for file in report.files}


def test_a_whole_database_is_whole_and_every_file_is_named(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db")
    counted: list[int] = []
    report = verify(str(path), counted.append)
    assert report.is_whole, report.files
    said = outcomes(report)
    assert set(said) == {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert sum(counted) == held_bytes(str(path))
    assert said["LOCK"] is Outcome.EMPTY
    assert [said[name] for name in said if name.endswith((".sst", ".wal"))].count(
        Outcome.WHOLE
    ) >= 2


@pytest.mark.parametrize("pattern", ["*.sst", "IDENTITY", "CURRENT", "MANIFEST-*", "wal/*.wal"])
def test_damage_of_a_database_is_found_in_the_file_that_has_it(
    tmp_path: Path, pattern: str
) -> None:
    path = make_database(tmp_path / "db")
    victim = sorted(path.glob(pattern))[0]
    flip(victim, min(60, victim.stat().st_size // 2))
    report = verify(str(path))
    assert not report.is_whole
    name = str(victim.relative_to(path))
    assert outcomes(report)[name] is Outcome.DAMAGED, (report.files, report.findings)
    others = [
        file for file in report.files if file.outcome is Outcome.DAMAGED and file.path != name
    ]
    assert others == []


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db")
    sorted(path.glob("*.sst"))[0].unlink()
    report = verify(str(path))
    assert not report.is_whole
    assert report.findings


def test_a_database_that_is_open_is_refused(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db")
    with DB(str(path)), pytest.raises(ConfigurationError, match="in use"):
        verify(str(path))


def test_a_members_directory_is_whole_by_itself_and_as_part_of_a_data_directory(
    tmp_path: Path,
) -> None:
    path = make_member(tmp_path / "data")
    (path / "notes.txt").write_text("an operator's")
    for root in (path, path / "node1"):
        report = verify(str(root))
        assert report.is_whole, (report.files, report.findings)
        assert sum(Path(file.path).suffix == ".wal" for file in report.files) > 2
    said = outcomes(verify(str(path)))
    assert said["KVSTORE"] is Outcome.WHOLE
    assert said["MEMBER"] is Outcome.WHOLE
    assert said["node1/LOGEND"] is Outcome.WHOLE
    assert said["notes.txt"] is Outcome.FOREIGN


@pytest.mark.parametrize(
    "pattern",
    [
        "KVSTORE",
        "MEMBER",
        "node1/LOGEND",
        "node1/log/*.wal",
        "node1/state-*/*.sst",
        "node1/state-*/IDENTITY",
        "node1/state-*/CURRENT",
        "node1/state-*/MANIFEST-*",
    ],
)
def test_damage_of_a_member_is_found_in_the_file_that_has_it(tmp_path: Path, pattern: str) -> None:
    path = make_member(tmp_path / "data")
    victim = sorted(path.glob(pattern))[-1]
    for at in (12, victim.stat().st_size // 2):
        if victim.suffix == ".wal" and at > 1000:
            continue  # beyond what is written, maybe
        flip(victim, at)
        report = verify(str(path))
        name = str(victim.relative_to(path))
        assert outcomes(report)[name] is Outcome.DAMAGED, (at, report.files, report.findings)
        assert not report.is_whole
        flip(victim, at)
    assert verify(str(path)).is_whole


def test_a_log_that_ends_before_its_note_is_damaged(tmp_path: Path) -> None:
    path = make_member(tmp_path / "data")
    newest = sorted((path / "node1" / "log").glob("*.wal"))[-1]
    newest.unlink()
    report = verify(str(path))
    assert not report.is_whole
    assert any("log" in finding for finding in report.findings), report.findings


def test_a_running_kvds_directory_is_refused(tmp_path: Path) -> None:
    path = make_member(tmp_path / "data")
    with open(path / "LOCK", "w") as lock:
        lock.write("1\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        for root in (path, path / "node1"):
            with pytest.raises(ConfigurationError, match="in use by another kvd"):
                verify(str(root))
    assert verify(str(path)).is_whole


def test_rows_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    path = make_member(tmp_path / "data")
    (state,) = (path / "node1").glob("state-*")
    with DB(str(state), wal=False) as db:
        batch = db.write_batch()
        for number in range(2):
            batch.put(b"\x00session" + number.to_bytes(16), b"\xff nonsense")
        db.write(batch, sequence=db.last_sequence, applied_index=db.flushed_index)
        db.flush()
    report = verify(str(path))
    assert not report.is_whole
    (finding,) = report.findings
    assert finding.startswith(f"{path}/")
    assert "session" in finding
    assert finding.endswith(" (2 times)")


def test_a_backup_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file.kvs"
    with filled() as group:
        save(group, path)
    assert verify(str(path)).is_whole
    flip(path, path.stat().st_size // 2)
    report = verify(str(path))
    assert [file.outcome for file in report.files] == [Outcome.DAMAGED]


@pytest.mark.parametrize("what", ["nothing", "empty", "strange", "pipe"])
def test_what_is_none_of_ours_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    elif what != "nothing":
        path.mkdir()
    if what == "strange":
        (path / "file").write_text("hello")
    with pytest.raises(InvalidArgumentError):
        verify(str(path))


@pytest.mark.parametrize("name", ["CURRENT", "IDENTITY", "MANIFEST-", "END"])
def test_a_size_beyond_all_memory_is_damage(tmp_path: Path, name: str) -> None:
    path = make_database(tmp_path / "db")
    (file,) = (one for one in path.iterdir() if one.name.startswith(name))
    os.truncate(file, 1 << 40)
    report = verify(str(path))
    assert [one.path for one in report.files if one.outcome is Outcome.DAMAGED] == [file.name]


@pytest.mark.parametrize("name", ["KVSTORE", "MEMBER"])
@pytest.mark.parametrize("what", ["pipe", "size"])
def test_small_files_beside_a_member_that_are_none(tmp_path: Path, name: str, what: str) -> None:
    file = make_member(tmp_path / "data", rows=1) / name
    if what == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        os.truncate(file, 1 << 40)
    report = verify(str(file.parent))
    assert [one.path for one in report.files if one.outcome is Outcome.DAMAGED] == [name]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ENOMEM])
def test_what_the_system_withholds_is_no_damage(tmp_path: Path, number: int) -> None:
    report = Report(str(tmp_path))
    with pytest.raises(StorageError, match="withheld"), report.noting(str(tmp_path / "file")):
        raise StorageError("withheld", errno=number)
    assert report.is_whole
    with report.noting(str(tmp_path / "file")):
        raise StorageError("broken", errno=errno.EIO)
    assert not report.is_whole
