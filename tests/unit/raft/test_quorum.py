"""Majorities against brute force."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.raft import Membership
from kvstore.raft.quorum import EVERYTHING, Votes, agreed, agreed_by, count_votes, tally

IDS = st.frozensets(st.integers(1, 12), max_size=9)
INDEXES = st.dictionaries(st.integers(1, 12), st.integers(0, 20))
VOTES = st.dictionaries(st.integers(1, 12), st.booleans())


def majority_reached(voters: frozenset[int], reached: dict[int, int], index: int) -> bool:
    return 2 * sum(reached.get(voter, 0) >= index for voter in voters) > len(voters)


@given(IDS, INDEXES)
def test_agreed_index_is_the_largest_that_a_majority_has_reached(
    voters: frozenset[int], reached: dict[int, int]
) -> None:
    index = agreed_by(voters, lambda member: reached.get(member, 0))
    if not voters:
        assert index == EVERYTHING
        return
    assert majority_reached(voters, reached, index)
    assert not majority_reached(voters, reached, index + 1)


@given(IDS, IDS, INDEXES)
def test_joint_configuration_agrees_on_what_both_halves_agree_on(
    new: frozenset[int], old: frozenset[int], reached: dict[int, int]
) -> None:
    def value(member: int) -> int:
        return reached.get(member, 0)

    joint = agreed(Membership(new, old), value)
    assert joint == min(agreed_by(new, value), agreed_by(old, value))


@given(IDS, VOTES)
def test_votes_decide_exactly_when_no_later_vote_can_change_the_outcome(
    voters: frozenset[int], votes: dict[int, bool]
) -> None:
    granted = sum(votes.get(voter) is True for voter in voters)
    open_votes = sum(voter not in votes for voter in voters)
    wins_now = not voters or 2 * granted > len(voters)
    can_win = not voters or 2 * (granted + open_votes) > len(voters)
    expected = Votes.WON if wins_now else Votes.PENDING if can_win else Votes.LOST
    assert count_votes(voters, votes) is expected


@given(IDS, IDS, VOTES)
def test_joint_vote_is_won_in_both_halves_and_lost_in_either(
    new: frozenset[int], old: frozenset[int], votes: dict[int, bool]
) -> None:
    outcome = tally(Membership(new, old), votes)
    halves = {count_votes(new, votes), count_votes(old, votes)}
    if Votes.LOST in halves:
        assert outcome is Votes.LOST
    elif halves == {Votes.WON}:
        assert outcome is Votes.WON
    else:
        assert outcome is Votes.PENDING


@settings(max_examples=50)
@given(IDS.filter(bool), st.randoms(use_true_random=False))
def test_two_quorums_always_overlap(voters: frozenset[int], rng: random.Random) -> None:
    """Each the smallest that wins: one voter less wins nothing."""
    quorums = []
    for _ in range(2):
        granted: dict[int, bool] = {}
        for voter in rng.sample(sorted(voters), len(voters)):
            assert count_votes(voters, granted) is Votes.PENDING
            granted[voter] = True
            if count_votes(voters, granted) is Votes.WON:
                break
        quorums.append(granted.keys())
    assert quorums[0] & quorums[1]
