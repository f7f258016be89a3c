"""The data directory: made, kept, locked and refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.errors import ConfigurationError
from kvstore.server.config.data_directory import LOCK, MARKER, DataDirectory, refuse_links
from kvstore.server.config.sealed_file import write_sealed


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def test_a_new_directory_is_made_and_marked(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data", "embedded"):
        assert names(tmp_path / "data") == [MARKER, LOCK]
    line = (tmp_path / "data" / MARKER).read_text()
    assert line.startswith("kvstore-data format=1 mode=embedded crc32=")


def test_it_opens_again_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data", "embedded"):
        (tmp_path / "data" / "node1").mkdir()
    with DataDirectory(tmp_path / "data", "embedded"):
        assert names(tmp_path / "data") == [MARKER, LOCK, "node1"]


def test_a_second_user_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with (
        DataDirectory(tmp_path / "data", "embedded"),
        pytest.raises(ConfigurationError, match=f"in use by another kvd .process {os.getpid()}"),
    ):
        DataDirectory(tmp_path / "data", "embedded")


def test_closing_lets_the_next_one_in(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path / "data", "embedded")
    first.close()
    first.close()
    DataDirectory(tmp_path / "data", "embedded").close()


def test_an_empty_volume_may_become_ours(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with DataDirectory(tmp_path, "embedded"):
        assert (tmp_path / MARKER).exists()


def test_a_start_cut_off_before_the_marker_was_in_place_is_finished(tmp_path: Path) -> None:
    (tmp_path / f".{MARKER}.{os.getpid()}.new").write_bytes(b"kvsto")
    (tmp_path / LOCK).touch()
    with DataDirectory(tmp_path, "embedded"):
        assert names(tmp_path) == [MARKER, LOCK]


def test_a_directory_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigurationError, match=r"not a kvstore data directory.*'thesis.tex'"):
        DataDirectory(tmp_path, "embedded")
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        (b"", "damaged or not ours"),
        (b"\xff\xfe\x00", "damaged or not ours"),
        (b"kvstore-data format=1 mode=embedded crc32=00000000\n", "damaged or not ours"),
        (
            b"kvstore-data format=2 mode=embedded crc32=fa8e4090\n",
            "format version 2, newer than the 1 that this kvd knows",
        ),
        (
            b"kvstore-data format=1 mode=cluster-node crc32=b67c4581\n",
            "made with --mode=cluster-node, not --mode=embedded",
        ),
    ],
)
def test_a_marker_that_does_not_fit_is_refused_and_left_alone(
    tmp_path: Path, marker: bytes, complaint: str
) -> None:
    (tmp_path / MARKER).write_bytes(marker)
    with pytest.raises(ConfigurationError, match=complaint):
        DataDirectory(tmp_path, "embedded")
    assert names(tmp_path) == [MARKER]
    assert (tmp_path / MARKER).read_bytes() == marker


def test_every_damaged_byte_of_the_marker_is_noticed(tmp_path: Path) -> None:
    with DataDirectory(tmp_path, "embedded"):
        pass
    line = (tmp_path / MARKER).read_bytes()
    for bit in range(len(line) * 8):
        changed = bytearray(line)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / MARKER).write_bytes(changed)
        with pytest.raises(ConfigurationError, match=MARKER):
            DataDirectory(tmp_path, "embedded")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("file", "it is not a directory"), ("no/parent", "its parent directory does not exist")],
)
def test_an_impossible_path_is_explained(tmp_path: Path, path: str, complaint: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=complaint):
        DataDirectory(tmp_path / path, "embedded")


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="{:03o}".format)
def any_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_nobody_else_can_enter_a_new_directory_whatever_the_umask(
    tmp_path: Path, any_umask: int
) -> None:
    path = tmp_path / "data"
    DataDirectory(path, "embedded").close()
    write_sealed(path / "MEMBER", {"a": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    modes = {name: stat.S_IMODE((path / name).stat().st_mode) for name in os.listdir(path)}
    assert set(modes) == {"KVSTORE", "LOCK", "MEMBER"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize(
    ("before", "after"), [(0o777, 0o700), (0o755, 0o700), (0o750, 0o700), (0o2777, 0o2770)]
)
def test_a_directory_that_others_could_enter_is_closed_to_them(
    tmp_path: Path, before: int, after: int
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(before)
    DataDirectory(path, "embedded").close()
    assert stat.S_IMODE(path.stat().st_mode) == after


KVSTORE_NEW = f".KVSTORE.{os.getpid()}.new"
MEMBER_NEW = f".MEMBER.{os.getpid()}.new"


# Named without the process, which differs among pytest's workers.
@pytest.mark.parametrize(
    "name",
    [KVSTORE_NEW, "KVSTORE.probe", "LOCK", "KVSTORE", MEMBER_NEW],
    ids=["KVSTORE.new", "KVSTORE.probe", "LOCK", "KVSTORE", "MEMBER.new"],
)
def test_a_link_that_somebody_planted_leads_nowhere(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "data"
    path.mkdir()
    if name == "KVSTORE.probe":
        DataDirectory(path, "embedded").close()
    (path / name).symlink_to(victim)
    try:
        DataDirectory(path, "embedded").close()
    except ConfigurationError as refused:
        assert name in ("LOCK", "KVSTORE", MEMBER_NEW)
        if name != MEMBER_NEW:
            assert "a symbolic link stands where" in str(refused)
    (path / name).unlink(missing_ok=True)
    (path / MEMBER_NEW).symlink_to(victim)
    write_sealed(path / "MEMBER", {"a": 1})
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("link", ["node1", "node1/log", "node1/state-0/000001.sst"])
def test_a_member_whose_directory_is_or_holds_a_link_is_refused(tmp_path: Path, link: str) -> None:
    place = tmp_path / link
    place.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=f"{place} is a symbolic link"):
        refuse_links(str(tmp_path / "node1"))


def test_a_member_without_links_or_without_a_directory_passes(tmp_path: Path) -> None:
    refuse_links(str(tmp_path / "node1"))
    (tmp_path / "node1" / "log").mkdir(parents=True)
    (tmp_path / "node1" / "log" / "000001.wal").touch()
    refuse_links(str(tmp_path / "node1"))
