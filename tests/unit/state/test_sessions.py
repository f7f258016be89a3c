"""Sessions by themselves: what is stored, how they age, what they may take."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore._state import native
from kvstore.errors import CorruptionError
from kvstore.state import SESSION_WINDOW
from kvstore.state.sessions import (
    EXPIRED_MAX,
    Session,
    SessionBounds,
    Sessions,
    decode_session,
    encode_session,
)


def named(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_session_is_read_back() -> None:
    session = Session(7, 1234, (99, 3))
    session.remember(7, 2**64 - 1)
    session.remember(9, 4)
    again = decode_session(encode_session(session))
    assert (again.floor, again.used_ms, again.used) == (7, 1234, (99, 3))
    assert [again.find(sequence) for sequence in (7, 8, 9, 10)] == [2**64 - 1, 0, 4, 0]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 60),
            st.integers(0, 300),
            st.integers(2, 9),
            st.sampled_from([0, 0, 1, 7]),
        ),
        max_size=40,
    )
)
def test_a_session_agrees_with_a_dictionary(story: list[tuple[int, int, int, int]]) -> None:
    session, floor, known = Session(1, 0, (0, 0)), 1, {}
    packed = native.Sessions(8, 1000, 100)
    for step, above, word, revision in story:
        session.advance(floor)
        if above < SESSION_WINDOW and floor + above not in known:
            session.remember(floor + above, word, revision, 3 * revision)
            known[floor + above] = word, (revision, 3 * revision)
        again = decode_session(encode_session(session))
        assert again.parts() == session.parts()
        packed.restore(named(1), *session.parts())
        assert packed.parts(named(1)) == session.parts()
        session = again
        expected = {sequence: both for sequence, both in known.items() if sequence >= floor}
        found = {
            n: (session.find(n), session.answer(n))
            for n in range(floor, floor + 400)
            if session.find(n)
        }
        assert found == expected
        floor += step
        session.advance(floor - step)  # an older one changes nothing


def test_answers_are_stored_behind_the_words() -> None:
    session = Session(7, 1234, (99, 3))
    session.remember(7, 2, 5, 1)
    session.remember(8, 4)
    stored = encode_session(session)
    words = (2).to_bytes(8, "little") + (4).to_bytes(8, "little")
    answers = (5).to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(16)
    assert (stored[0], stored[29:]) == (2, words + answers)
    session.advance(8)
    # As it was before any operation was numbered.
    assert encode_session(session)[0] == 1


def test_no_session_is_larger_than_its_window() -> None:
    session = Session(5, 0, (0, 0))
    session.remember(5 + SESSION_WINDOW - 1, 2)
    assert len(encode_session(session)) == 29 + 8 * SESSION_WINDOW
    with pytest.raises(AssertionError):
        session.remember(5 + SESSION_WINDOW, 2)
    with pytest.raises(AssertionError):
        session.remember(4, 2)


@given(st.binary(max_size=80))
def test_any_bytes_give_a_session_or_a_corruption_error(data: bytes) -> None:
    with contextlib.suppress(CorruptionError):
        assert encode_session(decode_session(data)) == data


@pytest.mark.parametrize(
    "data",
    [b"", b"\x03" + bytes(28), b"\x01" + bytes(27), b"\x01" + bytes(29 + 8 * 256)]
    + [b"\x02" + bytes(28 + size) for size in (0, 16, 24, 25)]
    + [b"\x02" + bytes(28 + 24 * 257 - 1) + b"\1"],
)
def test_what_is_no_session_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_session(data)


def test_many_that_are_due_at_once_go_bit_by_bit_and_are_gone_at_once() -> None:
    sessions = Sessions(SessionBounds(idle_ms=100))
    count = EXPIRED_MAX + 10
    for number in range(count):
        assert sessions.open(named(number), 5, (1, number))
    assert sessions.expire(104) == []
    assert sessions.find(named(count - 1), 104) is not None
    assert sessions.find(named(count - 1), 105) is None
    assert sessions.expire(105) == [named(number) for number in range(EXPIRED_MAX)]
    assert len(sessions.expire(105)) == 10
    assert len(sessions) == 0


def test_the_order_of_use_survives_a_restart() -> None:
    bounds = SessionBounds(sessions_max=3, spared_ms=0)
    sessions = Sessions(bounds)
    for number in range(3):
        sessions.open(named(number), 7, (1, number))
    sessions.use(named(0), 7, (2, 0))
    stored = [(name, sessions._open[name]) for name in map(named, range(3))]
    for again in (sessions, Sessions(bounds, stored)):
        assert again.make_room(7) == named(1)
