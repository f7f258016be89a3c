"""Which calls count as slow, what is told of them, and how often."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from kvstore.replica.durations import EntryTimes
from kvstore.server.slow_calls import GROUPS_A_SECOND, NEWEST, SlowCalls, newest_of

PUT, GET, RANGE = "/kvstore.v1.KV/Put", "/kvstore.v1.KV/Get", "/etcdserverpb.KV/Range"


def slow_calls() -> SlowCalls:
    slow = SlowCalls(0.1, wall=lambda: 1_000.0)
    slow.last_entry = lambda since, until: EntryTimes(since + 0.1, since + 0.3, until)
    return slow


def test_a_write_says_where_its_time_went() -> None:
    slow = slow_calls()
    slow.note(PUT, "OK", 10.0, 10.5, 3, 77)
    (found,) = slow.newest()
    assert (found.method, found.code, found.calls, found.request_bytes) == ("Put", "OK", 3, 77)
    assert found.ended_at == 1_000.0
    assert found.seconds == pytest.approx(0.5)
    assert found.queue_s == pytest.approx(0.1)
    assert found.commit_s == pytest.approx(0.2)
    assert found.apply_s == pytest.approx(0.2)


@pytest.mark.parametrize(("path", "code"), [(GET, "OK"), (RANGE, "OK"), (PUT, "UNAVAILABLE")])
def test_of_reads_and_failures_that_is_not_known(path: str, code: str) -> None:
    slow = slow_calls()
    slow.note(path, code, 10.0, 10.5, 1, 7)
    (found,) = slow.newest()
    assert (found.queue_s, found.commit_s, found.apply_s) == (None, None, None)
    (message,) = newest_of(slow).calls
    assert not message.HasField("queue_seconds")


@pytest.mark.parametrize("path", ["/v3lockpb.Lock/Lock", "/grpc.health.v1.Health/Check"])
def test_who_waits_for_others_is_not_slow(path: str) -> None:
    slow = slow_calls()
    slow.note(path, "OK", 10.0, 99.0, 1, 7)
    assert slow.newest() == ()


def test_where_everything_is_slow_little_is_looked_at_and_less_is_logged() -> None:
    slow = slow_calls()
    with capture_logs() as logs:
        for number in range(1000):
            slow.note(PUT, "OK", 100.0, 101.5, 2, number)
        slow.note(PUT, "OK", 102.0, 103.5, 1, 7)
    assert len(slow.newest()) == GROUPS_A_SECOND + 1
    assert [entry["event"] for entry in logs] == ["slow call", "slow call"]
    assert logs[0]["ms"] == 1500.0
    assert logs[1]["others_since"] == 999 * 2
    assert not any("key" in entry or "value" in entry for entry in logs)


def test_the_newest_are_kept() -> None:
    slow = slow_calls()
    for number in range(2 * NEWEST):
        slow.note(PUT, "OK", float(number), number + 0.5, 1, number)
    assert [found.request_bytes for found in slow.newest()] == list(range(NEWEST, 2 * NEWEST))


def test_operators_are_told_the_bound_and_0_where_there_is_none() -> None:
    assert newest_of(slow_calls()).slow_seconds == 0.1
    assert newest_of(None).slow_seconds == 0
