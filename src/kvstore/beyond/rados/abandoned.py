"""Operations that nobody waits for, now or from the first, and that the pool hasn't answered yet.

librados lets go of an operation at once, but not of its message: that stays in the queue of a
connection to an OSD which stands still, until the monitors give the OSD up. So a call's end frees
no memory for certain, and what was begun for it counts until the pool answers, or for
:data:`ABANDONED_S` at most, after which it is cancelled. By then an OSD that reads nothing has been
given up; where it reads, and the placement group is inactive, nothing is left in a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kvstore.beyond.rados.objects import Operation

__all__ = ["ABANDONED_S", "Abandoned"]

ABANDONED_S = 60.0


class Abandoned:
    """All of one gateway's. One thread. ``size``: bytes of values that they hold."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # Oldest first: since when, and how many bytes.
        self._operations: dict[Operation, tuple[float, int]] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._operations)

    def add(self, operations: Iterable[Operation], size: int = 0) -> None:
        """Nobody waits for them from now on; the first of them holds ``size`` bytes."""
        for operation in operations:
            self._operations[operation] = (self._now(), size)
            self.size += size
            size = 0

    def answered(self, operation: Operation) -> None:
        """It is finished, whatever it is."""
        found = self._operations.pop(operation, None)
        if found is not None:
            self.size -= found[1]

    def tick(self) -> None:
        """Cancel those that are old."""
        due = self._now() - ABANDONED_S
        for operation, (since, _) in self._operations.items():
            if since > due:
                break
            operation.cancel()

    def close(self) -> None:
        """Cancel all."""
        for operation in self._operations:
            operation.cancel()
