"""When leases run out, as the leader's clock has it."""

from __future__ import annotations

import heapq
from itertools import count

__all__ = ["Deadlines", "Tenure"]

SWEEP_MIN = 1024
"""So many of those that are gone stay in the heap, and as many as are left."""


class Tenure:
    """A lease from its grant to its end, at a leader. ``ttl`` in seconds, as granted.

    ``deadline`` never falls. ``rest``: what the log says is left of it, or may say yet; FOR_EVER
    for all.
    ``is_ending``: its revocation was begun, or waits for its turn; it is never renewed again.
    """

    __slots__ = ("birth", "deadline", "gone", "id", "is_ending", "rest", "ttl")

    def __init__(self, id: int, birth: int, ttl: int, rest: int, deadline: float) -> None:
        self.id = id
        self.birth = birth
        self.ttl = ttl
        self.rest = rest
        self.deadline = deadline
        self.is_ending = False
        self.gone = False


class Deadlines:
    """The leases by their ids, and by their deadlines.

    A renewal only sets ``Tenure.deadline``: the heap learns of it when the former one has passed,
    so that one entry for each lease is enough.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, Tenure] = {}
        self._heap: list[tuple[float, int, Tenure]] = []
        self._number = count()
        self._gone = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, tenure: Tenure) -> None:
        """A lease is there; one that had its id before is gone."""
        self.end(tenure.id)
        self._by_id[tenure.id] = tenure
        heapq.heappush(self._heap, (tenure.deadline, next(self._number), tenure))

    def get(self, id: int) -> Tenure | None:
        """The lease of that id."""
        return self._by_id.get(id)

    def end(self, id: int) -> Tenure | None:
        """The lease of that id is gone."""
        tenure = self._by_id.pop(id, None)
        if tenure is not None:
            tenure.gone = True
            self._gone += 1
            if self._gone > SWEEP_MIN + len(self._by_id):
                self._sweep()
        return tenure

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if not entry[2].gone]
        heapq.heapify(self._heap)
        self._gone = 0

    def due(self, now: float, most: int, looks: int) -> list[Tenure]:
        """At most ``most`` leases whose deadline has passed, oldest first: each is given once.

        ``looks`` bounds at how many it looks, those included that were renewed meanwhile.
        """
        found: list[Tenure] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(found) < most and looks > 0:
            looks -= 1
            tenure = heap[0][2]
            if tenure.gone:
                self._gone -= 1
                heapq.heappop(heap)
            elif tenure.deadline > now:
                heapq.heapreplace(heap, (tenure.deadline, next(self._number), tenure))
            else:
                found.append(tenure)
                heapq.heappop(heap)
        return found

    def all(self) -> list[Tenure]:
        """Every lease, in no order."""
        return list(self._by_id.values())
