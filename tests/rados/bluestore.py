"""Bytes of an OSD's store, found and flipped where they lie on its disk."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["flip"]


def _ranges(file: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data."""
    size = os.fstat(file).st_size
    end = 0
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end


def _places(path: Path, bytes_: bytes) -> list[int]:
    found = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as disk:
        for begin, end in _ranges(file.fileno()):
            place = disk.find(bytes_, begin, end)
            while place >= 0:
                found.append(place)
                place = disk.find(bytes_, place + 1, end)
    return found


def flip(store: Path, value: bytes) -> bytes:
    """Flip one bit of ``value`` wherever a stopped OSD's ``store`` has it: a part of it, that is
    within one block of the disk. The part as it is now, to be flipped back."""
    part = value[:64]
    places = _places(store / "block", part)
    assert places, "the disk does not have it"
    changed = bytes([part[0] ^ 1]) + part[1:]
    with open(store / "block", "r+b") as disk:
        for place in places:
            disk.seek(place)
            disk.write(changed)
    return changed
