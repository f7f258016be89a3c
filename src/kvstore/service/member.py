"""What the service needs of a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvstore.errors import Error, StorageError
from kvstore.state import Cold, CommandResult

__all__ = ["Machine", "Member", "Route"]


class Machine(Protocol):
    """The state machine, for reading."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``; may ask the disk, from any thread."""

    def get_cached(self, key: bytes) -> bytes | Cold | None:
        """The same from memory alone; ``COLD`` where only the disk knows."""

    @property
    def applying(self) -> object:
        """What applies entries; a native desk asks it directly where it is native, too."""

    @property
    def guard(self) -> int:
        """The revision of the users while they are asked for, else 0."""

    @property
    def write_delay_s(self) -> float:
        """How long to hold the next entry back; mostly 0."""

    def first_result(
        self, request: bytes, fingerprint: bytes, sequence: int = 0
    ) -> CommandResult | None: ...


class Member(Protocol):
    """A replica that leads. Callbacks come later, on the thread that drives it, each once."""

    @property
    def machine(self) -> Machine: ...

    def log_time_ms(self) -> int:
        """The time of the log's clock for what is proposed now."""

    def propose(self, data: bytes, done: Callable[[bytes | Error], None]) -> None:
        """Have an entry committed and applied; ``done`` gets a byte for each command's result.

        What they mean says :func:`kvstore.state.result_of`.
        """

    def read(self, done: Callable[[Error | None], None]) -> None:
        """Call ``done`` with None once what :attr:`machine` holds may be read linearizably."""

    def reads_take(self, ticks: int) -> None:
        """A read of :attr:`machine` has been under way for so many ticks; 0 when none is."""

    def read_failed(self, error: StorageError) -> Error:
        """Reading :attr:`machine` raised ``error``: what to answer instead."""


# The member that takes calls now, or the error that says why there is none.
Route = Callable[[], Member | Error]
