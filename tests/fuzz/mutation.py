"""Small mistakes made in inputs that are right."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["mutated"]

INPUT_BYTES_MAX = 65_536
NUMBERS = [0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1]
LONG_NUMBERS = [1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """``data`` with one to six mistakes, some of them parts of ``others``."""
    bad = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(bad) + 1)
        match chance.randrange(10):
            case 0 | 1 if at < len(bad):
                bad[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(bad):
                bad[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 3:
                del bad[at : at + _length(chance)]
            case 4:
                bad[at:at] = chance.randbytes(_length(chance))
            case 5:
                bad[at:at] = bad[at : at + _length(chance)]
            case 6:
                _put_number(bad, at, chance)
            case 7:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                size = _length(chance)
                replaced = chance.choice((0, size))
                bad[at : at + replaced] = other[start : start + size]
            case 8 if chance.random() < 0.3:
                del bad[at:]
            case _:
                to = chance.randrange(len(bad) + 1)
                size = _length(chance)
                bad[to : to + size] = bad[at : at + size]
    return bytes(bad[:INPUT_BYTES_MAX])


def _length(chance: random.Random) -> int:
    return chance.choice((1, 1, 2, 4, 8, 16, 48, chance.randrange(1, 400)))


def _put_number(bad: bytearray, at: int, chance: random.Random) -> None:
    size = chance.choice((1, 2, 4, 4, 8))
    number = chance.choice(LONG_NUMBERS if size == 8 else NUMBERS) + chance.choice((0, 0, 1, -1))
    number &= (1 << 8 * size) - 1
    bad[at : at + size] = number.to_bytes(size, chance.choice(("little", "little", "big")))
