"""The words between a front and the service: operations in, one result for each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kvstore.errors import Error

__all__ = ["Delete", "Done", "Get", "OpenSession", "Operation", "Put", "Result", "Service"]


class Put(NamedTuple):
    """Store ``value`` under ``key``; its result is whether the key had a value.

    ``age_s``: the client says that it may have sent this before, first so many seconds ago; None
    for a first try.
    """

    key: bytes
    value: bytes
    request_id: bytes
    age_s: float | None = None


class Get(NamedTuple):
    """Read ``key``; its result is the value, or None."""

    key: bytes


class Delete(NamedTuple):
    """Remove ``key``; its result is whether the key had a value. ``age_s`` as for Put."""

    key: bytes
    request_id: bytes
    age_s: float | None = None


class OpenSession(NamedTuple):
    """Open a session; its result is the session's id, in hexadecimal."""


Operation = Put | Get | Delete | OpenSession
Result = bool | bytes | None | Error

# Called once, with a result for each operation in its order; on the thread that drives the service,
# and possibly before submit returns.
Done = Callable[[Sequence[Result]], None]


class Service(Protocol):
    """What a front talks to."""

    def submit(self, operations: Sequence[Operation], deadline: float, done: Done) -> None:
        """Do ``operations``, each on its own, and call ``done`` when the last one is decided.

        ``deadline`` is a time of the monotonic clock, in seconds; what is undecided then has
        DeadlineExceededError for its result. Never raises for what a caller may have sent.
        """
