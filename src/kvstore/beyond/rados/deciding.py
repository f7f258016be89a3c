"""What becomes of writes to one bucket: a pure function of what the bucket held.

The same rules as the state machine's of a group (:mod:`kvstore.state.requests`, docs/adr/0006), for
requests with ids of the client's own making: what is remembered is answered as it was the first
time, what may have been forgotten is refused, and all else is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.beyond.rados.layout import (
    HEAD_KEY,
    PAGE_REQUESTS,
    PAGES_MAX,
    YOUNG_MAX,
    Apart,
    Entry,
    Head,
    Remembered,
    encode_apart,
    encode_head,
    encode_inline,
    encode_page,
    encode_request,
    entry_key,
    page_key,
    request_key,
    time_of_value,
)
from kvstore.errors import (
    Error,
    ForgottenError,
    InvalidArgumentError,
    Outcome,
    Refusal,
    UnavailableError,
)
from kvstore.state.results import REUSED

__all__ = ["DROPPED_PAGES_MAX", "REMEMBERED_MS", "Decision", "Found", "Page", "Wish", "decide"]

REMEMBERED_MS = 1_200_000
"""So long a request is remembered at least, if there is room: 20 minutes, as long as a group
remembers 1,000 writes a second."""

DROPPED_PAGES_MAX = 4
"""Pages that one turn forgets; it adds no more than two."""


class Wish(NamedTuple):
    """One write. ``value``: None to delete; ``apart``: where it is, if it is too large for a pair.

    ``digest`` and ``word`` say which request it is, and what it asks (its lowest bit is 0).
    ``sent_at``: of a retry, when its first try was sent, at the earliest.
    """

    key: bytes
    value: bytes | None
    digest: bytes
    word: int
    sent_at: float | None
    apart: Apart | None = None


class Page(NamedTuple):
    """One of a bucket's oldest pages of requests."""

    number: int
    time_ms: int
    digests: list[bytes]


@dataclass(slots=True)
class Found:
    """What a bucket held: ``entries`` of the keys that are written, ``older`` of the requests.

    ``pages``: its oldest ones, without a gap. A damaged entry may be b"": that it is there counts.
    """

    bucket: int
    head: Head
    entries: dict[bytes, Entry]
    older: Mapping[bytes, Remembered] = field(default_factory=dict)
    pages: Sequence[Page] = ()


@dataclass(slots=True)
class Decision:
    """``results`` by place. What is to be changed for them, all or nothing: ``pairs`` set,
    ``removed`` by their keys; nothing where ``pairs`` is empty. ``gone``: objects of values that
    nobody needs once it is done, ``unused``: those of wishes that weren't granted. ``size``: of
    the bucket's object, None where it stays, as with deletes alone."""

    results: list[bool | Error] = field(default_factory=list)
    pairs: dict[bytes, bytes] = field(default_factory=dict)
    removed: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    unused: list[bytes] = field(default_factory=list)
    size: int | None = None


def decide(
    found: Found,
    wishes: Sequence[Wish],
    *,
    stamp_ms: int,
    known_ms: int,
    since_ms: Callable[[float], int],
) -> Decision:
    """Grant ``wishes``, one after the other, or say why not. ``found`` is used up.

    The times are those of :class:`kvstore.beyond.rados.pool_clock.PoolClock`.
    """
    head = found.head
    decision = Decision()
    granted: dict[bytes, Remembered] = {}
    entries = found.entries
    written: dict[bytes, Entry | None] = {}
    # None is younger than one that came after it.
    time_ms = max(stamp_ms, head.request(len(head) - 1).time_ms) if head else stamp_ms
    for wish in wishes:
        known = granted.get(wish.digest) or found.older.get(wish.digest)
        word = head.find(wish.digest) if known is None else known.word
        result = _known_or_refused(wish, word, head.forgotten_ms, since_ms)
        if result is not None:
            decision.results.append(result)
            if wish.apart is not None:
                decision.unused.append(wish.apart.name)
            continue
        if wish.apart is not None and time_of_value(wish.apart.name) <= head.swept_ms:
            decision.results.append(_may_be_swept())
            decision.unused.append(wish.apart.name)
            continue
        key = wish.key
        before = written[key] if key in written else entries.get(key)
        if isinstance(before, Apart):
            decision.gone.append(before.name)
        existed = before is not None
        after = wish.value if wish.apart is None else wish.apart
        written[key] = after
        head.keys += (after is not None) - existed
        granted[wish.digest] = Remembered(wish.digest, wish.word | existed, time_ms)
        decision.results.append(existed)
    # One that was granted before, and whose answer was lost on the way, is still needed.
    needed = {
        each.name for each in (*entries.values(), *written.values()) if isinstance(each, Apart)
    }
    decision.unused = [name for name in decision.unused if name not in needed]
    if not written:
        return decision
    head.add(list(granted.values()))
    _forget(found, decision, known_ms)
    _spill(found, decision)
    for key, entry in written.items():
        if entry is None:
            if entries.get(key) is not None:
                decision.removed.append(entry_key(key))
        elif isinstance(entry, Apart):
            decision.pairs[entry_key(key)] = encode_apart(key, entry)
        else:
            decision.pairs[entry_key(key)] = encode_inline(key, entry)
    if any(entry is not None for entry in written.values()):
        head.grow()
        decision.size = head.size
    decision.pairs[HEAD_KEY] = encode_head(found.bucket, head)
    return decision


def _may_be_swept() -> Error:
    """The gateway's machine stood still between writing the value and naming it."""
    failure = UnavailableError("the value was written too long ago for its key to name it")
    failure.outcome = Outcome.NOT_APPLIED
    return failure


def _known_or_refused(
    wish: Wish, word: int | None, forgotten_ms: int, since_ms: Callable[[float], int]
) -> bool | Error | None:
    """The first result of a request, or why it isn't to be done; None: it is new."""
    if word is not None:
        if word & ~1 != wish.word:
            return InvalidArgumentError(REUSED)
        return bool(word & 1)
    if wish.sent_at is not None and 0 < forgotten_ms >= since_ms(wish.sent_at):
        return ForgottenError(Refusal.REQUEST_FORGOTTEN)
    return None


def _forget(found: Found, decision: Decision, known_ms: int) -> None:
    """Let go of requests that are old, or too many; what is left says of when the newest was."""
    head = found.head
    due_ms = known_ms - REMEMBERED_MS
    for page in found.pages:
        pages = head.next_page - head.first_page
        if page.number != head.first_page or not (page.time_ms < due_ms or pages > PAGES_MAX):
            break
        head.forgotten_ms = max(head.forgotten_ms, page.time_ms)
        head.first_page += 1
        decision.removed.append(page_key(page.number))
        decision.removed += [request_key(digest) for digest in page.digests]
    if head.first_page < head.next_page:
        return  # what is in the head is younger
    old = 0
    while old < len(head) and head.request(old).time_ms < due_ms:
        old += 1
    if old:
        head.forgotten_ms = max(head.forgotten_ms, head.take(old)[-1].time_ms)


def _spill(found: Found, decision: Decision) -> None:
    """Move the oldest requests out of a head that is full, page by page."""
    head = found.head
    while len(head) > YOUNG_MAX:
        page = head.take(PAGE_REQUESTS)
        decision.pairs[page_key(head.next_page)] = encode_page(found.bucket, head.next_page, page)
        for request in page:
            pair = encode_request(found.bucket, request)
            decision.pairs[request_key(request.digest)] = pair
        head.next_page += 1
