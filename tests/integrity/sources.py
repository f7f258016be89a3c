"""Real data to damage: databases, members, backups, made small but with everything in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.integrity.trees import Tree

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """Files of one form, and what must be read from them.

    ``older``: as they were at an earlier moment. ``foreign``: of another database, or of the same
    member of another cluster. ``truth``: what the form's judge compares with. ``directories``:
    words of damages to whole directories. ``every_byte``: whether each byte of what must have each
    byte damaged has a case, or only a sample, since another source has the same files. ``at_most``:
    so many of its cases are drawn, since each takes seconds; 0: all are judged.
    ``seconds_max``: what one may take: a loaded machine is slow, what hangs does so for ever.
    """

    name: str
    form: str
    files: Tree
    older: Tree
    foreign: Tree
    truth: Any
    directories: tuple[tuple[str, ...], ...] = field(default=())
    every_byte: bool = True
    at_most: int = 0
    seconds_max: float = 20.0
