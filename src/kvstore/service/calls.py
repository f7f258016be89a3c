"""Calls under way: their results as they come in, and the time they have left."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import DeadlineExceededError
from kvstore.service.operations import Done, Result

__all__ = ["Call", "Deadlines"]

# Deadlines are looked at in steps of this long; a call may overstay by one.
STEP_S = 0.1


class _Undecided:
    """The result of an operation that has none yet."""


_UNDECIDED = _Undecided()


class Call:
    """Operations that were submitted together. Calls ``done`` once all of them are decided."""

    __slots__ = ("_done", "_left", "_results", "finished", "step")

    def __init__(self, size: int, done: Done) -> None:
        self._results: list[Result | _Undecided] = [_UNDECIDED] * size
        self._left = size
        self._done = done
        self.step = 0
        """Of :class:`Deadlines`: when it expires."""
        self.finished = False

    def decide(self, place: int, result: Result) -> bool:
        """Set the result of one operation, if it has none; True when that was the last."""
        if self.finished or self._results[place] is not _UNDECIDED:
            return False
        self._results[place] = result
        self._left -= 1
        if self._left:
            return False
        self._finish()
        return True

    def expire(self) -> None:
        """Give up what is undecided."""
        if self.finished:
            return
        late = DeadlineExceededError(
            "not committed within the deadline; a write may still be applied later, "
            "and a retry with the same request_id is safe"
        )
        self._results = [late if result is _UNDECIDED else result for result in self._results]
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        results: Sequence[Result] = self._results  # type: ignore[assignment]
        self._done(results)


class Deadlines:
    """Which call expires when, in steps of :data:`STEP_S`. A call leaves when it is finished."""

    def __init__(self) -> None:
        # The calls of each step, in the order they came.
        self._steps: dict[int, dict[Call, None]] = {}
        self._reached = 0
        self.waiting = 0

    def add(self, call: Call, deadline: float) -> None:
        """Let ``call`` expire at ``deadline``, in seconds of the monotonic clock."""
        call.step = max(int(deadline / STEP_S) + 1, self._reached + 1)
        self._steps.setdefault(call.step, {})[call] = None
        self.waiting += 1

    def discard(self, call: Call) -> None:
        """Forget a call that is finished."""
        calls = self._steps.get(call.step)
        if calls is not None and call in calls:
            del calls[call]
            self.waiting -= 1
            if not calls:
                del self._steps[call.step]

    def expire(self, now: float) -> None:
        """Expire all calls whose deadline has passed."""
        self._reached = int(now / STEP_S)
        due = [step for step in self._steps if step <= self._reached]
        for step in sorted(due):
            calls = self._steps.pop(step)
            self.waiting -= len(calls)
            for call in calls:
                call.expire()
