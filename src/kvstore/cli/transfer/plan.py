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
    with leases, too, also to where there are none."""

    prefix: bytes = b""
    begin: bytes = b""
    there: There = There.REFUSED
    quiet_s: float | None = None
    leased: bool = False

    def rename(self, key: bytes) -> bytes:
        """What a key of the source is called where it comes to."""
        return self.begin + key[len(self.prefix) :]

    def back(self, key: bytes) -> bytes:
        """What a key of where they come to is called at the source."""
        return self.prefix + key[len(self.begin) :]
