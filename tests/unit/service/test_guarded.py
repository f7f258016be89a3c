"""Calls of v1 that were let in as of a revision of the users, when there is another one."""

from __future__ import annotations

import pytest

from kvstore.errors import UnavailableError
from kvstore.service.operations import Get
from kvstore.state import USERS_CHANGED, code_of
from tests.unit.service.test_service import House, put


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def house(request: pytest.FixtureRequest) -> House:
    return House(request.param)


def is_outdated(results: list[object]) -> bool:
    """Whether the only one says that users have changed."""
    (result,) = results
    return isinstance(result, UnavailableError) and str(result) == USERS_CHANGED


def test_an_entry_says_as_of_when_its_writes_were_let_in(house: House) -> None:
    house.submit(put(1))
    house.turn()
    house.member.proposals[0](bytes([False]))
    house.member.guard = 5
    results = house.submit(put(2))
    house.turn()
    assert house.member.guards == [0, 5]
    house.member.proposals[1](bytes([code_of(UnavailableError(USERS_CHANGED))]))
    assert is_outdated(results)


def test_writes_that_wait_while_users_change_are_refused(house: House) -> None:
    house.member.guard = 5
    results = house.submit(put(1))
    house.member.guard = 6
    house.turn()
    assert is_outdated(results)
    assert house.member.entries == []
    house.submit(put(1))
    house.turn()
    assert house.member.guards == [6], "the next try of the same is let in anew"


def test_who_comes_after_the_change_is_not_refused_with_those_before(house: House) -> None:
    house.member.guard = 5
    before = house.submit(put(1))
    house.member.guard = 0
    after = house.submit(put(2))
    assert is_outdated(before)
    house.turn()
    assert house.member.guards == [0]
    house.member.proposals[0](bytes([False]))
    assert after == [False]


def test_another_leader_with_the_same_users_takes_what_waits(house: House) -> None:
    house.member.guard = 5
    results = house.submit(put(1))
    other = House().member
    other.guard = 5
    house.route = other
    house.turn()
    assert other.guards == [5]
    assert results == []


def test_a_read_is_not_answered_to_who_was_let_in_before(house: House) -> None:
    house.member.values[b"k"] = b"secret"
    house.member.guard = 5
    results = house.submit(Get(b"k"))
    house.turn()
    house.member.guard = 6
    house.member.reads[0](None)
    assert is_outdated(results)
    again = house.submit(Get(b"k"))
    house.turn()
    house.member.reads[1](None)
    assert again == [b"secret"]


def test_nor_is_one_that_users_changed_before(house: House) -> None:
    house.member.guard = 5
    results = house.submit(Get(b"k"))
    house.member.guard = 6
    house.turn()
    assert is_outdated(results)
    assert house.member.reads == []
