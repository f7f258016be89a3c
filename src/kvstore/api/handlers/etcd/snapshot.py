"""A sealed backup file in the blobs of etcd's Snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvstore.replica.backup_file import SEAL_BYTES, sealed_bytes

__all__ = ["BLOB_BYTES_MAX", "Blobs"]

BLOB_BYTES_MAX: Final = 32 << 10


class Blobs:
    """Cuts a file's pieces, the first of which is its head. The seal's sum is a blob of its own,
    which doesn't count among the bytes that remain."""

    def __init__(self) -> None:
        self._left: int | None = None

    def cut(self, piece: bytes) -> Iterator[tuple[bytes, int]]:
        """The blobs of the next piece, and how many bytes remain after each."""
        left = sealed_bytes(piece) - SEAL_BYTES if self._left is None else self._left
        at = 0
        while at < len(piece):
            blob = piece[at : at + min(left or SEAL_BYTES, BLOB_BYTES_MAX)]
            at += len(blob)
            left = max(left - len(blob), 0)
            yield blob, left
        self._left = left
