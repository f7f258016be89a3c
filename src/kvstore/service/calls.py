"""Operations that are submitted one by one, as calls of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvstore.errors import Error, InternalError
from kvstore.service.operations import (
    Asked,
    Delete,
    Done,
    Get,
    Method,
    OpenSession,
    Operation,
    Put,
    Result,
)

__all__ = ["as_calls"]


class _Submission:
    """Operations that were submitted together. Calls ``done`` once all of them are decided."""

    __slots__ = ("_done", "_left", "_results")

    def __init__(self, size: int, done: Done) -> None:
        self._results: list[Result] = [None] * size
        self._left = size
        self._done = done

    def decide(self, place: int, result: Result) -> None:
        """Set the result of one operation; once for each."""
        self._results[place] = result
        self._left -= 1
        if not self._left:
            self._done(self._results)


class _Submitted:
    """One operation of a submission: a :class:`kvstore.service.operations.Asked`."""

    __slots__ = ("age_s", "deadline", "key", "method", "place", "request_id", "submission", "value")

    def __init__(self, submission: _Submission, place: int, deadline: float) -> None:
        self.submission = submission
        self.place = place
        self.deadline = deadline
        self.method = int(Method.GET)
        self.key = self.value = self.request_id = b""
        self.age_s: float | None = None

    def decide(self, result: Result) -> None:
        if self.method == Method.OPEN_SESSION and not isinstance(result, Error):
            result = self._opened(result)
        self.submission.decide(self.place, result)

    def _opened(self, result: Result) -> Result:
        if result is not True:
            return InternalError("a session's id was drawn twice")
        return self.request_id.hex().encode()


def as_calls(
    operations: Sequence[Operation],
    deadline: float,
    done: Done,
    draw_session: Callable[[], bytes],
) -> tuple[list[Asked], Callable[[list[Asked], list[Result]], object]]:
    """Calls for ``operations``, and who is to get them back; ``done`` gets all results at once."""
    submission = _Submission(len(operations), done)
    calls: list[Asked] = []
    for place, operation in enumerate(operations):
        call = _Submitted(submission, place, deadline)
        if isinstance(operation, OpenSession):
            call.method = int(Method.OPEN_SESSION)
            call.request_id = draw_session()
        else:
            call.key = operation.key
            if isinstance(operation, Put):
                call.method = int(Method.PUT)
                call.value = operation.value
            elif isinstance(operation, Delete):
                call.method = int(Method.DELETE)
            if not isinstance(operation, Get):
                call.request_id = operation.request_id
                call.age_s = operation.age_s
        calls.append(call)
    return calls, _answered


def _answered(calls: list[Asked], results: list[Result]) -> None:
    for call, result in zip(calls, results, strict=True):
        assert isinstance(call, _Submitted)
        call.decide(result)
