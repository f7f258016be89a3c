"""The limits of the v1 contract and of what a service lets wait, and what is said beyond them."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.errors import DeadlineExceededError, InvalidArgumentError, OverloadedError
from kvstore.service.operations import Method
from kvstore.state import (
    KEY_BYTES_MAX,
    SESSION_WINDOW,
    VALUE_BYTES_MAX,
    CommandResult,
    SessionBounds,
    result_of,
)

__all__ = [
    "DELAY_S",
    "KEY_BYTES_MAX",
    "REQUEST_ID_BYTES_MAX",
    "SESSION_IDLE_MS",
    "SESSION_WINDOW",
    "VALUE_BYTES_MAX",
    "Limits",
]

REQUEST_ID_BYTES_MAX = 4096
SESSION_IDLE_MS = SessionBounds().idle_ms

DELAY_S = 15.0
"""Between the moment in which a client writes its request's age down and the one in which it is
read here, at most: connections that stand still longer than that are given up by keepalives."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one service. The methods are the words for what is beyond them.

    ``calls_max``: calls that wait at one time; ``gathered_bytes_max``: what their writes may weigh
    before they are proposed. One more is refused. An entry of the log has up to
    ``entry_commands_max`` commands, or ``entry_bytes_max`` (one may be larger). So much of values
    is handed back at one time: ``answer_bytes_max`` (and one value more). ``delay_s``: see
    :data:`DELAY_S`.
    """

    calls_max: int = 16_384
    gathered_bytes_max: int = 64 << 20
    entry_commands_max: int = 1024
    entry_bytes_max: int = 1 << 20
    answer_bytes_max: int = 1 << 20
    delay_s: float = DELAY_S

    def breach(
        self, method: int, key_bytes: int, value_bytes: int, id_bytes: int
    ) -> InvalidArgumentError | None:
        """What is wrong with the sizes of an operation, None if nothing is."""
        if method == Method.OPEN_SESSION:
            return None
        if not 0 < key_bytes <= KEY_BYTES_MAX:
            return _outside("key", key_bytes, 1, KEY_BYTES_MAX)
        if method == Method.GET:
            return None
        if not 0 < id_bytes <= REQUEST_ID_BYTES_MAX:
            return _outside("request_id", id_bytes, 1, REQUEST_ID_BYTES_MAX)
        if method == Method.PUT and value_bytes > VALUE_BYTES_MAX:
            return _outside("value", value_bytes, 0, VALUE_BYTES_MAX)
        return None

    def outside_window(self, sequence: int, floor: int) -> InvalidArgumentError:
        """A session's sequence is not within its window."""
        return outside_window(sequence, floor)

    def overloaded(self, waiting: int) -> OverloadedError:
        """There is no room for one more."""
        return OverloadedError(f"{waiting} calls wait already")

    def came_late(self) -> DeadlineExceededError:
        """Nobody waits for it any more."""
        return DeadlineExceededError("the deadline had passed when the call arrived")

    def expired(self) -> DeadlineExceededError:
        """Its time is over."""
        return DeadlineExceededError(
            "not committed within the deadline; a write may still be applied later, "
            "and a retry with the same request_id is safe"
        )

    def result_of(self, code: int) -> CommandResult:
        """What the byte of a command's result stands for."""
        return result_of(code)


def outside_window(sequence: int, floor: int) -> InvalidArgumentError:
    """A session's sequence is not within its window."""
    return InvalidArgumentError(
        f"request_id has the sequence {sequence} with the floor {floor}; expected the floor to "
        f"{SESSION_WINDOW - 1} above it"
    )


def _outside(field: str, size: int, least: int, most: int) -> InvalidArgumentError:
    what = f"{field} is empty" if size == 0 else f"{field} has {size} bytes"
    return InvalidArgumentError(f"{what}; expected {least} to {most} bytes")
