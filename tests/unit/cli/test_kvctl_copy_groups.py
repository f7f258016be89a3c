"""``kvctl copy`` from one group to another, both in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import click
import pytest

from kvstore.cli.interface.connection import Settings
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
