"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kvstore.errors import Error

__all__ = ["Finding", "fault", "refusal", "warning"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't as it should be.

    With a ``fault`` kvd doesn't start, or nobody can talk to it; the others are worth knowing.
    """

    fault: bool
    text: str


def fault(text: str) -> Finding:
    """With this kvd doesn't start, or serves nobody."""
    return Finding(True, text)


def warning(text: str) -> Finding:
    """kvd starts all the same."""
    return Finding(False, text)


def refusal(check: Callable[..., object], *arguments: object) -> list[Finding]:
    """What ``check`` raises as a kvstore error, as a fault."""
    try:
        check(*arguments)
    except Error as error:
        return [fault(str(error))]
    return []
