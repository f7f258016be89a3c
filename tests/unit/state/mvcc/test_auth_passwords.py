"""Passwords as they are kept."""

from __future__ import annotations

import pytest

from kvstore.state.mvcc.auth_operations import PASSWORD_HASH_BYTES_MAX
from kvstore.state.mvcc.auth_passwords import (
    DECOY,
    PASSWORD_BYTES_MAX,
    SALT_BYTES,
    hash_password,
    is_password,
)

SALT = bytes(range(SALT_BYTES))


@pytest.mark.parametrize("password", [b"", b"secret", "pÄss".encode(), b"x" * 73])
def test_a_password_is_known_again_and_no_other_is(password: bytes) -> None:
    kept = hash_password(password, SALT)
    assert 0 < len(kept) <= PASSWORD_HASH_BYTES_MAX
    assert password == b"" or password not in kept
    assert is_password(password, kept)
    assert not is_password(password + b"x", kept)
    assert not is_password(password, hash_password(password + b"x", SALT))


def test_what_comes_after_72_bytes_counts() -> None:
    assert not is_password(b"x" * 72 + b"a", hash_password(b"x" * 72 + b"b", SALT))


def test_the_kept_form_stays_readable() -> None:
    kept = (
        b"scrypt1$14$8$1$000102030405060708090a0b0c0d0e0f$"
        b"9544e48979da3c896dfb7f7f5bc015fb320e810f8372f88d66d9921da5a2aa65"
    )
    assert hash_password(b"secret", SALT) == kept
    # Others than are made now, as long as they cost no more than some of those.
    assert not is_password(b"secret", kept.replace(b"$14$", b"$10$"))


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"secret",
        DECOY,
        DECOY[:-1],
        DECOY + b"\n",
        DECOY.replace(b"scrypt1", b"scrypt2"),
        DECOY.replace(b"$14$", b"$99$"),  # 2^99 rounds are nobody's to ask for
        DECOY.replace(b"$8$", b"$99$"),
        DECOY.replace(b"$1$", b"$99$"),
        DECOY.replace(b"$14$", b"$0$"),
        b"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
    ],
)
def test_forms_that_are_not_known_are_of_no_password(kept: bytes) -> None:
    assert not is_password(b"secret", kept)
    assert not is_password(b"", kept)


def test_too_long_a_password_is_not_hashed() -> None:
    longest = b"x" * PASSWORD_BYTES_MAX
    assert is_password(longest, hash_password(longest, SALT))
    with pytest.raises(ValueError):
        hash_password(longest + b"x", SALT)
    assert not is_password(longest + b"x", DECOY)


def test_a_salt_is_whole() -> None:
    with pytest.raises(ValueError):
        hash_password(b"secret", SALT[1:])
