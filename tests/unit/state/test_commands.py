"""The bytes of a batch of commands."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state import (
    Command,
    decode_commands,
    delete_command,
    encode_commands,
    put_command,
    request_digest,
)

ID = request_digest(b"request-1")

commands = st.lists(
    st.one_of(
        st.builds(
            put_command,
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=1, max_size=40),
            st.binary(max_size=80),
        ),
        st.builds(
            delete_command,
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=1, max_size=40),
        ),
    ),
    max_size=12,
)


@given(commands)
def test_what_was_encoded_is_decoded(batch: list[Command]):
    assert decode_commands(encode_commands(batch)) == batch


def test_the_fingerprint_tells_operation_key_and_value_apart():
    fingerprints = {
        put_command(ID, b"ab", b"c").fingerprint,
        put_command(ID, b"a", b"bc").fingerprint,
        put_command(ID, b"ab", b"d").fingerprint,
        put_command(ID, b"ab", b"").fingerprint,
        delete_command(ID, b"ab").fingerprint,
        delete_command(ID, b"abc").fingerprint,
    }
    assert len(fingerprints) == 6


VALID = encode_commands([put_command(ID, b"key", b"value"), delete_command(ID, b"other")])


@pytest.mark.parametrize("size", range(len(VALID)))
def test_every_truncation_is_refused(size):
    with pytest.raises(CorruptionError) as caught:
        decode_commands(VALID[:size])
    assert caught.value.code in (IntegrityCode.TRUNCATED_RECORD, IntegrityCode.INVALID_RECORD)


def patched(offset: int, value: bytes) -> bytes:
    return VALID[:offset] + value + VALID[offset + len(value) :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (patched(0, b"\x02"), IntegrityCode.UNSUPPORTED_VERSION),
        (patched(1, b"\xff\xff\xff\xff"), IntegrityCode.TRUNCATED_RECORD),
        (patched(1, b"\x01\x00\x00\x00"), IntegrityCode.INVALID_RECORD),
        (patched(5, b"\x07"), IntegrityCode.INVALID_OPERATION),
        (patched(5 + 33, b"\x00\x00"), IntegrityCode.INVALID_RECORD),
        (patched(5 + 33, b"\x01\x04"), IntegrityCode.INVALID_RECORD),
        (patched(5 + 35, b"\x01\x00\x10\x00"), IntegrityCode.INVALID_RECORD),
        (patched(5, b"\x02"), IntegrityCode.INVALID_RECORD),
        (VALID + b"\x00", IntegrityCode.INVALID_RECORD),
    ],
)
def test_what_encoding_can_not_give_is_refused_with_its_code(data, code):
    with pytest.raises(CorruptionError) as caught:
        decode_commands(data)
    assert caught.value.code is code


@given(st.binary(max_size=200))
def test_any_bytes_give_commands_or_a_corruption_error(data):
    with contextlib.suppress(CorruptionError):
        decode_commands(data)


@given(st.integers(0, len(VALID) - 1), st.integers(1, 255))
def test_any_changed_byte_gives_commands_or_a_corruption_error(at, change):
    data = bytearray(VALID)
    data[at] ^= change
    with contextlib.suppress(CorruptionError):
        decode_commands(bytes(data))
