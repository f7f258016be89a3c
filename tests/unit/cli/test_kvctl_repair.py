"""How ``kvctl repair`` tells what members, or a library's database, came to."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvstore import DB
from kvstore.cli import kvctl_repair
from kvstore.cli.kvctl import kvctl
from kvstore.cli.kvctl_connection import Settings
from kvstore.client import Repairs
from kvstore.errors import ConfigurationError


def whole(member: int) -> Repairs:
    return Repairs(member, 1, 0.0, 0, "", 0, 0, 0, "")


def test_members_of_several_addresses_are_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"a:1": whole(1), "b:1": whole(2)}
    monkeypatch.setattr(Settings, "connect", lambda settings, address: contextlib.nullcontext())
    monkeypatch.setattr(kvctl_repair, "_await", lambda client, address: (members[address],))
    arguments = ["--addr", "a:1,b:1", "repair", "--output=json"]
    result = CliRunner().invoke(kvctl, arguments, catch_exceptions=False)
    assert [member["member_id"] for member in json.loads(result.stdout)] == [1, 2]


def test_a_database_in_use_is_refused_and_not_damaged(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with DB(path, create_if_missing=True):
        result = CliRunner().invoke(kvctl, ["repair", path])
    assert isinstance(result.exception, ConfigurationError)
    assert "is in use: close it first" in str(result.exception)
