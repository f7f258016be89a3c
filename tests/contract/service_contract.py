"""The contract of ``kvstore.service.operations.Service`` (docs/architecture.md), as tests.

A class for each service inherits them and gives ``stage``, on which one is driven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from kvstore.errors import (
    DeadlineExceededError,
    Error,
    ForgottenError,
    InvalidArgumentError,
    OverloadedError,
    UnsupportedError,
)
from kvstore.service import (
    Delete,
    Get,
    Limits,
    Method,
    OpenSession,
    Operation,
    Put,
    Result,
    Service,
)

CALLS_MAX = Limits().calls_max
SESSION = b"0123456789abcdef0123456789abcdef"


class Stage(Protocol):
    """A service, and the world that it lives in."""

    @property
    def service(self) -> Service: ...

    def now(self) -> float:
        """The service's monotonic clock, in seconds."""

    def until(self, done: Any) -> None:
        """Have the world go on until ``done()`` is true. Raises AssertionError if it never is."""

    def pause(self, seconds: float) -> None:
        """Have so much time pass in it."""


@dataclass(eq=False)
class Call:
    """One call of a batch: a :class:`kvstore.service.operations.Asked`."""

    method: int
    key: bytes = b""
    value: bytes = b""
    request_id: bytes = b""
    deadline: float = 0.0
    age_s: float | None = None


def call(stage: Stage, operation: Operation) -> Result:
    return calls(stage, [operation])[0]


def calls(stage: Stage, operations: Sequence[Operation]) -> Sequence[Result]:
    """Submit them together; their results."""
    got: list[Sequence[Result]] = []
    stage.service.submit(operations, stage.now() + 100, got.append)
    stage.until(lambda: got)
    assert len(got) == 1
    return got[0]


class ServiceContract:
    """Holds a service to it."""

    def test_puts_gets_and_deletes_say_what_was_there(self, stage: Stage) -> None:
        for operation, expected in [
            (Get(b"story"), None),
            (Put(b"story", b"1", b"story-1"), False),
            (Get(b"story"), b"1"),
            (Put(b"story", b"2", b"story-2"), True),
            (Get(b"story"), b"2"),
            (Delete(b"story", b"story-3"), True),
            (Get(b"story"), None),
            (Delete(b"story", b"story-4"), False),
            (Put(b"story", b"", b"story-5"), False),
            (Get(b"story"), b""),
            (Delete(b"story", b"story-6"), True),
        ]:
            assert call(stage, operation) == expected, operation

    def test_a_retry_gets_the_first_result_and_applies_nothing(self, stage: Stage) -> None:
        first = Put(b"again", b"1", b"again-1")
        assert call(stage, first) is False
        assert call(stage, Put(b"again", b"2", b"again-2")) is True
        for retry in (first, first._replace(age_s=1.0), first._replace(age_s=1e12)):
            assert call(stage, retry) is False
        assert call(stage, Get(b"again")) == b"2"
        assert call(stage, Delete(b"again", b"again-3")) is True
        assert call(stage, Put(b"again", b"3", b"again-4")) is False
        assert call(stage, Delete(b"again", b"again-3")) is True
        assert call(stage, Get(b"again")) == b"3"

    def test_a_retry_of_what_never_came_is_done(self, stage: Stage) -> None:
        assert call(stage, Put(b"late", b"1", b"late-1", age_s=5.0)) is False
        assert call(stage, Get(b"late")) == b"1"

    def test_an_id_that_was_used_for_something_else_is_refused(self, stage: Stage) -> None:
        call(stage, Put(b"reused", b"1", b"reused"))
        for other in (Put(b"reused", b"2", b"reused"), Delete(b"reused", b"reused")):
            assert isinstance(call(stage, other), InvalidArgumentError)
        assert call(stage, Get(b"reused")) == b"1"

    @pytest.mark.parametrize(
        "operation",
        [
            Get(b""),
            Get(b"k" * 1025),
            Put(b"", b"v", b"limits"),
            Put(b"k" * 1025, b"v", b"limits"),
            Put(b"k", b"v" * (1_048_576 + 1), b"limits"),
            Put(b"k", b"v", b""),
            Put(b"k", b"v", b"i" * 4097),
            Delete(b"", b"limits"),
            Delete(b"k", b""),
        ],
        ids=lambda operation: f"{type(operation).__name__}-{len(operation.key)}",
    )
    def test_what_is_beyond_a_limit_is_refused(self, stage: Stage, operation: Operation) -> None:
        assert isinstance(call(stage, operation), InvalidArgumentError)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (bytes(range(256)), bytes(range(256))),
            (b"\0", b"\0"),
            (b"\1\1\0\1\2", b""),
            (b"\xff" * 1024, b"v" * 4096),
            (b"k" * 1024, b"v" * 4097),
            (b"large", bytes(1_048_576)),
        ],
        ids=["all", "nul", "escapes", "inline", "apart", "largest"],
    )
    def test_keys_and_values_are_any_bytes_of_any_size(
        self, stage: Stage, key: bytes, value: bytes
    ) -> None:
        assert call(stage, Put(key, value, b"i" * 4096 + key[:0])) is False
        assert call(stage, Get(key)) == value
        assert call(stage, Put(key, value[:1], b"shorter-" + key[:8])) is True
        assert call(stage, Get(key)) == value[:1]
        assert call(stage, Delete(key, b"gone-" + key[:8])) is True
        assert call(stage, Get(key)) is None

    def test_results_stand_in_the_order_of_the_operations(self, stage: Stage) -> None:
        wanted = [Put(b"order-%d" % n, b"%d" % n, b"order-%d" % n) for n in range(50)]
        assert calls(stage, wanted) == [False] * 50
        gets = [Get(b"order-%d" % n) for n in range(60)]
        assert calls(stage, gets) == [*(b"%d" % n for n in range(50)), *[None] * 10]

    def test_of_writes_at_one_time_one_is_the_first(self, stage: Stage) -> None:
        results = calls(stage, [Put(b"race", b"%d" % n, b"race-%d" % n) for n in range(20)])
        assert sorted(map(bool, results)) == [False] + [True] * 19
        deleted = calls(stage, [Delete(b"race", b"unrace-%d" % n) for n in range(20)])
        assert sorted(map(bool, deleted)) == [False] * 19 + [True]

    def test_two_tries_at_one_time_are_done_once(self, stage: Stage) -> None:
        twice = Put(b"twins", b"1", b"twins")
        assert calls(stage, [twice, twice, twice]) == [False] * 3
        different = [Put(b"twins", b"2", b"twins-2"), Put(b"twins", b"3", b"twins-2")]
        results = calls(stage, different)
        assert [isinstance(result, InvalidArgumentError) for result in results].count(True) == 1

    def test_nothing_is_done_at_once(self, stage: Stage) -> None:
        assert calls(stage, []) == ()

    def test_what_comes_after_its_deadline_is_told_so(self, stage: Stage) -> None:
        got: list[Sequence[Result]] = []
        operations = [Get(b"past"), Put(b"past", b"v", b"past")]
        stage.service.submit(operations, stage.now() - 1, got.append)
        stage.until(lambda: got)
        assert all(isinstance(result, DeadlineExceededError) for result in got[0])
        assert call(stage, Get(b"past")) is None

    def test_each_call_comes_back_once_with_its_result(self, stage: Stage) -> None:
        deadline = stage.now() + 100
        asked = [Call(Method.PUT, b"take-%d" % n, b"v", b"take-%d" % n, deadline) for n in range(9)]
        asked += [Call(Method.GET, b"nothing", deadline=deadline), Call(Method.GET, b"")]
        back: list[tuple[Any, Result]] = []
        stage.service.take(
            asked, lambda found, results: back.extend(zip(found, results, strict=True))
        )
        stage.until(lambda: len(back) >= len(asked))
        assert {id(found) for found, _ in back} == {id(each) for each in asked}
        assert len(back) == len(asked)
        results = {id(found): result for found, result in back}
        assert [results[id(each)] for each in asked[:10]] == [False] * 9 + [None]
        assert isinstance(results[id(asked[10])], InvalidArgumentError)

    def test_who_gets_calls_back_may_bring_others(self, stage: Stage) -> None:
        seen: list[Result] = []

        def answered(found: list[Any], results: list[Result]) -> None:
            seen.extend(results)
            if len(seen) < 5:
                ask()

        def ask() -> None:
            each = Call(Method.GET, b"chain", deadline=stage.now() + 100)
            stage.service.take([each], answered)

        ask()
        stage.until(lambda: len(seen) >= 5)
        assert seen == [None] * 5

    def test_one_more_than_may_wait_is_refused(self, stage: Stage) -> None:
        deadline = stage.now() + 100
        asked = [Call(Method.GET, b"full", deadline=deadline) for _ in range(CALLS_MAX + 10)]
        back: list[Result] = []
        stage.service.take(asked, lambda found, results: back.extend(results))
        stage.until(lambda: len(back) == len(asked))
        assert sum(isinstance(result, OverloadedError) for result in back) == 10
        assert back.count(None) == CALLS_MAX
        assert call(stage, Get(b"full")) is None

    def test_a_session_is_opened_or_there_are_none(self, stage: Stage) -> None:
        opened = call(stage, OpenSession())
        if isinstance(opened, UnsupportedError):
            return
        assert isinstance(opened, bytes)
        write = Put(b"session", b"1", b"kvs1/" + opened + b"/1/1")
        assert call(stage, write) is False
        assert call(stage, write) is False

    def test_a_session_that_nobody_knows_is_refused(self, stage: Stage) -> None:
        result = call(stage, Put(b"unknown", b"1", b"kvs1/" + SESSION + b"/1/1"))
        assert isinstance(result, ForgottenError)
        assert call(stage, Get(b"unknown")) is None
        outside = call(stage, Put(b"unknown", b"1", b"kvs1/" + SESSION + b"/1/9"))
        assert isinstance(outside, Error)
