"""Numbers of as few bytes as they need: LEB128, and zigzag before it where they may be negative.

Only the shortest form of a number is read, so that what was read encodes to the same bytes again.
"""

from __future__ import annotations

from typing import Final

from kvstore.errors import CorruptionError, IntegrityCode

__all__ = [
    "I64_MAX",
    "I64_MIN",
    "U64_MAX",
    "append_signed",
    "append_varint",
    "read_signed",
    "read_varint",
]

U64_MAX: Final = (1 << 64) - 1
I64_MAX: Final = (1 << 63) - 1
I64_MIN: Final = -(1 << 63)

_SHIFT_MAX = 63


def append_varint(target: bytearray, number: int) -> None:
    """Add ``number``, 0 to U64_MAX."""
    if 0 <= number < 0x80:  # nearly all are
        target.append(number)
        return
    if not 0 <= number <= U64_MAX:
        raise ValueError(f"{number} is not of 64 bits")
    while number > 0x7F:
        target.append(number & 0x7F | 0x80)
        number >>= 7
    target.append(number)


def append_signed(target: bytearray, number: int) -> None:
    """Add ``number``, I64_MIN to I64_MAX: 0, -1, 1, -2, ... take the numbers from 0 on."""
    append_varint(target, number << 1 if number >= 0 else ~(number << 1))


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends; raises CorruptionError, with the offset."""
    if at < len(data) and data[at] < 0x80:  # nearly all are
        return data[at], at + 1
    start = at
    number = shift = 0
    while True:
        if at >= len(data):
            raise CorruptionError(
                "number cut short", code=IntegrityCode.TRUNCATED_RECORD, offset=start
            )
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > _SHIFT_MAX:
            break
    if number > U64_MAX or byte > 0x7F or (shift and not byte):
        raise CorruptionError(
            "number of more bytes than it needs", code=IntegrityCode.INVALID_RECORD, offset=start
        )
    return number, at


def read_signed(data: bytes, at: int) -> tuple[int, int]:
    """The same for what :func:`append_signed` wrote."""
    number, at = read_varint(data, at)
    return (number >> 1) ^ -(number & 1), at
