"""Charts as SVG: lines over the last minutes, drawn here, so that a page needs nothing to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

__all__ = ["Chart", "Line", "chart"]

WIDTH: Final = 300
HEIGHT: Final = 80


class Line(NamedTuple):
    """``name`` is for the legend; ``points`` for a ``polyline`` each, apart where nothing was
    known; ``last``: the newest value in words."""

    name: str
    points: tuple[str, ...]
    last: str


class Chart(NamedTuple):
    """``top``: the highest value, in words, at the upper edge; ``said``: all of it in a sentence,
    for who can't see it."""

    title: str
    lines: tuple[Line, ...]
    top: str
    said: str
    width: int = WIDTH
    height: int = HEIGHT


def chart(
    title: str,
    series: Sequence[tuple[str, Sequence[float | None]]],
    words: Callable[[float], str],
    places: int,
) -> Chart:
    """``series``: name and values, the newest last; ``places``: how many values the width holds."""
    known = [value for _, values in series for value in values if value is not None]
    top = max(known, default=0.0)
    lines = tuple(_line(name, values, top or 1.0, words, places) for name, values in series)
    now = ", ".join(f"{line.name} {line.last}" for line in lines)
    return Chart(title, lines, words(top), f"{title}: now {now}; at most {words(top)}")


def _line(
    name: str,
    values: Sequence[float | None],
    top: float,
    words: Callable[[float], str],
    places: int,
) -> Line:
    step = WIDTH / max(1, places - 1)
    begin = WIDTH - step * (len(values) - 1)
    runs: list[list[str]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            height = (HEIGHT - 4) * min(1.0, value / top)
            runs[-1].append(f"{begin + number * step:.1f},{HEIGHT - 2 - height:.1f}")
    last = values[-1] if values else None
    points = tuple(" ".join(run) for run in runs if run)
    return Line(name, points, "unknown" if last is None else words(last))
