"""What a failed RPC means: the kvstore error to raise, and whether another try can help."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc
import grpc.aio

from kvstore.api.metadata_keys import (
    ALARM_KEY,
    INTEGRITY_CODE_KEY,
    LEADER_ADDRESS_KEY,
    LEADER_HINT_KEY,
    OUTCOME_KEY,
    OVERLOAD_KEY,
    REFUSAL_KEY,
)
from kvstore.client.reasons import meaning_of
from kvstore.client.unreachable import never_left, unreachable
from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    ForgottenError,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
    NoSpaceError,
    NotLeaderError,
    Outcome,
    OverloadedError,
    PermissionDeniedError,
    Refusal,
    ResourceExhaustedError,
    StorageError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.wire import RpcError

_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try. ``leader_address`` is where to go instead, where the server knew.

    ``not_applied``: this try surely did nothing, and never will. ``silent``: nothing at all was
    heard of the server until the try's time was up. ``overloaded``: it has too much to do already.
    ``unauthenticated``: it doesn't know, or no longer, who asks. ``unreached``: there was no
    connection to any.
    """

    error: Error
    retry: bool
    leader_address: str | None = None
    not_applied: bool = False
    silent: bool = False
    overloaded: bool = False
    unauthenticated: bool = False
    unreached: bool = False

    @property
    def words(self) -> int:
        """How much it says: nothing; that a server can't be reached; what a server has said."""
        return 0 if self.silent else 1 if self.unreached else 2


def understand(error: grpc.RpcError) -> Failure:
    """Translate a gRPC error, of either kind of channel."""
    code: grpc.StatusCode = error.code()
    details: str = error.details() or ""
    meaning = meaning_of(details)
    if meaning is not None:
        return Failure(
            meaning.error,
            meaning.passing,
            not_applied=meaning.not_applied,
            overloaded=meaning.overloaded,
            unauthenticated=meaning.unauthenticated,
        )
    trailer = _text(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()))
    address = trailer.get(LEADER_ADDRESS_KEY) or None
    translated = _translated(code, details, trailer, address)
    final = isinstance(translated, InvalidArgumentError | ResourceExhaustedError)
    passing = code in _PASSING and not final
    # gRPC's own words; ours say more.
    silent = code is grpc.StatusCode.DEADLINE_EXCEEDED and _GRPC_LATE in details
    return Failure(
        translated,
        passing,
        address,
        _unsent(error) or _not_applied(code, details, trailer),
        silent,
        OVERLOAD_KEY in trailer
        or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and ALARM_KEY not in trailer),
        code is grpc.StatusCode.UNAUTHENTICATED,
        _unsent(error) or never_left(details),
    )


# Statuses that come before anything is proposed.
_BEFORE = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)

# With RESOURCE_EXHAUSTED: a server that says so has looked at nothing. By itself the status may
# also stand for a reset in the middle of a call (gRPC's PROTOCOL-HTTP2.md, "Errors").
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_TOO_LARGE = "larger than max"
_GRPC_LATE = "Deadline Exceeded"


def _unsent(error: grpc.RpcError) -> bool:
    """The call never left: so says the native wire."""
    return isinstance(error, RpcError) and error.unsent


def _not_applied(code: grpc.StatusCode, details: str, trailer: dict[str, str]) -> bool:
    if code in _BEFORE or trailer.get(OUTCOME_KEY) == Outcome.NOT_APPLIED:
        return True
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _PUSHBACK_KEY in trailer or _TOO_LARGE in details
    # The call never left: so says grpcio, too.
    return code is grpc.StatusCode.UNAVAILABLE and never_left(details)


def _text(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return what is text in metadata; ours is, and gRPC marks binary keys with ``-bin``."""
    return {key: value for key, value in metadata if isinstance(value, str)}


def _translated(
    code: grpc.StatusCode, details: str, trailer: dict[str, str], address: str | None
) -> Error:
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidArgumentError(details)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDeniedError(details)
        case grpc.StatusCode.UNAUTHENTICATED:
            return UnauthenticatedError(details)
        case grpc.StatusCode.FAILED_PRECONDITION:
            hint = trailer.get(LEADER_HINT_KEY, "")
            return NotLeaderError(int(hint) if hint.isdecimal() else 0, address)
        case grpc.StatusCode.UNAVAILABLE:
            if OVERLOAD_KEY in trailer:
                return OverloadedError(details)
            return UnavailableError(unreachable(details) or details, code=_code(trailer))
        case grpc.StatusCode.CANCELLED:
            # The server did, as one that stops may: a call cancelled here never gets this far.
            return UnavailableError(f"the server cut the call short: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceededError("no answer in time" if _GRPC_LATE in details else details)
        case grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedError(f"the server doesn't know this call: {details}")
        case grpc.StatusCode.DATA_LOSS:
            return _storage_error(details, _code(trailer) or IntegrityCode.IO_ERROR)
        case grpc.StatusCode.ABORTED if trailer.get(REFUSAL_KEY) in Refusal.__members__:
            return ForgottenError(Refusal(trailer[REFUSAL_KEY]))
        case grpc.StatusCode.RESOURCE_EXHAUSTED if ALARM_KEY in trailer:
            return NoSpaceError(details)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if OUTCOME_KEY in trailer:
            return ResourceExhaustedError(details)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            # gRPC's own limit on a message; our server answers INVALID_ARGUMENT below it.
            if _TOO_LARGE in details:
                return TooLargeError(f"request too large: {details}")
            return OverloadedError(details)
        case _:
            return InternalError(f"{code.name}: {details}")


def _code(trailer: dict[str, str]) -> IntegrityCode | None:
    code = trailer.get(INTEGRITY_CODE_KEY, "")
    return IntegrityCode(code) if code in IntegrityCode.__members__ else None


def _storage_error(details: str, code: IntegrityCode) -> StorageError:
    """Rebuild what the server raised; its message already begins with the code."""
    message = details.removeprefix(f"{code}: ")
    if code is IntegrityCode.IO_ERROR:
        return StorageError(message, code=code)
    return CorruptionError(message, code=code)
