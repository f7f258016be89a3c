"""Times in buckets that are at most 1/64 wide, as HdrHistogram's: any number in a few KiB."""

from __future__ import annotations

__all__ = ["Histogram"]

_BITS = 6
_PARTS = 1 << _BITS


class Histogram:
    """Of times in microseconds, from 0 to about 2^40 (12 days); what is longer counts as that."""

    def __init__(self) -> None:
        self._counts = [0] * (_index((1 << 40) - 1) + 1)
        self.count = 0
        self.total_us = 0
        self.max_us = 0

    def add(self, time_us: int) -> None:
        """Count one."""
        time_us = max(0, time_us)
        self._counts[min(_index(time_us), len(self._counts) - 1)] += 1
        self.count += 1
        self.total_us += time_us
        self.max_us = max(self.max_us, time_us)

    def below_us(self, share: float) -> int:
        """The time that ``share`` of all don't exceed, at most 1/64 too high; 0 where there are
        none."""
        wanted = share * self.count
        seen = 0
        for index, number in enumerate(self._counts):
            seen += number
            if number and seen >= wanted:
                return min(_highest(index), self.max_us)
        return 0

    @property
    def mean_us(self) -> float:
        """Of all; 0 where there are none."""
        return self.total_us / self.count if self.count else 0.0


def _index(time: int) -> int:
    """Each power of two from 64 on has 64 buckets, each below one of its own."""
    shift = max(0, time.bit_length() - _BITS - 1)
    return shift * _PARTS + (time >> shift)


def _highest(index: int) -> int:
    """The largest time in a bucket."""
    if index < 2 * _PARTS:
        return index
    shift = index // _PARTS - 1
    return ((index - shift * _PARTS + 1) << shift) - 1
