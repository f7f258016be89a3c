"""How much of the keys an entry of operations may read: all members do, and hold the answers.

A few hundred bytes of Txn can ask for all keys thousands of times over. What that comes to depends
on the state alone, so all members refuse the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.requests import (
    AuthOperation,
    DeleteRange,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    Txn,
)
from kvstore.state.mvcc.source import Source, Span

__all__ = ["ENTRY_READ_BYTES_MAX", "Metered", "OverreadError", "cost_of", "is_open_ended"]

ENTRY_READ_BYTES_MAX: Final = 128 << 20
"""What the operations of one entry may read, as :func:`cost_of` has it. Part of the replicated
state's rules; above what a client is given in one answer."""

_KEY_COST: Final = 256
"""Of a key beside its bytes: half a million keys are what a member reads in a second or two."""

_COUNTED_COST: Final = 16


class OverreadError(Exception):
    """An operation reads more than is left for its entry."""


def cost_of(kv: KeyValue | None) -> int:
    """What it costs to read a key, or to find that it isn't there."""
    return _KEY_COST if kv is None else _KEY_COST + len(kv.key) + len(kv.value)


def is_open_ended(operation: Operation | Range, asks_users: bool) -> bool:
    """Whether the state says how much it reads or writes: ranges, what keys were before, or where
    it ``asks_users``, what is on a lease."""
    match operation:
        case Txn(compare, success, failure):
            return any(each.range_end for each in compare) or any(
                is_open_ended(nested, asks_users) for nested in (*success, *failure)
            )
        case Put(lease=lease, prev_kv=prev_kv):
            return prev_kv or (asks_users and lease != 0)
        case DeleteRange(_, range_end, prev_kv):
            return prev_kv or bool(range_end)
        case LeaseRevoke():
            return asks_users
        case _:
            return isinstance(operation, Range | AuthOperation)


class Metered:
    """A :class:`Source` of whose reading ``spend`` is told, and may raise for it."""

    __slots__ = ("_source", "_spend")

    def __init__(self, source: Source, spend: Callable[[int], None]) -> None:
        self._source = source
        self._spend = spend

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """See :class:`Source`."""
        kv = self._source.get(key, revision)
        self._spend(cost_of(kv))
        return kv

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        """See :class:`Source`."""
        self._spend(_KEY_COST)
        for kv in self._source.visible(span, revision, reverse=reverse):
            self._spend(cost_of(kv))
            yield kv

    def count(self, span: Span, revision: int = 0) -> int:
        """See :class:`Source`."""
        count = self._source.count(span, revision)
        self._spend(_KEY_COST + _COUNTED_COST * count)
        return count
