"""docs/engine.md: its examples run, and its tables leave nothing out."""

import dataclasses
import re
from pathlib import Path

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
    assert len(blocks) == 2
    state = {}
    for block in blocks:
        exec(block.replace("/tmp/", f"{tmp_path}/"), state)
    assert "b'user:4' b'Edith'" in capsys.readouterr().out


def test_every_option_is_named():
    assert names("Options") == {field.name for field in dataclasses.fields(kvstore.Options)}


def test_every_statistic_is_named():
    with kvstore.DB("/db", filesystem=MemoryFileSystem()) as db:
        stats = db.stats()
    assert names("stats()") == set(stats)
    for part in (stats["log"], stats["cache"], stats["levels"][0]):
        assert all(f"`{name}`" in section("stats()") for name in part)
