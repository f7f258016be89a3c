"""Whatever kvd's log says above ``info`` stands in the table of ``docs/operations.md``.

What clients tell the standard library's logging is in ``docs/clients.md``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEVELS = {"warning", "error", "exception", "critical"}


def events() -> Iterator[str]:
    package = ROOT / "src/kvstore"
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "client"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                ) if level in LEVELS:
                    yield event


def test_each_warning_is_documented() -> None:
    document = (ROOT / "docs/operations.md").read_text()
    _, _, table = document.partition("| event | level | fields |")
    table, _, _ = table.partition("\n\n")
    said = set(events())
    assert len(said) > 20
    assert {event for event in said if f"`{event}`" not in table} == set()
