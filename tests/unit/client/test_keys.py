"""Which keys are meant, and conditions on them."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.client.keys import KeyRange, keys_of, selected, selected_or_key, with_prefix
from kvstore.client.requests import as_lease, as_revision
from kvstore.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("prefix", "key", "end"),
    [
        (b"a", b"a", b"b"),
        (b"jobs/", b"jobs/", b"jobs0"),
        (b"a\xff", b"a\xff", b"b"),
        (b"a\xff\xff", b"a\xff\xff", b"b"),
        (b"\xff", b"\xff", b"\0"),
        (b"", b"\0", b"\0"),
        (b"\0", b"\0", b"\x01"),
    ],
)
def test_a_prefix_ends_before_the_next_one(prefix: bytes, key: bytes, end: bytes) -> None:
    assert with_prefix(prefix) == KeyRange(key, end)


@pytest.mark.parametrize(
    ("start", "end", "keys"),
    [
        (None, None, KeyRange(b"\0", b"\0")),
        (b"", None, KeyRange(b"\0", b"\0")),
        (b"a", None, KeyRange(b"a", b"\0")),
        (None, b"b", KeyRange(b"\0", b"b")),
        (b"a", b"a\0", KeyRange(b"a", b"a\0")),
        (bytearray(b"a"), memoryview(b"b"), KeyRange(b"a", b"b")),
    ],
)
def test_bounds_are_from_and_before(start: Any, end: Any, keys: KeyRange) -> None:
    assert selected(start, end, None) == keys


@pytest.mark.parametrize(("start", "end"), [(b"b", b"a"), (b"a", b"a"), (None, b"\0"), (b"a", b"")])
def test_a_range_without_keys_is_refused(start: bytes | None, end: bytes) -> None:
    # Sent as it is, an end of one zero byte would mean all keys.
    with pytest.raises(InvalidArgumentError, match="empty"):
        selected(start, end, None)


def test_keys_are_said_in_one_way() -> None:
    with pytest.raises(InvalidArgumentError, match="but not both"):
        selected(b"a", None, b"b")
    with pytest.raises(InvalidArgumentError):
        selected_or_key(b"a", None, None, b"b")
    with pytest.raises(InvalidArgumentError, match="at least one byte"):
        selected_or_key(b"", None, None, None)
    with pytest.raises(TypeError, match="bytes-like, not str"):
        selected_or_key("a", None, None, None)  # type: ignore[arg-type]


def test_comparing_a_field_gives_a_condition() -> None:
    key = keys_of(b"a")
    found = [
        key.mod_revision == 3,
        key.value != b"x",
        key.version > 1,
        key.create_revision < 9,
        key.lease == 0,
    ]
    assert [(one.field, one.relation, one.operand) for one in found] == [
        ("mod_revision", "==", 3),
        ("value", "!=", b"x"),
        ("version", ">", 1),
        ("create_revision", "<", 9),
        ("lease", "==", 0),
    ]
    assert {one.keys for one in found} == {KeyRange(b"a")}
    assert key.exists() == (key.version > 0)
    assert keys_of(prefix=b"a").absent().keys == KeyRange(b"a", b"b")


@pytest.mark.parametrize("compare", ["key.value == 3", "key.version == b'3'", "key.lease > None"])
def test_a_field_is_compared_with_its_own_kind(compare: str) -> None:
    with pytest.raises(TypeError, match="is compared with"):
        eval(compare, {"key": keys_of(b"a")})


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1])
def test_a_number_of_more_than_64_bits_is_compared_with_nothing(number: int) -> None:
    with pytest.raises(InvalidArgumentError, match="64 bits"):
        keys_of(b"k").version == number  # noqa: B015
    with pytest.raises(InvalidArgumentError, match="64 bits"):
        as_lease(number)


@pytest.mark.parametrize("number", [1 << 63, -1])
def test_a_revision_fits_into_a_message(number: int) -> None:
    assert as_revision((1 << 63) - 1) == (1 << 63) - 1
    with pytest.raises(InvalidArgumentError, match=r"below 2\*\*63"):
        as_revision(number)
