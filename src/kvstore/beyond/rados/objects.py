"""What is needed of a pool: :class:`kvstore._rados.native.Pool` is one, tests have another."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["ABSENT", "ANY", "CONFLICTS", "Done", "Objects", "Operation"]

ABSENT = -1
"""For a guard: the object isn't there yet, and is made."""
ANY = -2
"""For a guard: there is none."""

CONFLICTS = frozenset((-errno.ERANGE, -errno.EOVERFLOW, -errno.EEXIST))
"""What a guarded write ends with where the guard didn't hold: nothing was changed."""


class Operation(Protocol):
    """What was asked of an object, and when it is finished what came of it.

    ``code``: 0, or an errno, negative. ``version``: of the object, as of then; 0 where there is
    none. ``pairs``: those that were asked for and are there; ``more``: behind the last of a list
    there are others. ``data``: bytes that were read.
    """

    @property
    def code(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def pairs(self) -> Any: ...
    @property
    def data(self) -> Any: ...
    @property
    def more(self) -> bool: ...
    @property
    def done(self) -> Any: ...

    def cancel(self) -> None:
        """Have it finish now, with ECANCELED; it may be done all the same. Nothing once it is."""


Done = Callable[[Any], object]
"""Called once with the operation, by whoever drains, on the thread that drives the service."""


class Objects(Protocol):
    """The objects of one namespace. Each call begins an operation and waits for nothing. One
    thread. What was begun on one object is done in that order, as far as it is done."""

    def read_pairs(self, name: bytes, keys: list[bytes], done: Done) -> Operation: ...

    def list_pairs(
        self, name: bytes, after: bytes, prefix: bytes, most: int, done: Done
    ) -> Operation: ...

    def read_data(self, name: bytes, most: int, done: Done) -> Operation: ...

    def write(
        self,
        name: bytes,
        guard: int,
        pairs: dict[bytes, bytes] | None,
        removed: list[bytes] | None,
        data: bytes | None,
        done: Done,
        size: int | None = None,
    ) -> Operation:
        """Set ``pairs``, remove those of the keys ``removed`` and let ``data`` be the bytes, or
        have ``size`` of them, all or nothing. ``guard``: the object's version, or ABSENT or ANY.

        A full pool refuses what makes an object, or has more bytes than before; pairs don't count.
        """

    def remove(self, name: bytes, done: Done) -> Operation: ...

    def is_there(self) -> bool:
        """Whether there is the pool itself: where it isn't, no object is found, either."""
