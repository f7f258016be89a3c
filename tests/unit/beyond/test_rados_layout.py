"""What lies in a pool: it comes back as it was, or as damage, never as something else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.beyond.rados.layout import (
    Apart,
    Head,
    Marker,
    Remembered,
    bucket_of,
    check_value,
    decode_clock,
    decode_entry,
    decode_head,
    decode_marker,
    decode_page,
    decode_request,
    encode_apart,
    encode_clock,
    encode_head,
    encode_inline,
    encode_marker,
    encode_page,
    encode_request,
    entry_key,
    key_of_entry,
    new_value,
    parse_name,
    value_checksum,
    value_name,
)
from kvstore.errors import ConfigurationError, CorruptionError

APART = Apart(5, value_checksum(b"key", b"value"), new_value(77, bytes(8)))
REQUESTS = [Remembered(bytes([n]) * 16, 2 * n, 100 + n) for n in range(5)]
HEAD = Head(3, 7, 1, 4, 9, 11)
HEAD.add(REQUESTS)
MARKER = Marker(b"s" * 16, b"n" * 16)

FORMS: list[tuple[bytes, Callable[[bytes], object], object]] = [
    (encode_inline(b"key", b"value"), lambda data: decode_entry(b"key", data), b"value"),
    (encode_inline(b"key", b""), lambda data: decode_entry(b"key", data), b""),
    (encode_apart(b"key", APART), lambda data: decode_entry(b"key", data), APART),
    (encode_head(9, HEAD), lambda data: decode_head(9, data), HEAD),
    (encode_head(0, Head()), lambda data: decode_head(0, data), Head()),
    (
        encode_request(9, REQUESTS[1]),
        lambda data: decode_request(9, REQUESTS[1].digest, data),
        REQUESTS[1],
    ),
    (
        encode_page(9, 4, REQUESTS),
        lambda data: decode_page(9, 4, data),
        (104, [each.digest for each in REQUESTS]),
    ),
    (encode_clock(1 << 40), decode_clock, 1 << 40),
    (encode_marker(MARKER), decode_marker, MARKER),
]


@pytest.mark.parametrize(("data", "decode", "value"), FORMS)
def test_each_form_comes_back(
    data: bytes, decode: Callable[[bytes], object], value: object
) -> None:
    assert decode(data) == value


@pytest.mark.parametrize(("data", "decode", "value"), FORMS)
def test_each_flipped_bit_and_each_cut_is_seen(
    data: bytes, decode: Callable[[bytes], object], value: object
) -> None:
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptionError, ConfigurationError)):
            decode(bytes(flipped))
    for size in range(len(data)):
        with pytest.raises((CorruptionError, ConfigurationError)):
            decode(data[:size])
    with pytest.raises(CorruptionError):
        decode(data + b"\0")


def test_what_is_sound_of_another_key_bucket_or_page_is_damage_here() -> None:
    for decode in (
        lambda: decode_entry(b"yek", encode_inline(b"key", b"value")),
        lambda: decode_entry(b"ke", encode_inline(b"k", b"evalue")),
        lambda: decode_head(8, encode_head(9, HEAD)),
        lambda: decode_page(9, 5, encode_page(9, 4, REQUESTS)),
        lambda: decode_request(9, REQUESTS[2].digest, encode_request(9, REQUESTS[1])),
        lambda: check_value(b"yek", APART, b"value"),
        lambda: check_value(b"key", APART, b"valu"),
        lambda: check_value(b"key", APART, b"VALUE"),
    ):
        with pytest.raises(CorruptionError):
            decode()
    check_value(b"key", APART, b"value")


def test_a_later_version_and_what_is_not_ours_are_told_apart_from_damage() -> None:
    data = bytearray(encode_marker(MARKER))
    data[12] = 2
    with pytest.raises(ConfigurationError, match="version 2; this kvstore knows up to 1"):
        decode_marker(bytes(data))
    with pytest.raises(ConfigurationError, match="none of kvstore's"):
        decode_marker(b"something else that lies there")


def test_keys_of_any_bytes_have_pairs_without_nul_in_the_same_order() -> None:
    keys = sorted(
        {bytes([a, b, c][:n]) for a in range(4) for b in range(4) for c in range(4) for n in (1, 3)}
    )
    pairs = [entry_key(key) for key in keys]
    assert pairs == sorted(pairs)
    assert len(set(pairs)) == len(keys)
    assert not any(b"\0" in pair for pair in pairs)
    assert [key_of_entry(pair) for pair in pairs] == keys


def test_buckets_are_even_and_depend_on_the_salt() -> None:
    buckets = [bucket_of(b"key-%d" % n, b"s" * 16) >> 12 for n in range(20_000)]
    counts = [buckets.count(n) for n in range(256)]
    assert min(counts) > 40
    assert max(counts) < 130
    assert bucket_of(b"key", b"s" * 16) != bucket_of(b"key", b"t" * 16)


def test_names_of_objects_say_what_they_are() -> None:
    assert parse_name(b"b.000ff") == (255, b"")
    assert parse_name(value_name(255, APART.name)) == (255, APART.name)
    for other in (b"kvstore", b"clock", b"b.ff", b"v.000ff", b"b.000ff.", b"b.000fg", b"xb.000ff"):
        assert parse_name(other) is None, other


def test_a_head_finds_its_requests_and_nothing_that_lies_across_two() -> None:
    head = Head()
    head.add(REQUESTS)
    assert [head.find(each.digest) for each in REQUESTS] == [each.word for each in REQUESTS]
    assert head.find(b"x" * 16) is None
    across = head.young[40:56]
    assert across in head.young
    assert head.find(across) is None
    # One that is also there where it is one.
    head.add([Remembered(across, 6, 200)])
    assert head.find(across) == 6
    assert head.take(2) == REQUESTS[:2]
    assert len(head) == 4
    assert head.request(0) == REQUESTS[2]
