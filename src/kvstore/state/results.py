"""What commands came to: a byte for each, as it goes into the state's hash, and in words."""

from __future__ import annotations

from kvstore.errors import (
    Error,
    ForgottenError,
    InvalidArgumentError,
    Refusal,
    ResourceExhaustedError,
)

__all__ = ["NO_ROOM", "REUSED", "CommandResult", "code_of", "result_of"]

CommandResult = bool | Error
"""Whether the key had a value, or why the command was refused."""

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
