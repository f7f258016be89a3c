"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.targets import served, spoken, stored
from tests.fuzz.targets.target import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target for target in (*stored.TARGETS, *spoken.TARGETS, *served.TARGETS)
}
