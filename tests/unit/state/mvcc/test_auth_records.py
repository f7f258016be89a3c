"""The bytes of users and roles."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError
from kvstore.state.mvcc.auth import load_auth
from kvstore.state.mvcc.auth_records import (
    AUTH,
    AuthRecord,
    Role,
    User,
    decode_auth,
    decode_name,
    decode_role,
    decode_user,
    encode_auth,
    encode_role,
    encode_user,
    role_key,
    user_key,
)
from kvstore.state.mvcc.requests import Permission

names = st.text(min_size=1)
users = st.builds(User, st.binary(), st.sets(names).map(lambda roles: tuple(sorted(roles))))
roles = st.dictionaries(
    st.tuples(st.binary(max_size=3), st.binary(max_size=3)), st.integers(0, 2)
).map(lambda found: tuple(Permission(found[place], *place) for place in sorted(found)))


@given(names, users, roles)
def test_what_was_encoded_is_decoded(name: str, user: User, role: Role) -> None:
    assert decode_user(encode_user(user)) == user
    assert decode_role(encode_role(role)) == role
    assert decode_name(user_key(name)) == decode_name(role_key(name)) == name
    auth = load_auth(
        [
            (AUTH, encode_auth(AuthRecord(True, 7, b"key"))),
            (user_key(name), encode_user(user)),
            (role_key(name), encode_role(role)),
        ]
    )
    assert (auth.enabled, auth.revision, auth.token_key, auth.guard) == (True, 7, b"key", 7)
    assert (auth.users, auth.roles) == ({name: user}, {name: role})


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_refused_or_say_just_what_they_encode(record: bytes) -> None:
    with contextlib.suppress(CorruptionError):
        assert encode_user(decode_user(record)) == record
    with contextlib.suppress(CorruptionError):
        assert encode_role(decode_role(record)) == record
    with contextlib.suppress(CorruptionError):
        assert encode_auth(decode_auth(record)) == record


@pytest.mark.parametrize(
    ("stored_key", "record"),
    [
        (b"\x05\x01", b"\0\0"),  # without a name
        (b"\x05\x01\xff", b"\0\0"),  # that isn't UTF-8
        (b"\x05\x03u", b"\0\0"),
        (b"\x05", b"\0\0"),
        (b"\x05\x01u", b"\0\x02\x01b\x01a"),  # in no order
        (b"\x05\x01u", b"\0\x01\x01\xff"),
        (b"\x05\x02r", b"\x02\0\x01a\0\0\x01a\0"),  # twice the same
        (b"\x05\x02r", b"\x01\x03\x01a\0"),  # of no kind
        (b"\x05\0", b"\x02\x01"),
        (b"\x05\0", b"\x01\0"),
        (b"\x05\0", b""),
    ],
)
def test_broken_records_are_found(stored_key: bytes, record: bytes) -> None:
    with pytest.raises(CorruptionError):
        load_auth([(stored_key, record)])
