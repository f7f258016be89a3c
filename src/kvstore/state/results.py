"""What entries came to.

Of v1's commands that is a byte for each, as it goes into the state's hash, and in words.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.errors import (
    CorruptionError,
    Error,
    ForgottenError,
    IntegrityCode,
    InvalidArgumentError,
    NoSpaceError,
    Outcome,
    Refusal,
    ResourceExhaustedError,
    UnavailableError,
)
from kvstore.etcd_errors import EtcdError
from kvstore.state.mvcc.alarms import Refused
from kvstore.state.mvcc.answers import Answer

__all__ = [
    "NO_ROOM",
    "REUSED",
    "USERS_CHANGED",
    "Applied",
    "CommandResult",
    "OperationResult",
    "code_of",
    "refused_by_alarm",
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

NO_SPACE = (
    "the store has reached its quota, or a disk is nearly full (alarm NOSPACE): reads and deletes "
    "are served, puts once there is room and the alarm is disarmed"
)
CORRUPT = "members differ (alarm CORRUPT): nothing is written until the alarm is disarmed"
USERS_CHANGED = "users, or what they may do, changed while the call was under way; try again"

_REUSED, _NO_ROOM, _REFUSED = 2, 3, 4
_NO_SPACE, _CORRUPT, _USERS_CHANGED = 16, 17, 255
_ALARMS = {_NO_SPACE: Refused.PUTS, _CORRUPT: Refused.WRITES}
_REFUSALS = tuple(Refusal)


def refused_by_alarm(refused: Refused) -> Error:
    """Why a write is refused while an alarm stands; ``refused`` isn't NOTHING."""
    if refused is Refused.PUTS:
        return NoSpaceError(NO_SPACE)
    error = CorruptionError(CORRUPT, code=IntegrityCode.CHECKSUM_MISMATCH)
    error.outcome = Outcome.NOT_APPLIED
    return error


def code_of(result: CommandResult) -> int:
    """The byte that stands for a result: 0 and 1 for False and True, more for refusals."""
    if isinstance(result, bool):
        return int(result)
    match result:
        case ForgottenError():
            return _REFUSED + _REFUSALS.index(result.refusal)
        case InvalidArgumentError():
            return _REUSED
        case NoSpaceError():
            return _NO_SPACE
        case CorruptionError():
            return _CORRUPT
        case UnavailableError():
            return _USERS_CHANGED
        case _:
            return _NO_ROOM


def result_of(code: int) -> CommandResult:
    """What a byte stands for."""
    if code < _REUSED:
        return bool(code)
    if code == _REUSED:
        return InvalidArgumentError(REUSED)
    if code == _NO_ROOM:
        return ResourceExhaustedError(NO_ROOM)
    if code in _ALARMS:
        return refused_by_alarm(_ALARMS[code])
    if code == _USERS_CHANGED:
        return UnavailableError(USERS_CHANGED)
    return ForgottenError(_REFUSALS[code - _REFUSED])
