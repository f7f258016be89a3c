"""What a member says of how long things take."""

from __future__ import annotations

import pytest

from kvstore.replica.durations import BOUNDS_S, Durations, EntryTimes, Histogram
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import DrivenGroup, into, put_of


def test_a_duration_is_in_the_bucket_whose_bound_it_does_not_pass() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, BOUNDS_S[-1] * 2):
        histogram.note(seconds)
    assert histogram.buckets[:2] == [2, 1]
    assert histogram.buckets[-1] == 1
    assert sum(histogram.buckets) == 4
    assert histogram.sum_s == pytest.approx(2.01 * BOUNDS_S[0] + 2 * BOUNDS_S[-1])
    before = histogram.copy()
    histogram.note(1.0)
    assert sum(before.buckets) == 4


@pytest.mark.parametrize(
    ("since_s", "until_s", "found"),
    [(0.5, 9.0, 2), (1.5, 4.0, None), (0.5, 4.0, 1), (3.0, 9.0, None), (0.5, 2.0, None)],
)
def test_the_entry_that_answered_a_write_is_the_newest_between(
    since_s: float, until_s: float, found: int | None
) -> None:
    durations = Durations()
    first, second = EntryTimes(1.0, 2.0, 3.0), EntryTimes(2.0, 5.0, 6.0)
    durations.entries.extend((first, second))
    expected = None if found is None else (first, second)[found - 1]
    assert durations.last_entry(since_s, until_s) is expected


def test_the_leader_tells_of_its_entries_and_every_member_of_its_log_and_state() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        driven.settle()
        before = {
            member: (sum(replica.durations.log_sync.buckets), sum(replica.durations.apply.buckets))
            for member, replica in driven.group.replicas.items()
        }
        answers: list[object] = []
        leader.propose(encode_commands([put_of("r", b"k", b"v")]), into(answers))
        driven.until(lambda: bool(answers))
        driven.settle()
        (times,) = leader.durations.entries
        assert times.proposed_s <= times.committed_s <= times.applied_s
        assert sum(leader.durations.commit.buckets) == 1
        for member, replica in driven.group.replicas.items():
            synced, applied = before[member]
            assert sum(replica.durations.log_sync.buckets) > synced
            assert sum(replica.durations.apply.buckets) > applied
            if replica is not leader:
                assert sum(replica.durations.commit.buckets) == 0
