"""Operations of the log, one after the other: what each comes to, and what it changes in a view.

The same on every member: nothing is decided by a clock, by chance or by what this member's disk
holds or lacks. Whatever can be decoded gets an answer or is refused; nothing is raised for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.alarms import alarm, check_alarms
from kvstore.state.mvcc.answers import Answer, CompactAnswer, EnableAnswer
from kvstore.state.mvcc.auth_changes import change_auth
from kvstore.state.mvcc.auth_checks import check_proposal
from kvstore.state.mvcc.checks import check
from kvstore.state.mvcc.leases import birth_of, checkpoint, grant, revoke
from kvstore.state.mvcc.metering import OverreadError, is_open_ended
from kvstore.state.mvcc.requests import (
    LEVEL_MODEL,
    Alarm,
    Compact,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Txn,
)
from kvstore.state.mvcc.txn import delete_range, put, txn
from kvstore.state.mvcc.view import OversizeError, View

__all__ = ["SLICE_BYTES_MAX", "Answers", "TimedEntry", "evaluate", "evaluate_slice"]

SLICE_BYTES_MAX: Final = 64 << 20
"""What a slice writes, or reads, after which it takes no further entry."""

Answers = list[Answer | EtcdError]
"""Of an entry's proposals."""

TimedEntry = tuple[int, int, int, Sequence[Proposal]]
"""An entry's index, its term, the time of the log's clock at it, and its proposals."""


def evaluate_slice(
    entries: Sequence[TimedEntry], new_view: Callable[[], View]
) -> tuple[View, list[Answers]]:
    """Evaluate entries in a view of the state as it is before them.

    Of as many entries as a slice takes, one at least: so many lists of answers there are. Raises
    what :func:`evaluate` raises.

    What can't be written in one entry, as the deletion of tens of millions of keys, is refused, and
    so is what reads too much. It shows half-way only, so all is done again without it.
    """
    refused: dict[bytes, Reason] = {}
    while True:
        view = new_view()
        answers: list[Answers] = []
        try:
            for index, term, now_ms, proposals in entries:
                view.begin_entry(index, now_ms)
                answers.append(_evaluate_entry(proposals, view, term, refused))
                if view.batch.approximate_size() + view.read_bytes > SLICE_BYTES_MAX:
                    break
        except (OversizeError, OverreadError):
            continue
        return view, answers


def _evaluate_entry(
    proposals: Sequence[Proposal], view: View, term: int, refused: dict[bytes, Reason]
) -> Answers:
    answers: Answers = []
    for place, proposal in enumerate(proposals):
        reason = refused.get(proposal.id)
        if reason is not None:
            answers.append(EtcdError(reason))
            continue
        try:
            answers.append(evaluate(proposal, view, term))
        except (OversizeError, OverreadError):
            # At once all that may do the same: else each would cost everything before it anew. One
            # that needs little finds the entry full, and so do all others.
            asks_users = view.auth.enabled
            is_full = not is_open_ended(proposal.operation, asks_users)
            for later in proposals[place:]:
                if is_full or is_open_ended(later.operation, asks_users):
                    refused.setdefault(later.id, Reason.TOO_MANY_REQUESTS)
            if not is_full:
                refused[proposal.id] = Reason.REQUEST_TOO_LARGE
            raise
    return answers


def evaluate(proposal: Proposal, view: View, term: int) -> Answer | EtcdError:
    """Do what ``proposal``, of an entry of ``term``, says in ``view``.

    A refused one changes nothing, but for a LeaseRevoke that has more to do than an entry can.
    Raises OversizeError, OverreadError, ColdError where the view's store does, and StorageError:
    the view is then to be thrown away.
    """
    operation, request = proposal.operation, proposal.request
    try:
        if request is not None:
            # Before alarms and leases that may refuse by now what was done before; not before it is
            # known who is told of it.
            check_proposal(view.auth, proposal, view.has_attached)
            repeated = view.numbering.begin(request, operation)
            if repeated is not None:
                return repeated
        if view.standing.model_from:
            check_alarms(view, operation)
            check(operation)
            check_proposal(view.auth, proposal, view.has_attached)
        elif not isinstance(operation, EnableModel | RaiseLevel):
            raise EtcdError(Reason.NOT_CAPABLE)
        answer = _do(operation, view, proposal.id, term)
        if request is not None and not isinstance(answer, EtcdError):
            view.numbering.remember(request, operation, answer)
        return answer
    except EtcdError as error:
        # An answer like others: it keeps no frames alive.
        return error.with_traceback(None)


def _do(operation: Operation, view: View, proposal_id: bytes, term: int) -> Answer | EtcdError:
    match operation:
        case Put():
            return put(view, operation)
        case Txn():
            return txn(view, operation)
        case DeleteRange():
            return delete_range(view, operation)
        case LeaseGrant():
            return grant(view, operation, birth_of(proposal_id))
        case LeaseRevoke():
            return revoke(view, operation, term)
        case LeaseCheckpoint():
            return checkpoint(view, operation, term)
        case Compact():
            return _compact(view, operation.revision)
        case Alarm():
            return alarm(view, operation)
        case EnableModel():
            return _raise_level(view, LEVEL_MODEL)
        case RaiseLevel(level):
            return _raise_level(view, level)
        case _:
            return change_auth(view, operation)


def _raise_level(view: View, level: int) -> EnableAnswer:
    if not view.standing.model_from:
        view.enable()
    view.level = max(view.level, level)
    return EnableAnswer(view.revision)


def _compact(view: View, revision: int) -> CompactAnswer:
    """Move the bound of history up. Never back, and never beyond now."""
    if revision <= view.standing.compacted:
        raise EtcdError(Reason.COMPACTED)
    if revision > view.standing.revision:
        raise EtcdError(Reason.FUTURE_REVISION)
    view.compact(revision)
    return CompactAnswer(view.revision)
