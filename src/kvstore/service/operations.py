"""The words between a front and the service: operations in, one result for each out."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kvstore.errors import Error

__all__ = [
    "Answered",
    "Asked",
    "Delete",
    "Done",
    "Get",
    "Method",
    "OpenSession",
    "Operation",
    "Put",
    "Result",
    "Service",
]


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


class Method(enum.IntEnum):
    """What a call of a batch asks for."""

    PUT = 0
    GET = 1
    DELETE = 2
    OPEN_SESSION = 3


class Asked(Protocol):
    """One operation of a batch, and its place at the front, in one object.

    Any class with these attributes will do. The service reads them when it takes the call, and
    hands the very object back with its result.
    """

    @property
    def method(self) -> int:
        """A :class:`Method`."""

    @property
    def key(self) -> bytes: ...

    @property
    def value(self) -> bytes:
        """Of a put."""

    @property
    def request_id(self) -> bytes:
        """Of a put or delete; of OPEN_SESSION the id that the session is to have, 16 bytes."""

    @property
    def deadline(self) -> float:
        """When it is given up, in seconds of the monotonic clock."""

    @property
    def age_s(self) -> float | None:
        """As for :class:`Put`."""


Answered = Callable[[list[Asked], list[Result]], object]
"""Gets calls that are decided, as many as there are at that moment, and the result of each.

Possibly before ``take`` returns; on the thread that drives the service. Raises nothing.
"""


class Service(Protocol):
    """What a front talks to."""

    def take(self, calls: Sequence[Asked], answered: Answered) -> None:
        """Do what ``calls`` ask for, each on its own; ``answered`` gets each of them back once.

        What is undecided at a call's deadline has DeadlineExceededError for its result. Never
        raises for what a caller may have sent.
        """

    def submit(self, operations: Sequence[Operation], deadline: float, done: Done) -> None:
        """Do ``operations``, each on its own, and call ``done`` when the last one is decided.

        ``deadline`` is a time of the monotonic clock, in seconds; otherwise as :meth:`take`.
        """
