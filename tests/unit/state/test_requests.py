"""What is remembered of requests."""

from __future__ import annotations

import pytest

from kvstore.errors import CorruptionError
from kvstore.state.requests import Remembered, RequestMemory, decode_record, encode_record


def write(number: int, result: bool = False) -> Remembered:
    return Remembered(number.to_bytes(16, "big"), bytes(16), result)


def test_the_oldest_entries_are_forgotten_first_and_named():
    memory = RequestMemory(bound=4)
    assert memory.add(1, [write(1), write(2)]) == []
    assert memory.add(2, [write(3)]) == []
    assert memory.add(5, [write(4), write(5)]) == [1]
    assert memory.find(write(1).request) is None
    assert memory.find(write(3, result=False).request) == (bytes(16), False)
    assert len(memory) == 3


def test_the_newest_entry_stays_even_when_it_is_larger_than_the_bound():
    memory = RequestMemory(bound=2)
    memory.add(1, [write(1)])
    assert memory.add(2, [write(n) for n in range(10, 20)]) == [1]
    assert len(memory) == 10


def test_a_record_is_read_back():
    writes = [write(1, result=True), write(2)]
    assert decode_record(encode_record(writes)) == writes


@pytest.mark.parametrize("data", [b"", b"\x02", encode_record([write(1)])[:-1], b"\x01x"])
def test_a_record_that_is_none_is_refused(data):
    with pytest.raises(CorruptionError):
        decode_record(data)
