"""The bytes of a batch of commands."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state import (
    SEQUENCE_MAX,
    SESSION_WINDOW,
    Command,
    decode_commands,
    decode_guard,
    decode_time,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    request_digest,
)

ID = request_digest(b"request-1")

sequences = st.integers(1, SEQUENCE_MAX).flatmap(
    lambda sequence: st.tuples(
        st.just(sequence), st.integers(max(1, sequence - SESSION_WINDOW + 1), sequence)
    )
)

commands = st.lists(
    st.one_of(
        st.builds(open_command, st.binary(min_size=16, max_size=16)),
        st.builds(
            lambda session, key, value, numbers: put_command(session, key, value, *numbers),
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=1, max_size=40),
            st.binary(max_size=80),
            sequences,
        ),
        st.builds(
            lambda request, key, since: delete_command(request, key)._replace(since=since),
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=1, max_size=40),
            st.integers(0, 2**63),
        ),
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


@given(commands, st.integers(0, 2**48 - 1), st.integers(0, 3) | st.integers(0, 2**64 - 1))
def test_what_was_encoded_is_decoded(batch: list[Command], time_ms: int, guard: int):
    data = encode_commands(batch, time_ms, guard)
    assert decode_commands(data) == batch
    assert decode_time(data) == time_ms
    assert decode_guard(data) == guard


def test_an_entry_without_users_is_as_it_ever_was():
    head = b"\x02" + (7).to_bytes(8, "little") + (1).to_bytes(4, "little")
    assert encode_commands([open_command(ID)], 7)[:14] == head + b"\x03"
    guarded = b"\x04" + head[1:] + (9).to_bytes(8, "little")
    assert encode_commands([open_command(ID)], 7, 9)[:22] == guarded + b"\x03"


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


VALID = encode_commands(
    [
        put_command(ID, b"key", b"value"),
        delete_command(ID, b"other", 9, 5),
        delete_command(ID, b"third")._replace(since=3),
        open_command(ID),
    ]
)
FIRST, SECOND = 13, 13 + 32 + 8
THIRD = SECOND + 32 + 16 + 5
FOURTH = THIRD + 32 + 8 + 5


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
        (patched(0, b"\x01"), IntegrityCode.UNSUPPORTED_VERSION),
        (patched(7, b"\x01"), IntegrityCode.INVALID_RECORD),
        (patched(9, b"\xff\xff\xff\xff"), IntegrityCode.TRUNCATED_RECORD),
        (patched(9, b"\x01\x00\x00\x00"), IntegrityCode.INVALID_RECORD),
        (patched(FIRST, b"\x07"), IntegrityCode.INVALID_OPERATION),
        (patched(FIRST + 1, b"\x03"), IntegrityCode.INVALID_OPERATION),
        (patched(FIRST + 26, b"\x00\x00"), IntegrityCode.INVALID_RECORD),
        (patched(FIRST + 26, b"\x01\x04"), IntegrityCode.INVALID_RECORD),
        (patched(FIRST + 28, b"\x01\x00\x10\x00"), IntegrityCode.INVALID_RECORD),
        (patched(FIRST, b"\x02"), IntegrityCode.INVALID_RECORD),
        (patched(SECOND + 32, b"\x04"), IntegrityCode.INVALID_RECORD),
        (patched(SECOND + 40, b"\x00"), IntegrityCode.INVALID_RECORD),
        (patched(SECOND + 33, b"\x01"), IntegrityCode.INVALID_RECORD),
        (patched(FOURTH + 1, b"\x01"), IntegrityCode.TRUNCATED_RECORD),
        (patched(FOURTH + 18, b"\x01"), IntegrityCode.INVALID_RECORD),
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
