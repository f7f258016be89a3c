"""Inputs that are kept: those that once showed a defect, which ``make test`` replays."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["keep", "kept"]

CORPUS = Path(__file__).parent / "corpus"


def kept(target: str) -> list[Path]:
    """The files of a target."""
    return sorted((CORPUS / target).glob("*.bin"))


def keep(target: str, data: bytes) -> Path:
    """Put an input among them."""
    path = CORPUS / target / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path
