"""What a slice wrote, over what the engine has: keys are as they were at each revision since."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

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
