"""An overloaded server gets few retries; what passes by itself is retried all the same."""

from __future__ import annotations

import pytest

from kvstore.client.attempts import Attempts, Endpoints
from kvstore.client.failure import Failure
from kvstore.client.options import RetryPolicy
from kvstore.client.retry_budget import TOKENS_MAX, RetryBudget
from kvstore.errors import Error, OverloadedError, UnavailableError

OVERLOADED = Failure(OverloadedError("9 calls wait already"), retry=True, overloaded=True)
NO_LEADER = Failure(UnavailableError("no leader"), retry=True)


def tries(endpoints: Endpoints, failure: Failure) -> int:
    """How often a call is tried that fails so each time, a hundred times at most."""
    attempts = Attempts(endpoints, RetryPolicy(), 10.0, now=lambda: 0.0)
    for number in range(1, 101):
        attempts.next()
        try:
            attempts.failed(failure)
        except Error as error:
            assert error is failure.error
            return number
    return 100


def test_half_of_the_tokens_are_spent_on_overload_and_then_each_call_is_tried_once() -> None:
    endpoints = Endpoints(["a:1"])
    assert tries(endpoints, OVERLOADED) == TOKENS_MAX / 2
    assert tries(endpoints, OVERLOADED) == 1
    assert tries(endpoints, NO_LEADER) == 100, "that passes by itself"


def test_calls_that_succeed_give_tokens_back() -> None:
    budget = RetryBudget()
    while budget.allows():
        pass
    for _ in range(25):
        budget.succeeded()
    assert [budget.allows() for _ in range(3)] == [True, True, False]
    for _ in range(10_000):
        budget.succeeded()
    assert budget.tokens == pytest.approx(TOKENS_MAX)
