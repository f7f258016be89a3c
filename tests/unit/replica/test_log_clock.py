"""The time that a leader gives its entries."""

from __future__ import annotations

from kvstore.replica.log_clock import LogClock


class Clock:
    def __init__(self) -> None:
        self.seconds = 5000.0

    def __call__(self) -> float:
        return self.seconds


def test_it_begins_where_the_state_is_and_goes_on_as_time_passes() -> None:
    now = Clock()
    clock = LogClock(now)
    assert clock.read_ms(term=3, applied_ms=70) == 70
    now.seconds += 1.5
    assert clock.read_ms(term=3, applied_ms=70) == 1570


def test_it_never_stands_behind_what_was_applied() -> None:
    now = Clock()
    clock = LogClock(now)
    clock.read_ms(term=3, applied_ms=70)
    now.seconds += 1
    assert clock.read_ms(term=3, applied_ms=5000) == 5000
    now.seconds += 1
    assert clock.read_ms(term=3, applied_ms=5000) == 6000


def test_a_leader_that_comes_back_forgets_what_it_counted_before() -> None:
    """Another one has led meanwhile and counted less: an id's age must not jump."""
    now = Clock()
    clock = LogClock(now)
    clock.read_ms(term=3, applied_ms=70)
    now.seconds += 3600
    assert clock.read_ms(term=5, applied_ms=1000) == 1000
