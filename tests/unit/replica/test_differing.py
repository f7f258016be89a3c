"""Whose word differs, and whether it can be said who is right: every way in which few can lie."""

from __future__ import annotations

import itertools

import pytest

from kvstore.raft import Membership
from kvstore.replica.differing import Difference, odd_ones

ENTRY = Difference(True, 7)


def voters(*members: int) -> Membership:
    return Membership(voters=frozenset(members))


@pytest.mark.parametrize("size", [3, 5])
def test_a_minority_that_lies_is_named_whatever_it_says_once_the_others_have_told(
    size: int,
) -> None:
    membership = voters(*range(1, size + 1))
    for liars in itertools.combinations(range(1, size + 1), size // 2):
        honest = [member for member in range(1, size + 1) if member not in liars]
        for words in itertools.product("axy", repeat=len(liars)):
            told = dict.fromkeys(honest, "a") | dict(zip(liars, words, strict=True))
            odd = odd_ones(ENTRY, told, membership, frozenset())
            assert set(odd) == {liar for liar in liars if told[liar] != "a"}
            assert all(not set(one.majority) & set(odd) for one in odd.values())


@pytest.mark.parametrize("size", [3, 5])
def test_a_minority_that_lies_never_has_it_look_as_if_nobody_knew(size: int) -> None:
    """Whoever of the others has told by then, as long as they are there."""
    everybody = set(range(1, size + 1))
    membership = voters(*everybody)
    for liars in itertools.combinations(everybody, size // 2):
        honest = everybody - set(liars)
        for count in range(len(honest) + 1):
            for telling in itertools.combinations(honest, count):
                for words in itertools.product("axy-", repeat=len(liars)):
                    said = dict(zip(liars, words, strict=True))
                    told = dict.fromkeys(telling, "a")
                    told |= {liar: word for liar, word in said.items() if word != "-"}
                    odd = odd_ones(ENTRY, told, membership, everybody - told.keys())
                    assert not any(one.is_unattributed for one in odd.values())
                    for one in odd.values():
                        assert not one.majority or not set(one.majority) <= set(liars)


def test_where_no_majority_agrees_and_nobody_is_left_to_tell_nobody_knows() -> None:
    for membership, told in (
        (voters(1, 2), {1: "a", 2: "b"}),
        (voters(1, 2, 3), {1: "a", 2: "b", 3: "c"}),
        (voters(1, 2, 3, 4), {1: "a", 2: "a", 3: "b", 4: "b"}),
        (voters(1, 2, 3), {1: "a", 2: "b"}),
    ):
        odd = odd_ones(ENTRY, told, membership, frozenset())
        assert set(odd) == set(told)
        assert all(one.is_unattributed for one in odd.values())


def test_learners_are_compared_and_decide_nothing() -> None:
    membership = Membership(voters=frozenset({1}), learners=frozenset({2, 3, 4}))
    odd = odd_ones(ENTRY, {1: "a", 2: "b", 3: "b", 4: "b"}, membership, frozenset())
    assert set(odd) == {2, 3, 4}
    assert all(one.majority == (1,) for one in odd.values())


def test_while_the_voters_change_it_takes_a_majority_of_the_old_and_of_the_new() -> None:
    membership = Membership(voters=frozenset({1, 2, 3}), outgoing=frozenset({3, 4, 5}))
    told = dict.fromkeys((1, 2, 3), "a") | dict.fromkeys((4, 5), "b")
    assert all(one.is_unattributed for one in odd_ones(ENTRY, told, membership, set()).values())
    told[4] = "a"
    assert set(odd_ones(ENTRY, told, membership, set())) == {5}


def test_those_who_agree_are_no_odd_ones_however_few_told() -> None:
    assert odd_ones(ENTRY, {1: "a", 2: "a"}, voters(1, 2, 3, 4, 5), {3, 4, 5}) == {}
    assert odd_ones(ENTRY, {}, voters(1, 2, 3), {1, 2, 3}) == {}
