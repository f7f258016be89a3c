"""Sets of keys as spans in order and apart from each other: what permissions come to together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Final

from kvstore.state.mvcc.source import Span, span_of

__all__ = ["FIRST_KEY", "Spans", "asked_span"]

FIRST_KEY: Final = b"\0"
"""No key comes before it: there is no empty one."""

_start = itemgetter(0)


def asked_span(key: bytes, range_end: bytes) -> Span:
    """The keys for which who asks for these two needs a right.

    A range that ends before it begins has no keys; who asks for it needs the right to ``key``.
    """
    span = span_of(key, range_end)
    if span.is_empty:
        span = span_of(key, b"")
    return Span(FIRST_KEY, span.stop) if span.start < FIRST_KEY else span


class Spans:
    """The union of spans; spans that touch each other count as one. Never changes."""

    __slots__ = ("_spans",)

    def __init__(self, spans: Iterable[Span]) -> None:
        merged: list[Span] = []
        for start, stop in sorted(spans, key=_start):
            if stop is not None and stop <= start:
                continue
            if merged and (merged[-1].stop is None or start <= merged[-1].stop):
                last = merged[-1]
                if last.stop is not None and (stop is None or last.stop < stop):
                    merged[-1] = Span(last.start, stop)
            else:
                merged.append(Span(start, stop))
        self._spans = merged

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def cover(self, asked: Span) -> bool:
        """Whether every key of ``asked``, which isn't empty, is in one of them."""
        at = bisect_right(self._spans, asked.start, key=_start)
        if not at:
            return False
        stop = self._spans[at - 1].stop
        if stop is None:
            return True
        return asked.stop is not None and asked.stop <= stop

    def gaps(self) -> Iterator[Span]:
        """Where the keys are that are in none of them, ascending."""
        start: bytes | None = FIRST_KEY
        for span in self._spans:
            assert start is not None, "spans are apart"
            if start < span.start:
                yield Span(start, span.start)
            start = span.stop
        if start is not None:
            yield Span(start, None)
