"""The validator of watches finds what is wrong, each sort of it, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvstore.state.mvcc.answers import Event
from tests.unit.service.etcd.fake_source import FakeSource
from tests.watch_validator import Asked, History, Seen, Watched, violations


def play() -> History:
    source = FakeSource()
    source.put((b"a", b"1"))  # 2
    source.put((b"a", b"2"), (b"b", b"1"))  # 3
    source.delete(b"a")  # 4
    source.put((b"a", b"3"))  # 5
    source.put((b"c", b"1"))  # 6
    return source.history


HISTORY = play()
ALL = Asked(b"\0", b"\0", start=2)


def of(*revisions: int, prev_kv: bool = False) -> tuple[Event, ...]:
    return tuple(
        event._replace(previous=HISTORY.before(event)) if prev_kv else event
        for revision in revisions
        for event in HISTORY.revisions[revision]
    )


def seen(*revisions: int) -> Seen:
    return Seen(revisions[-1], of(*revisions))


def found(asked: Asked, messages: Sequence[Seen], applied: int | None = 6) -> str:
    return "\n".join(violations(Watched(asked, [*messages]), HISTORY, applied=applied))


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        (ALL, [seen(2, 3), Seen(3), seen(4), seen(5, 6), Seen(6)]),
        (ALL, [Seen(6, of(2, 3)), seen(4, 5, 6)]),
        (Asked(b"\0", b"\0", 5), [seen(5), seen(6)]),
        (Asked(b"\0", b"\0", 9), []),
        (Asked(b"b", start=2), [Seen(3, of(3)[1:])]),
        (
            Asked(b"a", b"b", 3, True),
            [Seen(3, of(3, prev_kv=True)[:1])]
            + [Seen(each, of(each, prev_kv=True)) for each in (4, 5)],
        ),
        (Asked(b"a", start=2, no_puts=True), [seen(4)]),
        (ALL, [seen(2), Seen(3, of(3)[:1], fragment=True), Seen(3, of(3)[1:]), seen(4, 5, 6)]),
        (ALL, [seen(2), Seen(0, compacted=4)]),
    ],
)
def test_what_is_right(asked: Asked, messages: Sequence[Seen]) -> None:
    assert found(asked, messages) == ""


@pytest.mark.parametrize(
    ("asked", "messages", "word"),
    [
        (ALL, [seen(3), seen(2), seen(4, 5, 6)], "ordered"),
        (ALL, [Seen(3, of(3, 2)), seen(4, 5, 6)], "ordered"),
        (ALL, [seen(2, 3), seen(3), seen(4, 5, 6)], "unique"),
        (ALL, [seen(2, 3), seen(5, 6)], "reliable"),
        (ALL, [seen(2, 3, 4, 5)], "reliable"),
        (ALL, [seen(2), Seen(3, of(3)[:1]), Seen(3, of(3)[1:]), seen(4, 5, 6)], "atomic"),
        (Asked(b"\0", b"\0", 3), [seen(2, 3, 4, 5, 6)], "resumable"),
        (ALL, [seen(2), Seen(3), seen(3, 4, 5, 6)], "bookmarkable"),
        (ALL, [seen(2, 3, 4, 5, 6), Seen(6), Seen(5)], "went back"),
        (Asked(b"\0", b"\0", 9), [Seen(6)], "progress 6 of a watch from 9"),
        (Asked(b"a", start=2), [seen(2), seen(3), seen(4, 5)], "filter"),
        (Asked(b"a", start=2, no_puts=True), [seen(2), seen(4)], "filter"),
        (Asked(b"a", start=2, prev_kv=True), [seen(2), Seen(3, of(3)[:1]), seen(4, 5)], "lacks"),
        (Asked(b"a", start=4), [Seen(4, of(4, prev_kv=True)), seen(5)], "previous"),
        (ALL, [Seen(2, of(3))], "before its event"),
        (ALL, [Seen(2, of(2), fragment=True)], "no end"),
        (ALL, [seen(2, 3, 4), Seen(0, compacted=4)], "ended for 4"),
        (ALL, [Seen(0, compacted=4), seen(2)], "after its end"),
    ],
)
def test_what_is_wrong(asked: Asked, messages: Sequence[Seen], word: str) -> None:
    assert word in found(asked, messages)


def test_an_event_that_never_was_or_looks_otherwise() -> None:
    other = of(2)[0]
    forged = other._replace(kv=other.kv._replace(value=b"forged"))
    assert "another one" in found(ALL, [Seen(2, (forged,))], None)
    unknown = other._replace(kv=other.kv._replace(key=b"zzz"))
    assert "never happened" in found(ALL, [Seen(2, (unknown,))], None)


def test_what_keys_were_before_the_first_event_is_known() -> None:
    source = FakeSource()
    source.put((b"a", b"1"))
    source.put((b"a", b"2"))
    (first,), (second,) = source.history.revisions[2], source.history.revisions[3]
    history = History({3: (second,)}, before=[first.kv])
    watched = Watched(Asked(b"a", start=3, prev_kv=True))
    watched.seen.append(Seen(3, (second._replace(previous=first.kv),)))
    assert not violations(watched, history, applied=3)
    # It is no event itself.
    assert not violations(Watched(Asked(b"a", start=1), [seen_of(second)]), history, applied=3)
    watched.seen[0] = seen_of(second)
    assert "lacks" in "".join(violations(watched, history, applied=3))


def seen_of(event: Event) -> Seen:
    return Seen(event.kv.mod_revision, (event._replace(previous=None),))
