"""How ``kvctl verify`` looks, and what it does with a disk that says no."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvstore import DB
from kvstore.cli.files.verify import as_json, as_text
from kvstore.cli.kvctl import kvctl
from kvstore.errors import StorageError
from kvstore.server.verify import directory
from kvstore.server.verify.report import Outcome, Report


def report(tmp_path: Path, **files: Outcome) -> Report:
    made = Report(str(tmp_path))
    for name, outcome in files.items():
        path = tmp_path / name
        path.write_bytes(bytes(2000))
        reason = "CHECKSUM_MISMATCH: block" if outcome is Outcome.DAMAGED else ""
        made.say(str(path), outcome, reason)
    return made


def test_damaged_files_are_named_and_all_are_counted(tmp_path: Path) -> None:
    said = report(tmp_path, a=Outcome.WHOLE, b=Outcome.DAMAGED, c=Outcome.EMPTY, d=Outcome.WHOLE)
    assert as_text(said, show_all=False).splitlines() == [
        "outcome    size  file  reason",
        "damaged  2.0KiB  b     CHECKSUM_MISMATCH: block",
        "DAMAGED: 1 damaged, 2 whole, 1 without content, 7.8KiB",
    ]
    assert len(as_text(said, show_all=True).splitlines()) == 6
    assert as_json(said)["whole"] is False


def test_what_is_wrong_between_files_is_told_and_is_damage(tmp_path: Path) -> None:
    said = report(tmp_path, a=Outcome.WHOLE)
    assert as_text(said, show_all=False) == "whole: 1 whole, 2.0KiB"
    said.findings.append("a key is on a lease that isn't there\x1b")
    assert as_text(said, show_all=False).splitlines() == [
        "damaged: a key is on a lease that isn't there\\x1b",
        "DAMAGED: 1 whole, 2.0KiB",
    ]


def test_the_worst_that_is_said_of_a_file_stands(tmp_path: Path) -> None:
    said = report(tmp_path, a=Outcome.DAMAGED)
    said.say(str(tmp_path / "a"), Outcome.WHOLE)
    assert not said.is_whole


def test_what_cannot_be_read_is_an_error_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(directory, "verify", refused)
    result = CliRunner().invoke(kvctl, ["verify", str(tmp_path)])
    assert isinstance(result.exception, StorageError)
    assert "Permission denied in /secret" in str(result.exception)


def test_a_terminal_sees_how_far_it_is(tmp_path: Path) -> None:
    with DB(str(tmp_path / "db")) as db:
        db.put(b"k", b"v")
        db.flush()
    arguments = ["-m", "kvstore.cli.kvctl", "verify", str(tmp_path / "db")]
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=its_end
    ) as child:
        os.close(its_end)
        said, _ = child.communicate(timeout=120)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert child.returncode == 0, said
    assert b"checking" in shown
    assert b"100%" in shown
    assert said.startswith(b"whole: ")
