"""What an iterator walks over, as keyword arguments, for type checkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

__all__ = ["Bounds", "InterruptibleBounds", "VersionedBounds"]

_Bytes = bytes | bytearray | memoryview


class Bounds(TypedDict, total=False):
    """Of a snapshot's iterators."""

    reverse: bool
    start: _Bytes | None
    stop: _Bytes | None
    include_start: bool
    include_stop: bool
    prefix: _Bytes | None
    verify_checksums: bool
    fill_cache: bool
    limit: int | None


class VersionedBounds(Bounds, total=False):
    """Of the iterators of a view."""

    sequence: int | None


class InterruptibleBounds(VersionedBounds, total=False):
    """Of a database's iterators."""

    interrupt: Callable[[], object] | None
