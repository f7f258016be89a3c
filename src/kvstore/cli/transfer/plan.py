"""What ``kvctl copy`` was asked to copy, and how."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Plan", "There"]


class There(enum.Enum):
    """What becomes of keys that are there already where the others come to."""

    REFUSED = "refused"
    """Nothing is copied then."""
    MERGED = "merged"
    """They stay, but for those that are called as one that comes."""
    MIRRORED = "mirrored"
    """They go, but for those that the source has, too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Keys that begin with ``prefix``, which begin with ``begin`` in the end. ``quiet_s``: to go on
    until nothing has changed for so long; None: until nothing is left to copy. ``leased``: keys
    with leases, too, also to where there are none. ``patience_s``: after which a watch that says
    nothing is no longer waited for without asking the source whether it is there. ``empties``: a
    mirror of no keys, too, removes all that there is."""

    prefix: bytes = b""
    begin: bytes = b""
    there: There = There.REFUSED
    quiet_s: float | None = None
    leased: bool = False
    patience_s: float = 5.0
    empties: bool = False

    @property
    def again(self) -> str:
        """How it goes on where it broke off: what was REFUSED to be copied beside others has all
        of the place to itself, and nothing of others goes."""
        same = "the same command"
        return f"{same} with --mirror" if self.there is There.REFUSED else same

    def rename(self, key: bytes) -> bytes:
        """What a key of the source is called where it comes to."""
        return self.begin + key[len(self.prefix) :]

    def back(self, key: bytes) -> bytes:
        """What a key of where they come to is called at the source."""
        return self.prefix + key[len(self.begin) :]
