"""How long what a member does takes: histograms for metrics, and the newest entries one by one.

For people to look at: nothing that a member does depends on any of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["BOUNDS_S", "Durations", "EntryTimes", "Histogram"]

BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

ENTRIES: Final = 128
"""That are remembered one by one."""


class Histogram:
    """Durations in seconds: how many in each bucket of :data:`BOUNDS_S`, the last for what took
    longer, and their sum."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self, buckets: Iterable[int] = (), sum_s: float = 0.0) -> None:
        self.buckets = [*buckets] or [0] * (len(BOUNDS_S) + 1)
        self.sum_s = sum_s

    def note(self, seconds: float) -> None:
        """One took so long."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def copy(self) -> Histogram:
        """As it is now."""
        return Histogram(self.buckets, self.sum_s)


class EntryTimes(NamedTuple):
    """An entry that this member proposed, in seconds of its monotonic clock.

    ``committed_s``: known here to be committed.
    """

    proposed_s: float
    committed_s: float
    applied_s: float


class Durations:
    """Of one member, since it was opened.

    ``log_sync``: from handing something to the log to knowing it durable. ``commit``: of entries
    that it proposed as leader, from proposing one to knowing it committed. ``apply``: one slice of
    committed entries. ``entries``: the newest that it proposed and has applied, in that order.
    """

    __slots__ = ("apply", "commit", "entries", "log_sync")

    def __init__(self) -> None:
        self.log_sync = Histogram()
        self.commit = Histogram()
        self.apply = Histogram()
        self.entries: deque[EntryTimes] = deque(maxlen=ENTRIES)

    def last_entry(self, since_s: float, until_s: float) -> EntryTimes | None:
        """The newest that was proposed at ``since_s`` or later and applied by ``until_s``: the one
        that answered a write which came then and was answered then."""
        for times in reversed(self.entries):
            if times.applied_s <= until_s:
                return times if times.proposed_s >= since_s else None
        return None
