"""Permissions on ranges beside the plainest way to say what they come to: key by key."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.auth_records import User
from kvstore.state.mvcc.auth_spans import Spans
from kvstore.state.mvcc.requests import Permission, PermissionKind
from kvstore.state.mvcc.source import Span
from tests.unit.state.mvcc.oracle import is_in

LETTERS = b"\0ab\xff"
# Every key of up to three of these letters: between any two bounds of up to two letters there is
# one of them, if there is any key at all, and beyond all bounds there are some too.
UNIVERSE = sorted(
    bytes(key)
    for one in LETTERS
    for key in (
        [one],
        *([one, two] for two in LETTERS),
        *([one, two, three] for two in LETTERS for three in LETTERS),
    )
)
keys = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=2).map(bytes)
ends = st.one_of(st.sampled_from([b"", b"\0"]), keys)
permissions = st.builds(Permission, st.sampled_from(PermissionKind), keys, ends)


def of_roles(*roles: list[Permission]) -> Auth:
    """One user, "u", with these roles."""
    named = {f"r{place}": tuple(role) for place, role in enumerate(roles)}
    return Auth(users={"u": User(b"", tuple(named))}, roles=named)


@given(st.lists(st.lists(permissions, max_size=5), max_size=3), st.sampled_from(["", *"ab"]), ends)
def test_a_range_is_allowed_if_each_key_in_it_is(
    roles: list[list[Permission]], letter: str, end: bytes
) -> None:
    auth = of_roles(*roles)
    granted = [permission for role in roles for permission in role]
    for key in {letter.encode() or b"\0", b"a\0", b"ab", b"\xff"}:
        asked = [each for each in UNIVERSE if is_in(each, key, end)]
        for but, may in (
            (PermissionKind.WRITE, auth.may_read),
            (PermissionKind.READ, auth.may_write),
        ):
            allowed = all(
                any(kind != but and is_in(each, start, stop) for kind, start, stop in granted)
                # Of a range without keys it is the first that counts.
                for each in asked or [key]
            )
            assert may("u", key, end) is allowed, (key, end)


@given(st.lists(st.tuples(keys, ends), max_size=6))
def test_gaps_are_where_no_span_is(ranges: list[tuple[bytes, bytes]]) -> None:
    auth = of_roles([Permission(PermissionKind.WRITE, *each) for each in ranges])
    gaps = list(auth.write_spans("u").gaps())
    for key in UNIVERSE:
        covered = any(is_in(key, *each) for each in ranges)
        assert sum(key in gap for gap in gaps) == (not covered)
    spans = list(auth.write_spans("u"))
    for one, other in pairwise(spans):
        assert one.stop is not None
        assert one.stop < other.start, "what touches is one"


@pytest.mark.parametrize(
    ("granted", "asked", "allowed"),
    [
        ([(b"a", b"m"), (b"m", b"z")], (b"a", b"z"), True),  # adjacent ones count together
        ([(b"a", b"m"), (b"m\0", b"z")], (b"a", b"z"), False),
        ([(b"a", b"m"), (b"m", b""), (b"m\0", b"z")], (b"a", b"z"), True),
        ([(b"a", b"z")], (b"a", b"\0"), False),
        ([(b"a", b"\0")], (b"b", b"\0"), True),
        ([(b"a", b"\0")], (b"b", b"z"), True),
        ([(b"\0", b"\0")], (b"\0", b"\0"), True),
        ([(b"\0", b"\0")], (b"", b"\0"), True),  # no key comes before \0
        ([(b"a", b"")], (b"a", b"\0"), False),  # GHSA-xg4h-6gfc-h4m8
        ([(b"a", b"")], (b"a", b"a\0"), True),
        ([(b"a", b"")], (b"a", b"a\0\0"), False),
        ([], (b"z", b"a"), False),
    ],
)
def test_ranges_unite(
    granted: list[tuple[bytes, bytes]], asked: tuple[bytes, bytes], allowed: bool
) -> None:
    auth = of_roles([Permission(PermissionKind.READ, *each) for each in granted])
    assert auth.may_read("u", *asked) is allowed
    assert not auth.may_write("u", *asked)


def test_a_stranger_and_root_need_no_permissions_to_be_told() -> None:
    auth = Auth(users={"r": User(b"", ("root",)), "u": User(b"")})
    assert auth.may_write("r", b"", b"\0")
    assert auth.is_root("r")
    for name in ("u", "nobody", ""):
        assert not auth.may_read(name, b"a")
        assert not auth.is_root(name)


def test_nothing_covers_nothing() -> None:
    assert not Spans([]).cover(Span(b"a", b"b"))
    assert list(Spans([Span(b"b", b"a")])) == []
    assert list(Spans([]).gaps()) == [Span(b"\0", None)]
