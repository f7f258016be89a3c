"""How ``kvctl repair`` tells what members, or a library's database, came to."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvstore import DB
from kvstore.cli.cluster import repair as kvctl_repair
from kvstore.cli.interface.connection import Settings
from kvstore.cli.kvctl import kvctl
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


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        ("data/KVSTORE", "data", "/data repair'"),
        ("data/node1/state-1/CURRENT", "data/node1", "is a member's"),
        ("data/node1/state-1/CURRENT", "data/node1/state-1", "is a member's"),
        ("photos/cat.jpg", "photos", "holds no kvstore database"),
    ],
)
def test_what_is_no_librarys_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, given: str, said: str
) -> None:
    (tmp_path / made).parent.mkdir(parents=True)
    (tmp_path / made).touch()
    if "node1" in made:
        (tmp_path / "data" / "node1" / "log").mkdir()
    monkeypatch.chdir(tmp_path / given)
    (tmp_path / "link").symlink_to(tmp_path / given)
    for named in (tmp_path / given, Path(), tmp_path / "link"):
        result = CliRunner().invoke(kvctl, ["repair", str(named)])
        assert isinstance(result.exception, ConfigurationError)
        assert said in str(result.exception)
    assert (tmp_path / made).exists()
