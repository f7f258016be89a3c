"""Whom ``kvctl`` comes as, and where it has a new password from."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import click
import pytest

from kvstore.cli.access.user import new_password
from kvstore.cli.interface.connection import Settings


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def without_tty(path: Any, *flags: Any, **more: Any) -> int:
        if path == "/dev/tty":
            raise OSError(errno.ENXIO, "there is none")
        return opened(path, *flags, **more)

    monkeypatch.setattr(os, "open", without_tty)
    monkeypatch.delenv("KVCTL_NEW_PASSWORD", raising=False)


def test_without_a_terminal_it_says_what_to_give_in_its_place() -> None:
    with pytest.raises(click.UsageError, match=r"ann on: .*KVCTL_NEW_PASSWORD, or --new-password"):
        new_password("ann", None)


def test_a_file_and_the_environment_need_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVCTL_NEW_PASSWORD", "of the environment")
    assert new_password("ann", None) == "of the environment"
    file = tmp_path / "password"
    file.write_text("of a file\n")
    assert new_password("ann", file) == "of a file"


@pytest.mark.parametrize("user", ["", ":", ":password"])
def test_a_user_without_a_name_is_refused_before_anything_is_asked(user: str) -> None:
    with pytest.raises(click.UsageError, match="--user names nobody"):
        Settings(user=user).connect()
