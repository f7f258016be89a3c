"""Log segments of random bytes and with mistakes: an error with a code, or a true prefix."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import CorruptionError, IntegrityCode

RECORDS = [(1, index, index // 4, b"%d" % index * (index % 9)) for index in range(1, 40)]
SYNCED = 30
SEGMENT = "/log/000001.wal"


@functools.cache
def valid() -> bytes:
    """Thirty durable records and nine that were only written."""
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    log.append_many(RECORDS[:SYNCED])
    log.sync()
    log.append_many(RECORDS[SYNCED:])
    log.write()
    return disk.read_file(SEGMENT)


def opened(content: bytes) -> list[tuple[int, int, int, bytes]] | IntegrityCode:
    disk = MemoryFileSystem()
    disk.write_file(SEGMENT, content)
    try:
        with Log("/log", filesystem=disk) as log:
            found = list(log.replay())
    except CorruptionError as error:
        assert error.path == SEGMENT
        # A refusal changes nothing.
        assert disk.read_file(SEGMENT) == content
        return error.code
    # What was found is still found by the next opening.
    with Log("/log", filesystem=disk) as again:
        assert list(again.replay()) == found
    return found


@settings(max_examples=150)
@given(st.binary(max_size=400))
def test_random_bytes_are_no_segment(content):
    assert isinstance(opened(content), IntegrityCode)


@settings(max_examples=150)
@given(st.binary(max_size=400))
def test_random_records_behind_a_true_header_are_no_records(content):
    found = opened(valid()[:128] + content)
    assert found == [] or isinstance(found, IntegrityCode)


@settings(max_examples=400)
@given(st.data())
def test_a_segment_with_mistakes_gives_an_error_or_a_prefix_with_all_that_was_durable(data):
    content = bytearray(valid())
    end = len(bytes(content).rstrip(b"\0"))
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "write", "cut", "insert", "remove", "copy"]))
        at = data.draw(st.integers(0, min(end, max(0, len(content) - 1))))
        if not content:
            break
        if kind == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "write":
            new = data.draw(st.binary(min_size=1, max_size=40))
            content[at : at + len(new)] = new
        elif kind == "cut":
            del content[max(at, 1) :]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        elif kind == "remove":
            del content[at : at + data.draw(st.integers(1, 80))]
        else:
            source = data.draw(st.integers(0, len(content) - 1))
            size = data.draw(st.integers(1, 200))
            content[at : at + size] = content[source : source + size]
    found = opened(bytes(content))
    if not isinstance(found, IntegrityCode):
        assert found == RECORDS[: len(found)]
