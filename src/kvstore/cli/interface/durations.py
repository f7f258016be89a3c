"""Times on the command line: seconds, or with a unit."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import click

__all__ = ["duration_type"]

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,9})?)(?P<unit>ms|s|m|h|d|)")

if TYPE_CHECKING:
    FloatType = click.ParamType[float]
else:
    FloatType = click.ParamType  # which older versions of Click can't subscript


class Duration(FloatType):
    """More than no time, in seconds."""

    name = "SECONDS"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if not isinstance(value, str):
            return float(value)
        said = _DURATION.fullmatch(value.strip())
        seconds = 0.0 if said is None else float(said["number"]) * _UNITS[said["unit"]]
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} is no time: give seconds, or 500ms, 30s, 5m, 2h, 1d", param, ctx)
        return seconds


duration_type = Duration()
