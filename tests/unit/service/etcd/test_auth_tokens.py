"""Tokens: which are good, for how long, and what ends them."""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass, field, replace

import pytest

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.auth_tokens import TOKEN_TTL_S, Tokens, read_token


@dataclass(frozen=True)
class User:
    password_hash: bytes


@dataclass(frozen=True, eq=False)
class Users:
    """A :class:`kvstore.service.etcd.auth_tokens.Users`."""

    users: dict[str, User] = field(default_factory=lambda: {"ann": User(b"1"), "bob": User(b"2")})
    token_key: bytes = b"k" * 32
    revision: int = 7


class Clocks:
    """Of one member; ``of_the_world`` may be set wrong."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.of_the_world = 1_700_000_000.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.of_the_world += seconds


def member(clocks: Clocks, used_max: int = 100) -> Tokens:
    numbers = itertools.count()
    return Tokens(
        now=lambda: clocks.now,
        clock=lambda: clocks.of_the_world,
        draw=lambda size: next(numbers).to_bytes(size, "big"),
        used_max=used_max,
    )


def is_refused(tokens: Tokens, token: str, users: Users) -> bool:
    try:
        tokens.user_of(token, users)
    except EtcdError as error:
        assert error.reason is Reason.INVALID_AUTH_TOKEN
        return True
    return False


def test_every_member_knows_whose_it_is_and_when_it_was_made() -> None:
    clocks, users = Clocks(), Users()
    token = member(clocks).make("ann", users)
    assert member(clocks).user_of(token, users) == "ann"
    taken_apart = read_token(token)
    assert taken_apart is not None
    assert (taken_apart.user, taken_apart.auth_revision) == ("ann", 7)


def test_no_two_are_alike() -> None:
    tokens, users = member(Clocks()), Users()
    assert tokens.make("ann", users) != tokens.make("ann", users)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(Users(users={"bob": User(b"2")}), id="its user is deleted"),
        pytest.param(Users(users={"ann": User(b"3")}), id="its user has another password"),
        pytest.param(Users(users={"ann": User(b"")}), id="its user has no password"),
        pytest.param(Users(token_key=b"q" * 32), id="users are asked for anew"),
        pytest.param(Users(token_key=b""), id="there is no key"),
    ],
)
def test_it_ends_at_once_when(changed: Users) -> None:
    tokens = member(Clocks())
    token = tokens.make("ann", Users())
    assert tokens.user_of(token, Users()) == "ann"
    assert is_refused(tokens, token, changed)


def test_it_outlives_other_changes_of_users() -> None:
    tokens = member(Clocks())
    token = tokens.make("ann", Users())
    assert tokens.user_of(token, replace(Users(), revision=99)) == "ann"


def test_it_ends_a_while_after_it_was_made_where_nobody_uses_it() -> None:
    clocks, users = Clocks(), Users()
    tokens = member(clocks)
    token = tokens.make("ann", users)
    clocks.pass_by(TOKEN_TTL_S - 1)
    assert not is_refused(member(clocks), token, users)
    clocks.pass_by(1)
    assert is_refused(tokens, token, users)


def test_it_lives_on_at_a_member_where_it_is_used() -> None:
    clocks, users = Clocks(), Users()
    here, elsewhere = member(clocks), member(clocks)
    token = here.make("ann", users)
    for _ in range(5):
        clocks.pass_by(TOKEN_TTL_S - 1)
        # Users change meanwhile: it is judged anew.
        users = replace(users, revision=users.revision + 1)
        assert here.user_of(token, users) == "ann"
    assert is_refused(elsewhere, token, users)
    clocks.pass_by(TOKEN_TTL_S)
    assert is_refused(here, token, users)


def test_what_is_used_longest_ago_is_forgotten_first() -> None:
    clocks, users = Clocks(), Users()
    tokens = member(clocks, used_max=2)
    shown = [tokens.make("ann", users) for _ in range(3)]
    for token in (shown[0], shown[1], shown[0], shown[2]):
        tokens.user_of(token, users)
    clocks.of_the_world += TOKEN_TTL_S  # what isn't remembered is too old now
    assert [is_refused(tokens, token, users) for token in shown] == [False, True, False]


def test_a_clock_that_is_behind_refuses_none() -> None:
    ahead, behind, users = Clocks(), Clocks(), Users()
    behind.of_the_world -= 3600
    assert member(behind).user_of(member(ahead).make("ann", users), users) == "ann"


def test_what_is_changed_in_it_makes_it_nobodys() -> None:
    tokens, users = member(Clocks()), Users()
    token = tokens.make("ann", users)
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for place in range(len(data)):
        forged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        text = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
        assert is_refused(tokens, text, users), place
    assert is_refused(tokens, base64.urlsafe_b64encode(data[:-1]).decode(), users)


def test_a_password_that_runs_over_into_the_name_is_another_one() -> None:
    """The signature knows where the kept password ends."""
    tokens = member(Clocks())
    one = Users(users={"ann": User(b"1")})
    other = Users(users={"ann": User(b"1\x01")})
    assert is_refused(tokens, tokens.make("ann", one), other)


@pytest.mark.parametrize(
    "text", ["", "x", "=", "====", "simple.1234", "é" * 80, "A" * 200, "A" * 10_000, "a b", "\0"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert is_refused(member(Clocks()), text, Users())
