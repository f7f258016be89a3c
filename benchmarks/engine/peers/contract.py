"""What every engine is opened with and can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

__all__ = ["LARGEST_BUFFER_BYTES", "Budget", "Engine", "Pair"]

LARGEST_BUFFER_BYTES = 1 << 30
"""LevelDB keeps the size in an int and clips it to this; beyond 2^31 it fell to 64 KiB."""

Pair = tuple[bytes, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """What an engine may take, the same for all."""

    cache_bytes: int
    """Of blocks; 0: none. LMDB and, for tables, LevelDB have the page cache beside it."""
    write_buffer_bytes: int
    """Of each of two memtables."""

    def __post_init__(self) -> None:
        if not 1 << 16 <= self.write_buffer_bytes <= LARGEST_BUFFER_BYTES:
            raise ValueError(
                f"a write buffer of {self.write_buffer_bytes} bytes isn't the same for all"
            )

    @property
    def table_bytes(self) -> int:
        return min(max(self.write_buffer_bytes, 2 << 20), 32 << 20)

    @property
    def level_bytes(self) -> int:
        """Of level 1; LevelDB's is always 10 MiB."""
        return min(max(4 * self.write_buffer_bytes, 10 << 20), 256 << 20)


class Engine(Protocol):
    """An open store. Not synced unless the name says so."""

    put: Callable[[bytes, bytes], object]
    get: Callable[[bytes], bytes | None]
    delete: Callable[[bytes], object]

    put_awaited: Callable[[bytes, bytes], Awaitable[object]] | None
    """On an event loop, done when it is synced; None where the engine has no such call."""

    def put_synced(self, key: bytes, value: bytes) -> object: ...

    def write(self, pairs: Iterable[Pair]) -> None:
        """All pairs in one batch."""

    def write_synced(self, pairs: Iterable[Pair]) -> None: ...

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]: ...

    def forward(self) -> Iterable[Pair]: ...

    def reverse(self) -> Iterable[Pair]: ...

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        """The first `count` pairs at or after the key."""

    def flush(self) -> None:
        """What is in memory is in tables, or in the map of the file, and synced."""

    def settle(self) -> None:
        """Everything flushed and compacted; nothing runs in the background any more."""

    def close(self) -> None: ...
