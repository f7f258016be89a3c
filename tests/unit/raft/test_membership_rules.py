"""Legal changes, and which configuration holds where."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import InvalidArgumentError
from kvstore.raft import Membership
from kvstore.raft.membership import (
    CONTEXT_BYTES_MAX,
    MEMBERS_MAX,
    VOTERS_MAX,
    History,
    check,
    final_step,
    first_step,
)
from kvstore.raft.quorum import Votes, tally

from .raft_cluster import voters

VOTERS = st.frozensets(st.integers(1, 7), min_size=1, max_size=5)


def quorums(membership: Membership) -> list[frozenset[int]]:
    """All sets of voters that decide."""
    everybody = sorted(membership.voters | membership.outgoing)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(everybody, size) for size in range(len(everybody) + 1)
    )
    return [
        frozenset(subset)
        for subset in subsets
        if tally(membership, dict.fromkeys(subset, True)) is Votes.WON
    ]


@given(VOTERS, VOTERS)
def test_quorums_of_neighbouring_configurations_overlap(
    old: frozenset[int], new: frozenset[int]
) -> None:
    """The safety argument of dissertation §4.1 and §4.3, by brute force."""
    current, target = Membership(old), Membership(new)
    first = first_step(current, target)
    steps = [current, first] + ([final_step(first)] if first.joint else [])
    assert steps[-1] == target
    for before, after in itertools.pairwise(steps):
        for one, other in itertools.product(quorums(before), quorums(after)):
            assert one & other, f"{one} and {other} could decide apart"


def test_one_voter_changes_in_one_step_and_more_through_a_joint_configuration() -> None:
    assert first_step(voters(1, 2, 3), voters(1, 2, 3, 4)) == voters(1, 2, 3, 4)
    assert first_step(voters(1, 2, 3), voters(1, 2)) == voters(1, 2)
    joint = first_step(voters(1, 2, 3), voters(1, 2, 4))
    assert (joint.voters, joint.outgoing) == (frozenset({1, 2, 4}), frozenset({1, 2, 3}))


def test_voter_that_becomes_a_learner_votes_until_the_joint_configuration_ends() -> None:
    joint = first_step(voters(1, 2, 3), voters(1, learners=(2, 3)))
    assert joint.is_voter(2)
    assert joint.learners == {2, 3}
    assert not final_step(joint).is_voter(2)


def test_contexts_of_leaving_voters_last_as_long_as_they_vote() -> None:
    current = Membership(frozenset({1, 2, 3}), contexts=((1, b"a"), (2, b"b"), (3, b"c")))
    target = Membership(frozenset({1, 4, 5}), contexts=((1, b"A"), (4, b"d"), (5, b"e")))
    joint = first_step(current, target)
    assert [joint.context(member) for member in (1, 2, 3, 4)] == [b"A", b"b", b"c", b"d"]
    assert final_step(joint) == target


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (Membership(), "voters"),
        (voters(*range(1, 11)), "voters"),
        (voters(1, learners=(1,)), "at once"),
        (voters(*range(1, 5), learners=tuple(range(5, 40))), "members"),
        (voters(0), "member id"),
        (voters(-1), "member id"),
        (voters(1 << 63), "member id"),
        (Membership(frozenset({1}), outgoing=frozenset({2})), "outgoing"),
        (Membership(frozenset({1}), contexts=((2, b""),)), "contexts"),
        (Membership(frozenset({1, 2}), contexts=((2, b""), (1, b""))), "contexts"),
        (Membership(frozenset({1}), contexts=((1, b"x" * 4097),)), "context"),
    ],
)
def test_impossible_configuration_is_refused(target: Membership, word: str) -> None:
    with pytest.raises(InvalidArgumentError, match=word):
        check(target)


def test_the_largest_possible_configuration_is_taken() -> None:
    learners = frozenset(range((1 << 63) - MEMBERS_MAX + VOTERS_MAX, 1 << 63))
    contexts = ((1, b"x" * CONTEXT_BYTES_MAX),)
    check(Membership(frozenset(range(1, VOTERS_MAX + 1)), learners=learners, contexts=contexts))


@given(
    st.lists(st.integers(1, 30), unique=True, max_size=8).map(sorted),
    st.integers(1, 31),
    st.integers(0, 31),
)
def test_history_answers_like_a_plain_list(indexes: list[int], cut: int, compacted: int) -> None:
    history = History(0, voters(1))
    model = [(0, voters(1))]
    for index in indexes:
        history.append(index, voters(index))
        model.append((index, voters(index)))
    changed = history.truncate(cut)
    kept = [pair for pair in model if pair[0] < cut]
    assert changed == (len(kept) < len(model))
    model = kept
    history.compact(compacted)
    assert (history.index, history.current) == model[-1]
    for at in range(compacted, 32):
        assert history.at(at) == [held for index, held in model if index <= at][-1]
