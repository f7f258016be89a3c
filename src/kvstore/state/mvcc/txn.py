"""Put, DeleteRange and Txn, as they are applied.

Everything that could refuse an operation is looked at before its first write, against the state
before it: a Txn that fails changes nothing, on any member (etcd's #18667 failed half-way).
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    KeyValue,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.metering import cost_of
from kvstore.state.mvcc.ranges import Keep, holds, take
from kvstore.state.mvcc.requests import DeleteRange, Put, Range, Txn, TxnOperation
from kvstore.state.mvcc.source import Source, Standing, span_of
from kvstore.state.mvcc.view import View

__all__ = ["check_revision", "delete_range", "has_put", "put", "read_taken", "txn"]


def put(view: View, request: Put) -> PutAnswer:
    """A Put of its own; raises EtcdError."""
    # In this order: in a Txn etcd looks for the key first.
    _check_lease(view, request)
    _check_previous(view, request)
    answer = _put(view, request)
    view.commit()
    return answer


def delete_range(view: View, request: DeleteRange) -> DeleteRangeAnswer:
    """A DeleteRange of its own."""
    answer = _delete_range(view, request)
    view.commit()
    return answer


def txn(view: View, request: Txn) -> TxnAnswer:
    """A checked Txn; raises EtcdError."""
    path: list[TxnOperation] = []
    taken = _take_branches(view, request, path)
    for operation in path:
        if isinstance(operation, Put):
            _check_previous(view, operation)
            _check_lease(view, operation)
    _check_ranges(view.standing, path)
    answers = _execute(view, taken)
    return TxnAnswer(view.commit(), taken.succeeded, answers)


def read_taken(source: Source, request: Txn, standing: Standing, keep: Keep) -> TxnAnswer:
    """A checked Txn of nothing but Ranges, of a source that is at ``standing``; raises EtcdError.
    ``keep``: see :func:`take`.

    No Range of it is of a revision that is gone, or it is found out afterwards.
    """
    succeeded = all(holds(source, compare) for compare in request.compare)
    branch = request.success if succeeded else request.failure
    _check_ranges(standing, branch)
    answers = [_range(source, operation, standing.revision, keep) for operation in branch]
    return TxnAnswer(standing.revision, succeeded, tuple(answers))


def check_revision(standing: Standing, revision: int) -> None:
    """Raise EtcdError where ``revision`` can't be read; 0 is the current one."""
    if revision > standing.revision:
        raise EtcdError(Reason.FUTURE_REVISION)
    if revision and revision < standing.compacted:
        raise EtcdError(Reason.COMPACTED)


def has_put(request: Txn) -> bool:
    """Whether it may put a key, in any branch."""
    return any(
        isinstance(operation, Put) or (isinstance(operation, Txn) and has_put(operation))
        for operation in (*request.success, *request.failure)
    )


class _Taken(NamedTuple):
    """The branch of a Txn that is taken, and those of the Txns in it, in their order."""

    succeeded: bool
    branch: tuple[TxnOperation, ...]
    nested: list[_Taken]


def _take_branches(view: View, request: Txn, path: list[TxnOperation]) -> _Taken:
    """Decide every Txn that is reached; adds the operations on the way to ``path``."""
    succeeded = True
    for compare in request.compare:
        if not holds(view.metered if compare.range_end else view.keys, compare):
            succeeded = False
            break
    branch = request.success if succeeded else request.failure
    nested = []
    for operation in branch:
        if isinstance(operation, Txn):
            nested.append(_take_branches(view, operation, path))
        else:
            path.append(operation)
    return _Taken(succeeded, branch, nested)


def _execute(
    view: View, taken: _Taken
) -> tuple[RangeAnswer | PutAnswer | DeleteRangeAnswer | TxnAnswer, ...]:
    answers: list[RangeAnswer | PutAnswer | DeleteRangeAnswer | TxnAnswer] = []
    nested = iter(taken.nested)
    for operation in taken.branch:
        if isinstance(operation, Put):
            answers.append(_put(view, operation))
        elif isinstance(operation, Range):
            answers.append(_range(view.metered, operation, view.revision))
        elif isinstance(operation, DeleteRange):
            answers.append(_delete_range(view, operation))
        else:
            inner = next(nested)
            # Only the outermost Txn's answer tells a revision.
            answers.append(TxnAnswer(0, inner.succeeded, _execute(view, inner)))
    return tuple(answers)


def _check_previous(view: View, request: Put) -> None:
    if (request.ignore_value or request.ignore_lease) and view.keys.get(request.key) is None:
        raise EtcdError(Reason.KEY_NOT_FOUND)


def _check_lease(view: View, request: Put) -> None:
    if request.lease and view.lease(request.lease) is None:
        raise EtcdError(Reason.LEASE_NOT_FOUND)


def _check_ranges(standing: Standing, path: list[TxnOperation] | tuple[TxnOperation, ...]) -> None:
    for operation in path:
        if isinstance(operation, Range):
            check_revision(standing, operation.revision)


def _range(
    source: Source,
    operation: TxnOperation,
    current: int,
    keep: Keep | None = None,
) -> RangeAnswer:
    assert isinstance(operation, Range)
    return take(source, operation, max(operation.revision, 0), current, keep)


def _put(view: View, request: Put) -> PutAnswer:
    key, value, lease, prev_kv, ignore_value, ignore_lease = request
    revision = view.next_revision
    previous = view.keys.get(key)
    if previous is None:
        view.put(KeyValue(key, revision, revision, 1, value, lease), None)
        return PutAnswer(revision)
    if ignore_value:
        value = previous.value
    if ignore_lease:
        lease = previous.lease
    if prev_kv:
        view.read(cost_of(previous))
    now = KeyValue(key, previous.create_revision, revision, previous.version + 1, value, lease)
    view.put(now, previous)
    return PutAnswer(revision, previous if prev_kv else None)


def _delete_range(view: View, request: DeleteRange) -> DeleteRangeAnswer:
    previous: list[KeyValue] = []
    deleted = 0
    if request.range_end:
        for kv in view.delete_span(span_of(request.key, request.range_end)):
            deleted += 1
            if request.prev_kv:
                view.read(cost_of(kv))
                previous.append(kv)
    else:
        one = view.keys.get(request.key)
        if one is not None:
            view.delete(one)
            deleted = 1
            if request.prev_kv:
                view.read(cost_of(one))
                previous.append(one)
    return DeleteRangeAnswer(view.revision, deleted, tuple(previous))
