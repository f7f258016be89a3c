"""The longest of many durations, over windows of its own."""

from __future__ import annotations

import time

from kvstore.server.nodes.longest import WINDOW_S, Longest


def test_the_longest_counts_through_the_next_window_and_is_forgotten_then() -> None:
    longest, now = Longest(), time.monotonic()
    longest.note(3.0, now)
    longest.note(1.0, now)
    assert longest.seconds(now) == 3.0
    now += WINDOW_S
    longest.note(2.0, now)
    assert longest.seconds(now) == 3.0
    now += WINDOW_S
    assert longest.seconds(now) == 2.0


def test_what_is_older_than_two_windows_is_forgotten_at_once() -> None:
    longest, now = Longest(), time.monotonic()
    longest.note(3.0, now)
    assert longest.seconds(now + 2 * WINDOW_S + 1) == 0.0


def test_nothing_noted_is_nothing_long() -> None:
    assert Longest().seconds(time.monotonic()) == 0.0
