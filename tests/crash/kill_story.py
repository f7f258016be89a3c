"""What a process does until it is killed, and what may be there then: a list of steps, by number.

A writer tells the number of each step that is done; whoever opens what it left behind knows from
the numbers alone what must be there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["STEPS", "State", "Step", "states", "steps"]

STEPS = 40
_KEYS = 120
_UPKEEP = {6: "flush", 10: "compact", 14: "flush", 17: "checkpoint", 22: "reopen", 26: "flush"}
_UPKEEP |= {29: "compact", 33: "checkpoint", 36: "flush"}

State = dict[bytes, bytes]


class Step(NamedTuple):
    """One step: upkeep, or a write that is done whole or not at all.

    ``kind``: ``write``, ``delete_range``, ``flush``, ``compact``, ``checkpoint`` or ``reopen``.
    ``rows``: key to value, None to delete it. ``span``: the keys from the first up to the second.
    ``sync``: once it is done, it and all before it are there for good.
    """

    kind: str
    rows: dict[bytes, bytes | None]
    span: tuple[bytes, bytes]
    sync: bool


def steps(seed: int = 1) -> list[Step]:
    """The same ones for the same seed."""
    chance = random.Random(seed)
    return [_step(chance, number) for number in range(STEPS)]


def _step(chance: random.Random, number: int) -> Step:
    kind = _UPKEEP.get(number, "write")
    if kind != "write":
        return Step(kind, {}, (b"", b""), kind != "checkpoint")
    sync = number % 3 != 1
    if number % 8 == 5:
        low = chance.randrange(_KEYS)
        return Step("delete_range", {}, (b"%03d" % low, b"%03d" % (low + 9)), sync)
    rows: dict[bytes, bytes | None] = {}
    for _ in range(1 if number % 2 else 30):
        key = b"%03d" % chance.randrange(_KEYS)
        rows[key] = chance.randbytes(chance.choice([20, 1200])) if chance.random() < 0.8 else None
    return Step("write", rows, (b"", b""), sync)


def states(told: Sequence[Step]) -> list[State]:
    """What is there before the first step, after it, and so on."""
    found: list[State] = [{}]
    for step in told:
        first, stop = step.span
        now = {key: value for key, value in found[-1].items() if not first <= key < stop}
        for key, value in step.rows.items():
            if value is None:
                now.pop(key, None)
            else:
                now[key] = value
        found.append(now)
    return found
