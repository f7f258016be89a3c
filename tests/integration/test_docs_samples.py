"""The pages of docs/ that one types along with: what they show runs, and prints what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import free_addresses
from tests.samples.console import Shell, commands, matches
from tests.samples.python import check

DOCS = Path(__file__).parents[2] / "docs"
ROOMS = ("start", "tutorials", "coming-from")
PAGES = sorted(page for room in ROOMS for page in (DOCS / room).glob("*.md"))
ELSEWHERE = {"engine.md", "clients.md"}
"""Pages that other tests run."""
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    text = page.read_text().replace("/tmp/", f"{tmp_path}/").replace("127.0.0.1:50051", address)
    names: dict[str, Any] = {}
    with Shell(tmp_path, KVCTL_ADDR=address) as shell:
        for language, block in BLOCK.findall(text):
            if language == "python":
                check(block, names)
                continue
            for command, expected in commands(block):
                printed = shell.run(command, until=expected)
                assert matches(expected, printed), (
                    f"$ {command}\nprinted\n{printed}\nnot\n{expected}"
                )


def test_no_page_shows_what_isnt_run() -> None:
    shown = {page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text())}
    assert shown - set(PAGES) == {DOCS / name for name in ELSEWHERE}
    assert len(shown) > len(ELSEWHERE) + 5


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("created", "created", True),
        ("created", "overwritten", False),
        ("led by member …, up …s", "led by member 3, up 12s", True),
        ("led by member …", "led by member 3\nand more", False),
        ("first\n…\nlast", "first\n1\n2\nlast", True),
        ("first\n…\nlast", "first\n1\n2", False),
        ("a.c", "abc", False),
    ],
)
def test_what_dots_stand_for(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_commands_go_on_over_lines() -> None:
    block = "$ one \\\n  --two\nsaid\n$ cat <<END\nx\nEND\n$ three\n"
    assert commands(block) == [
        ("one \\\n  --two", "said"),
        ("cat <<END\nx\nEND", ""),
        ("three", ""),
    ]
