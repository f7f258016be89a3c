"""What came of one case."""

from __future__ import annotations

import enum
from typing import NamedTuple

from kvstore.errors import IntegrityCode, StorageError

__all__ = ["GOOD", "Outcome", "Verdict", "refused"]


class Outcome(enum.StrEnum):
    """The first five are as they must be."""

    DETECTED = "detected"
    CUT = "torn tail cut"
    """With a report, and only behind the end that was last noted outside the log."""
    LEGAL = "crash state"
    """As a power loss may leave it: the newest of what was written since the end of the log was
    last noted outside it is missing whole, so that there is nothing to be cut off."""
    HEALED = "healed by peers"
    """After it was reported."""
    NO_EFFECT = "no effect"
    """Everything that can be read was right."""
    WRONG = "wrong value"
    UNNAMED = "wrong error"
    """Something else was raised than an integrity error, or one that doesn't say where."""
    CRASHED = "crash"
    HANGS = "hang"
    MEMORY = "memory"


GOOD = frozenset({Outcome.DETECTED, Outcome.CUT, Outcome.LEGAL, Outcome.HEALED, Outcome.NO_EFFECT})


class Verdict(NamedTuple):
    """``code``: the integrity code, where there was one. ``detail``: in words."""

    outcome: Outcome
    code: str = ""
    detail: str = ""


def refused(error: StorageError, *, after: Verdict | None = None) -> Verdict:
    """It was noticed; ``after`` is what came of what was read before.

    It must say in which file, and its code must be of bytes, not of a device that says no.
    """
    if after is not None and after.outcome not in GOOD:
        return after
    if error.path is None or error.code is IntegrityCode.IO_ERROR:
        return Verdict(Outcome.UNNAMED, str(error.code), str(error))
    return Verdict(Outcome.DETECTED, str(error.code), str(error))
