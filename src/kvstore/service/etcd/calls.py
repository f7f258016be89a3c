"""A call that waits, and when it has waited for long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, TypeVar

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason

__all__ = ["Call", "Deadlines"]

Outcome = TypeVar("Outcome")

SLOT_S: Final = 0.1
"""Calls that end within one of these are looked at together."""


class Call(Generic[Outcome]):
    """What one caller waits for. ``done`` gets its outcome, once."""

    __slots__ = ("_done", "deadline", "is_decided", "is_own")

    def __init__(
        self, deadline: float, is_own: bool, done: Callable[[Outcome | Error], None]
    ) -> None:
        """``deadline``: of the monotonic clock, in seconds; ``is_own``: the caller set it."""
        self.deadline = deadline
        self.is_own = is_own
        self.is_decided = False
        self._done = done

    def decide(self, outcome: Outcome | Error) -> None:
        """Tell the caller; the first outcome counts."""
        if not self.is_decided:
            self.is_decided = True
            # Lists of deadlines keep the call for seconds yet, and its caller may keep the outcome.
            done, self._done = self._done, _is_told
            done(outcome)

    def refuse(self, reason: Reason) -> None:
        """Tell the caller why there is no answer."""
        self.decide(EtcdError(reason))


def _is_told(outcome: object) -> NoReturn:
    raise AssertionError("a call is decided once")


Waiting = TypeVar("Waiting", bound=Call[Any])


class Deadlines(Generic[Waiting]):
    """The deadlines of many calls, most of which are decided long before."""

    def __init__(self, now: float) -> None:
        # Those that came since late calls were asked for: most are decided by the next time, and
        # are let go of then.
        self._young: list[Waiting] = []
        self._slots: dict[int, list[Waiting]] = {}
        self._next = int(now / SLOT_S)

    def add(self, call: Waiting) -> None:
        """Have ``call`` among :meth:`late` once its deadline has passed."""
        self._young.append(call)

    def late(self, now: float) -> list[Waiting]:
        """Those that are undecided though their deadline has passed, each once. To be called as
        often as members tick."""
        young, self._young = self._young, []
        for call in young:
            if not call.is_decided:
                slot = max(int(call.deadline / SLOT_S) + 1, self._next)
                self._slots.setdefault(slot, []).append(call)
        passed = int(now / SLOT_S)
        late: list[Waiting] = []
        for slot in range(self._next, passed + 1):
            if not self._slots:
                break
            late += [call for call in self._slots.pop(slot, ()) if not call.is_decided]
        self._next = max(self._next, passed + 1)
        return late
