"""One moment of a state, to be compared with that of other members that have applied as much."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvstore._engine.primitives.native import crc32c
from kvstore.engine import DB
from kvstore.state.stored import USER

__all__ = ["Captured", "RowsHash"]

_USER_STOP: Final = bytes([USER[0] + 1])
_ROW = struct.Struct("<QII")


class RowsHash(NamedTuple):
    """Of some rows in their order: how many, their CRC-32C, and the user key of the row after the
    last of them; None where there is none."""

    rows: int
    crc: int
    next_key: bytes | None


class Captured:
    """The rows of a state at one moment, to be read on any thread until it is closed.

    They are what users stored, each with its revision and its bytes as they lie in the engine: the
    same on all members, whatever their engines have merged. (Other records are written at sequences
    that are used more than once, so no moment of them can be kept.)
    """

    def __init__(self, db: DB) -> None:
        """On the thread that applies, between two slices."""
        self._db = db
        self._moment = db.snapshot()

    def hash_rows(self, start: bytes, bytes_max: int) -> RowsHash:
        """The hash of the rows from user key ``start`` on: at least one, and none after the one
        that passes ``bytes_max`` of keys and values.

        What it reads doesn't stay in the block cache. Raises StorageError, ClosedError.
        """
        rows = size = crc = 0
        with self._db.iterator(
            start=USER + start,
            stop=_USER_STOP,
            sequence=self._moment.sequence,
            include_sequence=True,
            fill_cache=False,
        ) as walk:
            for key, value, sequence in walk:
                if rows and size >= bytes_max:
                    return RowsHash(rows, crc, key[len(USER) :])
                crc = crc32c(_ROW.pack(sequence, len(key), len(value)), crc)
                crc = crc32c(value, crc32c(key, crc))
                size += len(key) + len(value)
                rows += 1
        return RowsHash(rows, crc, None)

    def close(self) -> None:
        """Let go of the moment. Closing twice is fine, and so is closing after the state."""
        self._moment.close()
