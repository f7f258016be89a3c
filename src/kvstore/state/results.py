"""What entries came to.

Of v1's commands that is a byte for each, as it goes into the state's hash, and in words.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.errors import (
    Error,
    ForgottenError,
    InvalidArgumentError,
    Refusal,
    ResourceExhaustedError,
)
from kvstore.etcd_errors import EtcdError
from kvstore.state.mvcc.answers import Answer

__all__ = [
    "NO_ROOM",
    "REUSED",
    "Applied",
    "CommandResult",
    "OperationResult",
    "code_of",
    "result_of",
]

CommandResult = bool | Error
"""Whether the key had a value, or why the command was refused."""

OperationResult = Answer | EtcdError
"""What an operation of the model came to, or why it was refused."""


class Applied(NamedTuple):
    """What one entry came to.

    ``results``: of v1's commands, in their order, a byte for each. ``answers``: of the model's
    operations, in theirs, the proposal's id and what became of it.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    results: bytes
    answers: tuple[tuple[bytes, OperationResult], ...] = ()


REUSED = "request_id was used before for another operation, key or value"
NO_ROOM = "too many sessions are open, none of them idle; requests without one are served"

_REUSED, _NO_ROOM, _REFUSED = 2, 3, 4
_REFUSALS = tuple(Refusal)


def code_of(result: CommandResult) -> int:
    """The byte that stands for a result: 0 and 1 for False and True, more for refusals."""
    if isinstance(result, bool):
        return int(result)
    if isinstance(result, ForgottenError):
        return _REFUSED + _REFUSALS.index(result.refusal)
    return _REUSED if isinstance(result, InvalidArgumentError) else _NO_ROOM


def result_of(code: int) -> CommandResult:
    """What a byte stands for."""
    if code < _REUSED:
        return bool(code)
    if code == _REUSED:
        return InvalidArgumentError(REUSED)
    if code == _NO_ROOM:
        return ResourceExhaustedError(NO_ROOM)
    return ForgottenError(_REFUSALS[code - _REFUSED])
