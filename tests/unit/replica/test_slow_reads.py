"""A leader whose disk answers no reads lets another one lead."""

from __future__ import annotations

from tests.unit.replica.driven_group import DrivenGroup


def test_a_leader_whose_reads_hang_hands_over_and_may_lead_again() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        leader.reads_take(60.0)
        driven.until(lambda: leader.storage_trouble)
        driven.until(lambda: not leader.is_leader)
        assert driven.leader() is not leader
        leader.reads_take(0.0)
        driven.until(lambda: not leader.storage_trouble)
        assert not driven.failed
