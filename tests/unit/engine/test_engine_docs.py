"""docs/engine.md: its examples run, and its tables leave nothing out."""

import dataclasses
import re
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem

TEXT = (Path(__file__).parents[3] / "docs" / "engine.md").read_text()


def section(title):
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def names(title):
    """What the first column of the section's table names."""
    rows = [line.split(" | ")[0] for line in section(title).splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_examples_run(tmp_path, capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 4
    state = {}
    for block in blocks:
        exec(block.replace("/tmp/", f"{tmp_path}/"), state)
    assert "b'user:4' b'Edith'" in capsys.readouterr().out


def test_every_option_is_named():
    assert names("Options") == {field.name for field in dataclasses.fields(kvstore.Options)}


UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


# Options that must have other values beside the lowest or highest of one.
COMPANIONS = {
    "compaction_trigger": {"slowdown_files": 256, "stop_files": 512},
    "slowdown_files": {"stop_files": 512},
    "stop_files": {"slowdown_files": 4},
}


def number(words):
    """What "64 KiB", "2^40" or "12" stands for."""
    base, _, unit = words.partition(" ")
    base, _, power = base.partition("^")
    return int(base) ** int(power or 1) * UNITS[unit]


def test_the_options_have_these_defaults_and_bounds():
    rows = [re.split(r" *\| *", line) for line in section("Options").splitlines()]
    rows = [row[1:4] for row in rows if len(row) == 6 and row[1].startswith("`")]
    options = kvstore.Options()
    assert len(rows) == len(dataclasses.fields(options))
    bounded = set()
    for quoted, default, bounds in rows:
        name = quoted.strip("`")
        value = getattr(options, name)
        if default.startswith("`"):
            assert default == f"`{value}`", name
        else:
            assert number(default) == value, name
        if " to " in bounds:
            bounded.add(name)
            low, high = map(number, bounds.split(" to "))
            others = COMPANIONS.get(name, {})
            for allowed in (low, high):
                kvstore.Options(**{name: allowed}, **others)
            for refused in (low - 1, high + 1):
                with pytest.raises(kvstore.InvalidArgumentError, match=name):
                    kvstore.Options(**{name: refused}, **others)
    numbers = {
        field.name
        for field in dataclasses.fields(options)
        if type(getattr(options, field.name)) is int
    }
    assert bounded == numbers


def test_every_statistic_is_named():
    with kvstore.DB("/db", filesystem=MemoryFileSystem()) as db:
        stats = db.stats()
    assert names("stats()") == set(stats)
    for part in (stats["log"], stats["changes"], stats["cache"], stats["levels"][0]):
        assert all(f"`{name}`" in section("stats()") for name in part)
