"""One way to replace a file: old or new after a crash, old after a failure, nothing left over."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore.server.config.private_files import is_left_over, replace_private, replacing


def intercept(monkeypatch: pytest.MonkeyPatch, at: Callable[[str], None]) -> None:
    """Have ``at`` called before each step that changes something."""

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            at(name)
            return real(*given, **named)

        monkeypatch.setattr(os, name, wrapped)

    for name in ("open", "fsync", "rename"):
        wrap(name)


def test_new_bytes_are_synced_before_they_get_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    with monkeypatch.context() as patched:
        intercept(patched, steps.append)
        replace_private(tmp_path / "FILE", b"new")
    assert steps == ["open", "fsync", "rename", "open", "fsync"]
    assert (tmp_path / "FILE").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["FILE"]


@pytest.mark.parametrize("step", range(3))
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "FILE"
    replace_private(path, b"old")
    seen: list[str] = []

    def refuse(name: str) -> None:
        seen.append(name)
        if len(seen) == step + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        intercept(patched, refuse)
        with pytest.raises(OSError, match="No space left"):
            replace_private(path, b"new" * 10_000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["FILE"]


def test_a_full_disk_at_the_last_buffered_bytes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "FILE"
    replace_private(path, b"old")

    def write() -> None:
        with replacing(path) as file, open("/dev/full", "wb") as full:
            file.write(b"new")
            os.dup2(full.fileno(), file.fileno())

    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["FILE"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "FILE"
    replace_private(path, b"old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["FILE"]


@pytest.mark.parametrize("step", range(5))
def test_a_killed_process_leaves_a_whole_file_and_the_next_one_tidies_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "FILE"
    replace_private(path, b"old")
    seen: list[str] = []

    def die(name: str) -> None:
        seen.append(name)
        if len(seen) == step + 1:
            os._exit(7)

    child = os.fork()
    if child == 0:
        try:
            intercept(monkeypatch, die)
            replace_private(path, b"new")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert path.read_bytes() == (b"old" if step < 3 else b"new")
    assert all(name == "FILE" or is_left_over(name, "FILE") for name in os.listdir(tmp_path))
    replace_private(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["FILE"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            theirs = tmp_path / f".FILE.{other.pid}.new"
            theirs.write_bytes(b"half")
            replace_private(tmp_path / "FILE", b"ours")
            assert theirs.read_bytes() == b"half"
        finally:
            other.kill()
    replace_private(tmp_path / "FILE", b"ours")
    assert not theirs.exists()


def test_only_its_owner_may_read_it_unless_more_is_asked(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        replace_private(tmp_path / "SECRET", b"")
        replace_private(tmp_path / "public", b"", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "SECRET").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o644


def test_files_of_others_with_a_similar_name_are_not_left_overs() -> None:
    assert is_left_over(".a.b.12.new", "a.b")
    for name in ("a.b.12.new", ".a.b.new", ".a.b.x.new", ".aXb.12.new", ".a.b.12.newer"):
        assert not is_left_over(name, "a.b")


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "directory"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    # As 'kvctl export --file /dev/null' did for root, whose machine had none any more.
    path = tmp_path / "there"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            if os.geteuid() != 0:
                pytest.skip("devices are made by root alone")
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        case "link":
            path.symlink_to("/dev/null")
        case _:
            path.mkdir()
    before = os.lstat(path)
    with pytest.raises(OSError, match="no regular file"):
        replace_private(path, b"ours")
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(tmp_path) == ["there"]
