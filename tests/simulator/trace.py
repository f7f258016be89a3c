"""What happened, as lines: hashed always, printed when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b

from tests.simulator.agenda import MILLISECOND, Agenda

__all__ = ["Trace", "Violation"]

TAIL_LINES = 30


class Violation(AssertionError):
    """The system broke a promise."""


class Trace:
    """The story of one run. The same seed tells the same story, so it has the same digest."""

    def __init__(self, agenda: Agenda, write: Callable[[str], object] | None = None) -> None:
        """``write`` is given each line, ready to be printed."""
        self._agenda = agenda
        self._write = write
        self._hash = blake2b(digest_size=8)
        self._tail: deque[tuple[int, str]] = deque(maxlen=TAIL_LINES)

    def note(self, line: str) -> None:
        """Something happened now."""
        now = self._agenda.now
        self._hash.update(b"%d %s\n" % (now, line.encode()))
        self._tail.append((now, line))
        if self._write is not None:
            self._write(_format(now, line))

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()

    @property
    def tail(self) -> list[str]:
        """The newest lines."""
        return [_format(now, line) for now, line in self._tail]


def _format(now: int, line: str) -> str:
    return f"{now / MILLISECOND:11.3f} ms  {line}"
