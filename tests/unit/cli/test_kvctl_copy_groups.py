"""``kvctl copy`` from one group to another, both in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import click
import pytest

from kvstore.cli.interface.connection import Settings
from kvstore.cli.kvctl import run
from kvstore.cli.transfer.groups import between_groups
from kvstore.cli.transfer.plan import Plan, There
from kvstore.testing import MemoryClient

Copy: TypeAlias = Callable[[Plan], tuple[int, dict[str, Any]]]


@pytest.fixture
def old() -> Iterator[MemoryClient]:
    with MemoryClient() as client:
        yield client


@pytest.fixture
def new() -> Iterator[MemoryClient]:
    with MemoryClient() as client:
        yield client


@pytest.fixture
def copy(old: MemoryClient, new: MemoryClient, capsys: pytest.CaptureFixture[str]) -> Copy:
    def told(plan: Plan) -> tuple[int, dict[str, Any]]:
        context = click.Context(click.Command("copy"), obj=Settings(output="json"))
        status = between_groups(context, old, new, plan, "old:1", "new:1")
        return status, json.loads(capsys.readouterr().out)

    return told


@pytest.mark.parametrize("there", [There.MERGED, There.MIRRORED])
def test_what_is_there_with_a_lease_is_written_without(
    old: MemoryClient, new: MemoryClient, copy: Copy, there: There
) -> None:
    old.put_many({b"a": b"1", b"b": b"2"})
    with new.lease(60) as lease:
        new.put(b"a", b"1", lease=lease)
        status, told = copy(Plan(there=there))
    assert (status, told["copied"], told["equal"]) == (0, 2, True)
    assert {entry.key: entry.value for entry in new.range()} == {b"a": b"1", b"b": b"2"}


def test_a_lease_that_comes_after_the_copy_is_a_difference(
    old: MemoryClient, new: MemoryClient, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.put_many({b"a": b"1", b"b": b"2"})
    with new.lease(60) as lease:
        monkeypatch.setattr(
            "kvstore.cli.transfer.groups.catch_up",
            lambda *words: new.put(b"a", b"1", lease=lease),
        )
        status, told = copy(Plan())
    assert (status, told["different"], told["equal"]) == (1, 1, False)


def test_a_mirror_of_nothing_is_refused_unless_it_is_meant(
    old: MemoryClient, new: MemoryClient, copy: Copy
) -> None:
    new.put(b"a", b"1")
    with pytest.raises(click.ClickException, match="no such keys"):
        copy(Plan(there=There.MIRRORED))
    assert new.count() == 1
    status, told = copy(Plan(there=There.MIRRORED, empties=True))
    assert (status, told["removed"], new.count()) == (0, 1, 0)


def test_a_prefix_that_makes_a_key_too_long_is_refused_before_anything_is_written(
    old: MemoryClient, new: MemoryClient, copy: Copy
) -> None:
    old.put_many({b"a": b"1", b"k" * 1023: b"2"})
    with pytest.raises(click.ClickException, match="1025 bytes"):
        copy(Plan(begin=b"p/"))
    assert new.count() == 0
    assert copy(Plan(begin=b"p"))[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from=rados:", "--to=127.0.0.1:1"], "give the file"),
        (["--from=127.0.0.1:1", "--to=127.0.0.1:2", "--without-leases"], "for a pool"),
        (["--from=rados:none.toml", "--to=127.0.0.1:2", "--without-leases"], "for a pool"),
        (["--from=127.0.0.1:1", "--to=127.0.0.1:2", "--allow-empty"], "for --mirror"),
    ],
)
def test_words_that_mean_nothing_are_a_wrong_use(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["copy", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_machine_without_librados_is_told_so_and_nothing_of_kvds_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_found(library: str) -> None:
        raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setattr("kvstore._rados.native.load", not_found)
    file = tmp_path / "gateway.toml"
    file.write_text('pool = "p"')
    assert run(["copy", f"--from=rados:{file}", "--to=127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert "a pool of RADOS needs librados" in said
    assert "--mode" not in said


def test_a_file_that_is_not_there_is_no_option_of_kvds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["copy", "--from=rados:none.toml", "--to=127.0.0.1:1"]) == 1
    assert "failed to read none.toml: No such file" in capsys.readouterr().err
