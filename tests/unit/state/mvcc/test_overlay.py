"""What a slice wrote, over what the engine has: keys are as they were at each revision since."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.state.mvcc import overlay
from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.overlay import Overlay, absent
from kvstore.state.mvcc.source import Span

KEYS = [bytes([letter]) for letter in b"abcdefgh"]
BASE = 5

keys = st.sampled_from(KEYS)
spans = st.builds(Span, keys, st.one_of(st.none(), keys))
steps = st.one_of(
    st.tuples(st.just("put"), keys),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("delete span"), spans),
    st.tuples(st.just("delete span"), spans),
)


class Stored:
    """Keys as of now; nobody may ask for what is older than the slice."""

    def __init__(self, stored: set[bytes]) -> None:
        self.kvs = {key: KeyValue(key, 1, 3, 2, b"stored", 0) for key in stored}

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        assert not revision
        return self.kvs.get(key)

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        assert not revision
        return iter([self.kvs[key] for key in sorted(self.kvs, reverse=reverse) if key in span])

    def count(self, span: Span, revision: int = 0) -> int:
        return len(list(self.visible(span, revision)))


@settings(max_examples=300)
@given(
    st.one_of(st.just(set(KEYS)), st.sets(keys)), st.lists(steps, max_size=12), st.integers(0, 3)
)
def test_each_revision_of_a_slice_is_as_it_was_written(
    stored: set[bytes], script: list[tuple[str, bytes | Span]], large: int
) -> None:
    source = Stored(stored)
    written = Overlay(source, BASE)
    now = dict(source.kvs)
    states = {BASE: dict(now)}
    with mock.patch.object(overlay, "_LARGE", large):
        for revision, (step, what) in enumerate(script, start=BASE + 1):
            if isinstance(what, Span):
                gone = [kv for key, kv in sorted(now.items()) if key in what]
                assert list(written.delete(what, revision)) == gone
                now = {key: kv for key, kv in now.items() if key not in what}
            else:
                assert written.get(what) == now.get(what)
                if step == "put":
                    now[what] = KeyValue(what, revision, revision, 1, b"", 0)
                    written.write(now[what])
                elif step == "delete":
                    now.pop(what, None)
                    written.write(absent(what, revision))
            states[revision] = dict(now)
    for revision, state in [(0, now), *states.items()]:
        for span in (Span(b"", None), Span(b"b", b"f"), Span(b"c", b"c"), Span(b"d", None)):
            expected = [kv for key, kv in sorted(state.items()) if key in span]
            assert list(written.visible(span, revision)) == expected
            assert list(written.visible(span, revision, reverse=True)) == expected[::-1]
            assert written.count(span, revision) == len(expected)
    for revision, state in [(0, now), *states.items()]:
        for key in KEYS:
            assert written.get(key, revision) == state.get(key)


class Large:
    """Any key has a large value, made when it is asked for."""

    SIZE = 1 << 20

    def value(self, key: bytes) -> bytes:
        return key * (self.SIZE // len(key))

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        return KeyValue(key, 1, 3, 2, self.value(key), 0)

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        for number in sorted(range(100, 400), reverse=reverse):
            if b"%d" % number in span:
                yield self.get(b"%d" % number)  # type: ignore[misc]  # there always is one

    def count(self, span: Span, revision: int = 0) -> int:
        return len(list(self.visible(span, revision)))


@pytest.mark.parametrize("way", ["get", "range", "replace", "delete", "delete span"])
def test_what_keys_were_is_not_held_in_memory(way: str) -> None:
    """A slice may compare, replace or delete thousands of keys of a MiB each."""
    large = Large()
    written = Overlay(large, BASE)
    keys_asked = [b"%d" % number for number in range(100, 400)]
    tracemalloc.start()
    try:
        if way == "delete span":
            with mock.patch.object(overlay, "_LARGE", 1000):
                for kv in written.delete(Span(b"1", b"4"), BASE + 1):
                    assert kv.value == large.value(kv.key)
        else:
            for key in keys_asked:
                found = written.get(key)
                assert found is not None
                assert found.value == large.value(key)
                if way == "replace":
                    written.write(found._replace(value=b"new", mod_revision=BASE + 1, version=3))
                elif way == "delete":
                    written.write(absent(key, BASE + 1))
            if way == "range":
                for kv in written.visible(Span(b"1", b"4")):
                    assert kv.value == large.value(kv.key)
    finally:
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * Large.SIZE, (held, peak)
    # And it is known all the same: before the slice, and since.
    before = written.get(b"222", BASE)
    assert before is not None
    assert before.value == large.value(b"222")
    assert [kv.value for kv in written.visible(Span(b"222", b"223"), BASE)] == [before.value]
    now = written.get(b"222")
    if way in ("get", "range"):
        assert now == before
    elif way == "replace":
        assert now is not None
        assert now.value == b"new"
    else:
        assert now is None
