"""Small files of a process, checked while it runs, and written anew where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.errors import StorageError
from kvstore.replica.work import AtOnce
from kvstore.server.config.data_directory import check_marker, write_marker
from kvstore.server.config.sealed_file import read_sealed, write_sealed
from kvstore.server.nodes.small_files import SmallFiles, marker_again
from kvstore.server.peers.registry import Known, PeerRegistry

FIELDS: dict[str, object] = {"format": 1, "member": 7}


class Stage:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.found: list[StorageError] = []
        write_marker(directory, "cluster-node")
        write_sealed(directory / "MEMBER", FIELDS)
        self.registry = PeerRegistry(directory)
        self.registry.admit(2, Known(70, 3), present=True)
        self.files = SmallFiles(
            directory,
            AtOnce(),
            {
                "KVSTORE": marker_again(directory, "cluster-node"),
                "MEMBER": lambda: write_sealed(directory / "MEMBER", FIELDS),
                "PEERS": self.registry.rewrite,
            },
            self.found.append,
        )

    def is_whole(self) -> bool:
        check_marker(self.directory)
        assert read_sealed(self.directory / "MEMBER") == FIELDS
        return PeerRegistry(self.directory).known() == {2: Known(70, 3)}


def test_whole_files_are_left_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    stage.files.check()
    assert stage.found == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["KVSTORE", "MEMBER", "PEERS"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_one_is_told_and_written_anew(tmp_path: Path, name: str, damage: str) -> None:
    stage = Stage(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        path.write_bytes(content[:5] + bytes((content[5] ^ 1,)) + content[6:])
    stage.files.check()
    assert [error.path for error in stage.found] == [str(path)]
    assert stage.is_whole()
    stage.files.check()
    assert len(stage.found) == 1


def test_one_that_cannot_be_written_is_told_each_time(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    (tmp_path / "MEMBER").write_bytes(b"")

    def refused() -> None:
        raise StorageError("no room")

    stage.files._rewrite = {"MEMBER": refused}
    stage.files.check()
    stage.files.check()
    assert len(stage.found) == 2
