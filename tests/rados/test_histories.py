"""A bounded run of tests/rados/histories.py; the longer one is a command."""

from __future__ import annotations

from pathlib import Path

from tests.rados.histories import Histories
from tools.rados_cluster import RadosCluster

SEED = 21
SHARE = (
    "primary stopped",
    "two OSDs killed",
    "slow primary",
    "gateway stopped",
    "gateway and primary killed",
)
"""One of each kind; what else there is the other tests of this folder have, without a history."""


def test_histories_of_two_gateways_are_linearizable_whatever_dies(
    whole: RadosCluster, tmp_path: Path
) -> None:
    with Histories(whole, tmp_path, SEED) as histories:
        for name in SHARE:
            print(histories.hurt(name))
        histories.judge_again()
        assert not histories.violations(), "\n".join(histories.violations())
        assert all(outcome.tries.again for outcome in histories.outcomes)
