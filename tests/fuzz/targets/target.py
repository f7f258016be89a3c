"""What is fuzzed: something that takes bytes, and does nothing but take or refuse them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

__all__ = ["Run", "Target", "plain"]

Run = Callable[[bytes], object]
"""Takes one input and returns a word, or numbers, for what came of it: an input with another one
than any before is worth changing further. Raises AssertionError, or what nobody expects, for a
defect."""


@dataclass(frozen=True)
class Target:
    """``seeds``: inputs that are right. ``opened``: what to run, with what it needs around it."""

    name: str
    seeds: Callable[[], list[bytes]]
    opened: Callable[[], AbstractContextManager[Run]]


def plain(name: str, seeds: Callable[[], list[bytes]], run: Run) -> Target:
    """A target that needs nothing around it."""
    return Target(name, seeds, lambda: contextlib.nullcontext(run))
