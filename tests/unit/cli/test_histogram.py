"""Percentiles of a histogram are those of the times themselves, but for the width of a bucket."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.cli.measuring.histogram import Histogram


@given(
    times=st.lists(st.integers(0, (1 << 40) - 1), min_size=1, max_size=200),
    share=st.sampled_from([0.001, 0.5, 0.9, 0.99, 0.999, 1.0]),
)
def test_a_percentile_is_at_most_a_sixty_fourth_too_high(times: list[int], share: float) -> None:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    exact = sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
    found = histogram.below_us(share)
    assert exact <= found <= exact + exact / 64
    assert histogram.max_us == max(times)
    assert histogram.mean_us == pytest.approx(sum(times) / len(times))


def test_of_nothing_all_is_nothing() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.below_us(0.99), histogram.mean_us) == (0, 0, 0.0)


def test_what_is_longer_than_days_and_what_is_negative_is_counted() -> None:
    histogram = Histogram()
    histogram.add(1 << 50)
    histogram.add(-5)
    assert histogram.count == 2
    assert histogram.max_us == 1 << 50
    assert histogram.below_us(0.5) == 0
