"""An operation on a key, as one of many that are listed and then done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from kvstore.client.quick import QuickTry

__all__ = ["Kind", "Operation", "Result"]

Result: TypeAlias = bool | bytes | None


class Kind(Enum):
    PUT = "put"
    GET = "get"
    DELETE = "delete"


@dataclass(slots=True, eq=False)
class Operation:
    """One of many. ``place``: its number among them. ``after``: the next one of its key, which
    waits until this one is done. ``begun``: its try, while it is under way without a task."""

    kind: Kind
    key: bytes
    value: bytes = b""
    place: int = 0
    after: Operation | None = None
    begun: QuickTry | None = None
