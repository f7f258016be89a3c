"""Members over links that stall: what tests/chaos does for longer, once each and short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.load import Load, Verdict
from tests.chaos.members import ProxiedCluster


@pytest.mark.parametrize(
    "fault",
    [faults.cut_off_leader, faults.leader_is_not_heard, faults.leader_hears_nobody],
    ids=lambda fault: fault.__name__,
)
def test_calls_come_back_and_the_history_is_linearizable(
    tmp_path: Path, fault: Callable[[ProxiedCluster], faults.Play]
) -> None:
    with ProxiedCluster(tmp_path, 3) as cluster:
        cluster.start()
        with Load(cluster.client, "load") as load:
            load.wait_for_writes(20)
            play = fault(cluster)
            next(play)
            load.wait_for_writes(50)
            next(play, None)
            load.wait_for_writes(20)
            cluster.wait_equal()
        report = load.judge()
        assert report.verdict is Verdict.LINEARIZABLE, report.story


def test_without_a_majority_no_write_is_acknowledged(tmp_path: Path) -> None:
    with ProxiedCluster(tmp_path, 3) as cluster:
        cluster.start()
        everything = [(a, b) for a in cluster.members for b in cluster.members if a != b]
        with Load(cluster.client, "load") as load:
            load.wait_for_writes(20)
            cluster.links.stall(everything)
            cluster.wait_until_nobody_leads()
            before = load.acknowledged_writes()
            with pytest.raises(TimeoutError):
                load.wait_for_writes(1, timeout=1.0)
            assert load.acknowledged_writes() == before
            cluster.links.heal()
            load.wait_for_writes(20)
        report = load.judge()
        assert report.verdict is Verdict.LINEARIZABLE, report.story
