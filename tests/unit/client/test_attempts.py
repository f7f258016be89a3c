"""The plan that both clients follow, without network or clock."""

from __future__ import annotations

import pickle

import pytest

import kvstore
from kvstore import errors
from kvstore.client.attempts import ADDRESSES_MAX, Attempts, Endpoints, seconds_of_the_world
from kvstore.client.failure import Failure
from kvstore.client.options import RetryPolicy, parse_addresses
from kvstore.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    Error,
    ForgottenError,
    InvalidArgumentError,
    NotLeaderError,
    Outcome,
    Refusal,
    UnavailableError,
)

POLICY = RetryPolicy(delay_first_s=0.1, delay_max_s=0.4, attempt_timeout_s=2.0)
UNAVAILABLE = Failure(UnavailableError("no leader"), retry=True)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def attempts(endpoints: Endpoints, clock: Clock, timeout: float = 10.0) -> Attempts:
    return Attempts(endpoints, POLICY, timeout, now=clock, uniform=lambda low, high: high)


def hint(address: str | None, leader: int = 2) -> Failure:
    return Failure(NotLeaderError(leader, address), retry=True, leader_address=address)


def test_the_only_server_is_given_so_much_time_that_another_try_fits_in() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1"]), clock)
    assert plan.next() == 5.0
    clock.seconds += 5
    plan.failed(UNAVAILABLE)
    assert plan.next() == 2.5
    clock.seconds += 2.5
    plan.failed(UNAVAILABLE)
    assert plan.next() == POLICY.attempt_timeout_s
    clock.seconds += 2
    plan.failed(UNAVAILABLE)
    assert plan.next() == 0.5


def test_one_of_several_servers_is_given_the_time_of_one_attempt() -> None:
    plan = attempts(Endpoints(["a:1", "b:1"]), Clock())
    assert plan.next() == POLICY.attempt_timeout_s


def test_delays_double_up_to_their_cap() -> None:
    plan = attempts(Endpoints(["a:1"]), Clock())
    assert [plan.failed(UNAVAILABLE) for _ in range(5)] == [0.1, 0.2, 0.4, 0.4, 0.4]


def test_a_delay_never_outlasts_the_call() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1"]), clock, timeout=0.05)
    assert plan.failed(UNAVAILABLE) == pytest.approx(0.05)


def test_a_failure_that_lasts_is_raised_at_once() -> None:
    plan = attempts(Endpoints(["a:1"]), Clock())
    with pytest.raises(InvalidArgumentError):
        plan.failed(Failure(InvalidArgumentError("key is empty"), retry=False))


def test_when_time_is_up_the_last_failure_is_raised() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1"]), clock)
    plan.failed(UNAVAILABLE)
    clock.seconds += 11
    with pytest.raises(UnavailableError, match="no leader"):
        plan.next()


def test_when_time_is_up_without_a_failure_the_deadline_is_named() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1"]), clock, timeout=3)
    clock.seconds += 3
    with pytest.raises(DeadlineExceededError, match="within 3 s"):
        plan.next()


def test_a_failed_server_is_left_for_the_next_one_in_turn() -> None:
    plan = attempts(Endpoints(["a:1", "b:1", "c:1"]), Clock())
    tried = []
    for _ in range(4):
        plan.next()
        tried.append(plan.address)
        plan.failed(UNAVAILABLE)
    assert tried == ["a:1", "b:1", "c:1", "a:1"]


def test_a_leader_hint_is_followed_at_once_and_remembered() -> None:
    endpoints = Endpoints(["a:1", "b:1"])
    plan = attempts(endpoints, Clock())
    assert plan.failed(hint("c:1")) == 0.0
    plan.next()
    assert plan.address == "c:1"
    assert endpoints.preferred == "c:1"
    assert endpoints.addresses == ["a:1", "b:1", "c:1"]


def test_members_that_point_at_each_other_are_not_followed_in_a_spin() -> None:
    plan = attempts(Endpoints(["a:1", "b:1"]), Clock())
    delays = []
    for _ in range(4):
        plan.next()
        delays.append(plan.failed(hint("b:1" if plan.address == "a:1" else "a:1")))
    assert delays == [0.0, 0.1, 0.0, 0.2]


def test_a_hint_without_an_address_moves_on_to_the_next_server() -> None:
    plan = attempts(Endpoints(["a:1", "b:1"]), Clock())
    assert plan.failed(hint(None)) == 0.1
    plan.next()
    assert plan.address == "b:1"


def test_one_call_moving_on_does_not_undo_what_another_found() -> None:
    endpoints = Endpoints(["a:1", "b:1", "c:1"])
    slow = attempts(endpoints, Clock())
    slow.next()
    endpoints.prefer("c:1")
    slow.failed(UNAVAILABLE)
    assert endpoints.preferred == "c:1"


def test_addresses_from_hints_are_bounded() -> None:
    endpoints = Endpoints(["a:1"])
    for port in range(1, 2 * ADDRESSES_MAX):
        endpoints.prefer(f"hint:{port}")
    assert len(endpoints.addresses) == ADDRESSES_MAX


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("a:1", ["a:1"]),
        ("a:1, b:2,a:1", ["a:1", "b:2"]),
        (["[::1]:50051", "10.0.0.1:1"], ["[::1]:50051", "10.0.0.1:1"]),
    ],
)
def test_addresses_are_read_from_text_and_lists(given: str | list[str], parsed: list[str]) -> None:
    assert parse_addresses(given) == parsed


@pytest.mark.parametrize("given", ["", " , ", "localhost", "a:b", "http://a:1", "a:1 b:2", "::1:5"])
def test_malformed_addresses_are_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        parse_addresses(given)


LOST = Failure(UnavailableError("connection reset"), retry=True)
REFUSED = Failure(UnavailableError("no leader"), retry=True, not_applied=True)


def writing(clock: Clock, *, sent_before: bool = False, since: Clock | None = None) -> Attempts:
    return Attempts(
        Endpoints(["a:1"]),
        POLICY,
        10.0,
        writes=True,
        sent_before=sent_before,
        now=clock,
        since=clock if since is None else since,
        uniform=lambda low, high: high,
    )


def test_a_try_says_how_many_before_it_may_have_been_applied_and_how_old_they_are() -> None:
    clock = Clock()
    plan = writing(clock)
    plan.next()
    assert plan.metadata() is None
    plan.failed(REFUSED)
    clock.seconds += 1
    plan.next()
    assert plan.metadata() is None  # the first one surely did nothing
    plan.failed(LOST)
    clock.seconds += 2
    plan.next()
    assert plan.metadata() == (("kvstore-attempt", "2"), ("kvstore-age-ms", "2001"))
    plan.failed(LOST)
    clock.seconds += 1
    plan.next()
    assert plan.metadata() == (("kvstore-attempt", "3"), ("kvstore-age-ms", "3001"))


def test_a_write_of_an_earlier_process_has_no_age() -> None:
    clock = Clock()
    plan = writing(clock, sent_before=True)
    plan.next()
    assert plan.metadata() == (("kvstore-attempt", "2"),)
    plan.failed(LOST)
    plan.next()
    assert plan.metadata() == (("kvstore-attempt", "3"),)


@pytest.mark.parametrize(
    ("failures", "outcome"),
    [
        ([], Outcome.NOT_APPLIED),
        ([REFUSED, REFUSED], Outcome.NOT_APPLIED),
        ([REFUSED, LOST], Outcome.UNKNOWN),
        ([LOST, REFUSED], Outcome.UNKNOWN),
    ],
)
def test_the_error_that_ends_a_write_says_what_became_of_it(
    failures: list[Failure], outcome: Outcome
) -> None:
    clock = Clock()
    plan = writing(clock)
    for failure in failures:
        plan.next()
        plan.failed(failure)
    refusal = Failure(ForgottenError(Refusal.SESSION_EXPIRED), retry=False, not_applied=True)
    plan.next()
    with pytest.raises(ForgottenError) as caught:
        plan.failed(refusal)
    assert caught.value.outcome is outcome
    clock.seconds += 20
    with pytest.raises(Error) as late:
        plan.next()
    assert late.value.outcome is outcome
    assert plan.unsent(ClosedError("closed")).outcome is outcome


def test_what_only_reads_says_nothing_of_a_write() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1"]), clock)
    plan.next()
    plan.failed(Failure(UnavailableError("reset"), retry=True))
    assert plan.metadata() is None
    clock.seconds += 20
    with pytest.raises(UnavailableError) as caught:
        plan.next()
    assert caught.value.outcome is None


def test_the_time_that_a_machine_slept_is_part_of_an_age() -> None:
    clock, world = Clock(), Clock()
    plan = writing(clock, since=world)
    plan.next()
    plan.failed(LOST)
    world.seconds += 3600
    plan.next()
    assert plan.metadata() == (("kvstore-attempt", "2"), ("kvstore-age-ms", "3600001"))


def test_the_worlds_seconds_go_on_as_those_of_the_process_do() -> None:
    before = seconds_of_the_world()
    assert 0 <= seconds_of_the_world() - before < 60


def test_what_was_said_counts_more_than_the_silence_after_it() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1"]), clock, 1.0)
    plan.failed(Failure(UnavailableError("no leader"), retry=True))
    clock.seconds += 1.0
    with pytest.raises(UnavailableError, match="no leader"):
        plan.failed(Failure(DeadlineExceededError("Deadline Exceeded"), retry=True, silent=True))


def test_what_can_not_be_repeated_begins_no_try_that_would_be_cut_short() -> None:
    clock = Clock()
    plan = Attempts(
        Endpoints(["a:1"]), POLICY, 10.0, writes=True, repeatable=False, now=clock, uniform=min
    )
    refused = UnavailableError("not yet")
    failure = Failure(refused, retry=True, not_applied=True)
    # However long it took, half a second is worth a try.
    for left, took in ((10.0, 5.0), (5.0, 4.5), (0.5, 0.375)):
        assert plan.next() == left
        clock.seconds += took
        plan.failed(failure)
    with pytest.raises(UnavailableError) as error:
        plan.next()
    assert error.value is refused
    assert refused.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize(("timeout", "least"), [(60.0, 0.5), (1.0, 0.125)])
def test_what_can_not_be_repeated_ends_with_the_last_certain_refusal(
    timeout: float, least: float
) -> None:
    """Refusals that come at once go on to the end of the time: no try is begun there that would be
    cut short, whose outcome nobody knew."""
    clock = Clock()
    plan = Attempts(
        Endpoints(["a:1"]), POLICY, timeout, writes=True, repeatable=False, now=clock, uniform=max
    )
    refused = UnavailableError("not capable")
    failure = Failure(refused, retry=True, not_applied=True)
    assert plan.next() == timeout
    left = timeout
    while left >= least:
        clock.seconds += 0.001
        clock.seconds += plan.failed(failure)
        left = 100.0 + timeout - clock.seconds
        if left >= least:
            assert plan.next() == pytest.approx(left)
    with pytest.raises(UnavailableError) as error:
        plan.next()
    assert error.value is refused
    assert refused.outcome is Outcome.NOT_APPLIED


def test_the_error_that_ends_a_call_says_how_often_it_was_tried_and_under_which_id() -> None:
    clock = Clock()
    plan = Attempts(
        Endpoints(["a:1"]), POLICY, 10.0, writes=True, now=clock, uniform=lambda low, high: high
    )
    plan.request_id = "mine"
    for _ in range(3):
        plan.next()
        clock.seconds += 3
        plan.failed(UNAVAILABLE)
    clock.seconds += 9
    with pytest.raises(UnavailableError) as raised:
        plan.next()
    error = raised.value
    assert (error.attempts, error.request_id, error.outcome) == (3, "mine", Outcome.UNKNOWN)
    assert error.retryable
    restored = pickle.loads(pickle.dumps(error))
    assert (restored.attempts, restored.request_id) == (3, "mine")


RETRYABLE = {
    errors.DeadlineExceededError,
    errors.NotLeaderError,
    errors.NoSpaceError,
    errors.OutcomeUnknownError,
    errors.OverloadedError,
    errors.ResourceExhaustedError,
    errors.UnavailableError,
}


def every_error(kind: type[Error] = Error) -> set[type[Error]]:
    return {kind}.union(*map(every_error, kind.__subclasses__()))


def test_every_error_is_found_in_the_package_and_says_whether_a_retry_may_help() -> None:
    own = {kind for kind in every_error() if kind.__module__ == "kvstore.errors"}
    for kind in own:
        assert getattr(kvstore, kind.__name__) is kind
        error = kind.__new__(kind)
        error.request_id = "mine"
        if not issubclass(kind, errors.StorageError):  # by the system's number
            assert error.retryable is (kind in RETRYABLE), kind
    assert not errors.OutcomeUnknownError("a transaction has no id").retryable


def test_what_a_server_said_goes_before_that_another_one_is_not_there() -> None:
    clock = Clock()
    plan = attempts(Endpoints(["a:1", "b:1"]), clock)
    refused = Failure(UnavailableError("b:1: Connection refused"), retry=True, unreached=True)
    mute = Failure(DeadlineExceededError("Deadline Exceeded"), retry=True, silent=True)
    for failure in (mute, refused, UNAVAILABLE, refused, mute):
        plan.next()
        plan.failed(failure)
    clock.seconds += 11
    with pytest.raises(UnavailableError, match="no leader"):
        plan.next()
