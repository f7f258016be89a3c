"""Figures beside what was aimed at, as benchmarks leave them and the report prints them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

__all__ = ["Goal", "goal_table"]


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """``measured`` is to be at least, or at most, ``bound``; ``beside`` says what it is made of."""

    name: str
    measured: float
    side: Literal["≥", "≤"]
    bound: float
    unit: str = ""
    beside: str = ""

    @property
    def met(self) -> bool:
        if self.side == "≥":
            return self.measured >= self.bound
        return self.measured <= self.bound

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def goal_table(goals: Sequence[Goal]) -> list[str]:
    """Markdown."""
    lines = ["| | measured | goal | |", "|---|---:|---:|---|"]
    for goal in goals:
        verdict = "met" if goal.met else "**missed**"
        lines.append(
            f"| {goal.name}{f' ({goal.beside})' if goal.beside else ''} "
            f"| {goal.measured:,.3g}{goal.unit} | {goal.side} {goal.bound:,.6g}{goal.unit} "
            f"| {verdict} |"
        )
    return lines
