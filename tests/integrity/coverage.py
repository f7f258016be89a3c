"""What covers each byte, by docs/storage-format.md: the document is the one list there is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kvstore.errors import IntegrityCode

__all__ = ["MENDED", "NO_EFFECT", "REFUSED", "STANDS_ASIDE", "Cover", "coverage"]

NO_EFFECT = "no effect"
STANDS_ASIDE = "stands aside"
MENDED = "mended"
REFUSED = "refused"
OUTCOMES = {NO_EFFECT, STANDS_ASIDE, MENDED, REFUSED, *(code.value for code in IntegrityCode)}

_DOCUMENT = Path(__file__).parents[2] / "docs" / "storage-format.md"
_HEADING = "## Every byte, and what covers it"
_ALL = "all"


class Cover(NamedTuple):
    """``how`` in the document's words; ``outcomes``: what a changed bit may come to."""

    how: str
    outcomes: frozenset[str]


def coverage() -> dict[str, Cover]:
    """By the names of ``tests.integrity.regions``."""
    section = _DOCUMENT.read_text().split(_HEADING, 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    found: dict[str, Cover] = {}
    for row in rows[2:]:
        file, part, how, outcomes = (cell.strip() for cell in row.strip("|").split("|"))
        name = file if part == _ALL else f"{file}: {part}"
        assert name not in found, f"{name} is listed twice"
        found[name] = Cover(how, frozenset(outcome.strip() for outcome in outcomes.split(",")))
        unknown = found[name].outcomes - OUTCOMES
        assert not unknown, f"{name} comes to {unknown}"
    return found
