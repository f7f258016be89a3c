"""What is refused by its looks alone, before it is proposed and again, the same way, at apply.

The order in which a request's faults are looked for is etcd's: it decides which of them is told.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import eq, itemgetter
from typing import Final

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.auth_operations import check_auth_operation
from kvstore.state.mvcc.requests import (
    TO_THE_END,
    AuthOperation,
    DeleteRange,
    LeaseGrant,
    Operation,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
    TxnOperation,
)

__all__ = [
    "KEY_BYTES_MAX",
    "REQUEST_BYTES_MAX",
    "TTL_MAX_S",
    "TXN_LIST_MAX",
    "TXN_TOTAL_MAX",
    "check",
    "check_size",
    "reads_only",
]

REQUEST_BYTES_MAX: Final = 1_572_864
"""Of a proposal as it stands in an entry."""

KEY_BYTES_MAX: Final = (1 << 20) - 16
"""Of a key that is put: what the engine takes, less what stands before it there. etcd has no bound
but that of requests."""

TXN_LIST_MAX: Final = 128
"""Compares or operations in one list of a Txn; those around a nested Txn lessen its share."""

TXN_TOTAL_MAX: Final = 16_384
"""Compares and operations of a Txn with all that are nested in it. etcd has no such bound."""

TTL_MAX_S: Final = 9_000_000_000
"""Of a lease."""

_ORDER_MAX = int(max(SortOrder))
_TARGET_MAX = int(max(SortTarget))
_start = itemgetter(0)


def check(operation: Operation | Range) -> None:
    """Raise EtcdError where what was asked can't be right, whatever the state is."""
    if isinstance(operation, Put):
        _check_put(operation)
    elif isinstance(operation, Txn):
        _check_txn(operation, TXN_LIST_MAX, 0)
        _changes(operation.success)
        _changes(operation.failure)
    elif isinstance(operation, Range):
        _check_range(operation)
    elif isinstance(operation, DeleteRange):
        _check_key(operation.key)
    elif isinstance(operation, LeaseGrant):
        if operation.ttl > TTL_MAX_S:
            raise EtcdError(Reason.TTL_TOO_LARGE)
    elif isinstance(operation, AuthOperation):
        check_auth_operation(operation)


def check_size(encoded: bytes) -> None:
    """Raise EtcdError for a proposal whose bytes are too many."""
    if len(encoded) > REQUEST_BYTES_MAX:
        raise EtcdError(Reason.REQUEST_TOO_LARGE)


def reads_only(txn: Txn) -> bool:
    """Whether it needs no entry in the log: every operation is a Range. A nested Txn isn't one."""
    return all(isinstance(operation, Range) for operation in (*txn.success, *txn.failure))


def _check_key(key: bytes) -> None:
    if not key:
        raise EtcdError(Reason.EMPTY_KEY)


def _check_put(put: Put) -> None:
    _check_key(put.key)
    if len(put.key) > KEY_BYTES_MAX:
        raise EtcdError(Reason.REQUEST_TOO_LARGE)
    if put.ignore_value and put.value:
        raise EtcdError(Reason.VALUE_PROVIDED)
    if put.ignore_lease and put.lease:
        raise EtcdError(Reason.LEASE_PROVIDED)


def _check_range(request: Range) -> None:
    _check_key(request.key)
    if not (0 <= request.sort_order <= _ORDER_MAX and 0 <= request.sort_target <= _TARGET_MAX):
        raise EtcdError(Reason.INVALID_SORT_OPTION)


def _check_txn(txn: Txn, budget: int, total: int) -> int:
    """Its fields and those of all that is nested in it; ``total`` with how many these are."""
    longest = max(map(len, txn))
    total += sum(map(len, txn))
    if longest > budget or total > TXN_TOTAL_MAX:
        raise EtcdError(Reason.TOO_MANY_OPERATIONS)
    for compare in txn.compare:
        _check_key(compare.key)
    for branch in (txn.success, txn.failure):
        for operation in branch:
            if isinstance(operation, Txn):
                total = _check_txn(operation, budget - longest, total)
            elif isinstance(operation, Put):
                _check_put(operation)
            elif isinstance(operation, Range):
                _check_range(operation)
            else:
                _check_key(operation.key)
    return total


# What a list of operations may change: the keys that it puts, ascending, and the ranges that it
# deletes, ascending, apart from each other, as (start, end), an end of b"" being beyond all keys.
_Changes = tuple[Sequence[bytes], Sequence[tuple[bytes, bytes]]]


def _changes(branch: Sequence[TxnOperation]) -> _Changes:
    """What ``branch`` may change; raises EtcdError where a key could change twice.

    Of a nested Txn one branch is taken, so the two may change the same key, but nothing beside it
    may. Of two deletions the later finds nothing, so those may meet.
    """
    if not branch:
        return (), ()
    puts = sorted([operation.key for operation in branch if isinstance(operation, Put)])
    deletes = _union(
        [_deleted(operation) for operation in branch if isinstance(operation, DeleteRange)]
    )
    _check_apart(puts, deletes)
    for operation in branch:
        if isinstance(operation, Txn):
            nested_puts, nested_deletes = _nested_changes(operation)
            _check_apart(puts, nested_deletes)
            _check_apart(nested_puts, deletes)
            puts = sorted([*puts, *nested_puts])
            deletes = _union([*deletes, *nested_deletes])
    if any(map(eq, puts, puts[1:])):
        raise EtcdError(Reason.DUPLICATE_KEY)
    return puts, deletes


def _nested_changes(txn: Txn) -> _Changes:
    puts, deletes = _changes(txn.success)
    other_puts, other_deletes = _changes(txn.failure)
    return sorted({*puts, *other_puts}), _union([*deletes, *other_deletes])


def _deleted(delete: DeleteRange) -> tuple[bytes, bytes]:
    """The range, which is empty where it ends before it begins."""
    if delete.range_end == TO_THE_END:
        return delete.key, b""
    return delete.key, delete.range_end or delete.key + b"\0"


def _union(ranges: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The same keys, in ranges that are in order and apart from each other."""
    union: list[tuple[bytes, bytes]] = []
    for start, end in sorted(ranges):
        if end and end <= start:
            continue
        if union and (not union[-1][1] or start <= union[-1][1]):
            last_start, last_end = union[-1]
            if last_end and (not end or last_end < end):
                union[-1] = last_start, end
        else:
            union.append((start, end))
    return union


def _check_apart(puts: Sequence[bytes], deletes: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise EtcdError where one of the keys is in one of the ranges. Quick if either are few."""
    if len(puts) < len(deletes):
        for key in puts:
            at = bisect_right(deletes, key, key=_start)
            if at and (not deletes[at - 1][1] or key < deletes[at - 1][1]):
                raise EtcdError(Reason.DUPLICATE_KEY)
    else:
        for start, end in deletes:
            at = bisect_left(puts, start)
            if at < len(puts) and (not end or puts[at] < end):
                raise EtcdError(Reason.DUPLICATE_KEY)
