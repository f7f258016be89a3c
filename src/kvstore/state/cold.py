"""What memory can't tell, and the disk wasn't asked."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["COLD", "Cold"]


class Cold(enum.Enum):
    """What is given in the place of a value of which only the disk knows."""

    COLD = enum.auto()


COLD: Final = Cold.COLD
