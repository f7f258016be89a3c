"""What is remembered of requests: the packed memory beside its plain twin."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.primitives import native as memory
from kvstore._state.native import RequestMemory
from kvstore.errors import CorruptionError
from kvstore.state import request_digest
from kvstore.state.requests import (
    RECORD_HEAD_BYTES,
    PlainRequestMemory,
    check_record,
    encode_record,
    word_of,
)


def digest(number: int) -> bytes:
    """All of them want the same few places of an index."""
    return (number % 3).to_bytes(8, "little") + number.to_bytes(8, "little")


both = pytest.mark.parametrize("kind", [RequestMemory, PlainRequestMemory])


@both
def test_the_oldest_requests_are_forgotten_first_and_their_entries_named(kind) -> None:
    remembered = kind(3)
    remembered.add(digest(1), 2, index=1, time=10)
    remembered.add(digest(2), 2, index=1, time=10)
    remembered.add(digest(3), 3, index=2, time=20)
    assert remembered.forgotten_ms == 0
    remembered.add(digest(4), 2, index=5, time=30)
    assert (remembered.find(digest(1)), remembered.find(digest(2))) == (0, 2)
    assert remembered.forgotten_ms == 10
    assert remembered.take_forgotten() == []
    remembered.add(digest(5), 2, index=5, time=30)
    assert remembered.take_forgotten() == [1]
    assert remembered.find(digest(3)) == 3
    assert len(remembered) == 3


steps = st.one_of(st.integers(0, 3), st.sampled_from([2**31, 2**32, 2**34]))


@settings(max_examples=200)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 60), st.integers(2, 2**64 - 1), steps, steps), max_size=120),
)
def test_agrees_with_its_plain_twin(capacity, story) -> None:
    packed, plain = RequestMemory(capacity), PlainRequestMemory(capacity)
    index = time = 1
    for number, word, index_step, time_step in story:
        index += index_step
        time += time_step
        if plain.find(digest(number)):
            continue
        packed.add(digest(number), word, index, time)
        plain.add(digest(number), word, index, time)
        assert packed.take_forgotten() == plain.take_forgotten()
        assert packed.forgotten_ms == plain.forgotten_ms
    assert len(packed) == len(plain)
    assert [packed.find(digest(n)) for n in range(61)] == [plain.find(digest(n)) for n in range(61)]


def test_thousands_come_and_go() -> None:
    packed, plain = RequestMemory(3000), PlainRequestMemory(3000)
    names = [request_digest(b"%d" % number) for number in range(10_000)]
    for number, name in enumerate(names):
        packed.add(name, number | 2, number // 7 + 1, number)
        plain.add(name, number | 2, number // 7 + 1, number)
        for other in names[max(0, number - 3001) : number + 2 : 1500]:
            assert packed.find(other) == plain.find(other)
    assert packed.take_forgotten() == plain.take_forgotten() == list(range(1, 1001))
    assert packed.memory_bytes == 3000 * 32 + 8192 * 4


def test_a_full_memory_takes_forty_bytes_a_request() -> None:
    capacity = 1 << 16
    packed = RequestMemory(capacity)
    for number in range(capacity + 10):
        packed.add(number.to_bytes(16, "little"), 2, number, number)
    assert packed.memory_bytes == 40 * capacity


def test_without_memory_nothing_changes() -> None:
    packed = RequestMemory(5000)
    for number in range(513):
        packed.add(number.to_bytes(16, "little"), 2, number, number)
    memory.fail_allocation(1)
    try:
        with pytest.raises(MemoryError):
            packed.add(digest(7777), 2, 600, 600)
    finally:
        memory.reset()
    assert len(packed) == 513
    packed.add(digest(7777), 2, 600, 600)
    assert packed.find(digest(7777)) == 2


def test_what_it_is_given_is_given_back() -> None:
    memory.watch_allocations()
    try:
        packed = RequestMemory(5000)
        for number in range(2000):
            packed.add(number.to_bytes(16, "little"), 2, number, number)
        del packed
        assert memory.live() == 0
        assert memory.count() > 2
    finally:
        memory.reset()


def test_what_goes_back_or_comes_twice_is_refused() -> None:
    packed = RequestMemory(5)
    packed.add(digest(1), 2, 10, 10)
    for name, index, time in ((digest(1), 10, 10), (digest(2), 9, 10), (digest(2), 10, 9)):
        with pytest.raises(ValueError):
            packed.add(name, 2, index, time)
    assert len(packed) == 1


@both
def test_a_record_is_read_back(kind) -> None:
    requests = [(digest(1), 3), (digest(2), 2**64 - 2)]
    record = encode_record(77, requests)
    assert len(record) == RECORD_HEAD_BYTES + 24 * 2
    remembered = kind(8)
    remembered.load(record, RECORD_HEAD_BYTES, 4, check_record(record))
    assert [remembered.find(name) for name, _ in requests] == [3, 2**64 - 2]
    for number in range(10, 18):
        remembered.add(digest(number), 2, 5, 78)
    assert remembered.forgotten_ms == 77
    assert remembered.take_forgotten() == [4]


@pytest.mark.parametrize(
    "data", [b"", b"\x01", encode_record(1, [(digest(1), 2)])[:-1], b"\x02" + bytes(9)]
)
def test_a_record_that_is_none_is_refused(data) -> None:
    with pytest.raises(CorruptionError):
        check_record(data)


def test_no_word_is_zero_and_its_lowest_bit_is_free() -> None:
    assert [word_of(bytes(8)), word_of(b"\x01" + bytes(7)), word_of(b"\x03" + bytes(7))] == [
        2,
        2,
        2,
    ]
    assert word_of(b"\xff" * 8) == 2**64 - 2
