"""What is read without the log: ranges, transactions that only read, and events.

Any thread, while the log is applied on another: ``standing`` is asked for how far the state is, and
what is read is read at that revision. Should compaction meanwhile take from what was being read, it
is read again, or refused as compacted. With a store that raises ColdError these do so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from kvstore.errors import (
    CorruptionError,
    Error,
    IntegrityCode,
    InvalidArgumentError,
    StorageError,
)
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import (
    Event,
    EventPage,
    GatheredAnswer,
    KeyValue,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.checks import check
from kvstore.state.mvcc.ranges import GatheringStore, MakeGathered, gather, may_be_gathered, take
from kvstore.state.mvcc.records import (
    EventRecord,
    decode_event,
    decode_event_key,
    event_key,
    events_prefix,
)
from kvstore.state.mvcc.requests import Range, Txn
from kvstore.state.mvcc.source import ColdError, Standing, Store, StoredSource
from kvstore.state.mvcc.txn import check_revision, read_taken

__all__ = [
    "ANSWER_BYTES_MAX",
    "Now",
    "gather_range",
    "read_events",
    "read_events_cached",
    "read_range",
    "read_settled",
    "read_txn",
]

ANSWER_BYTES_MAX: Final = 80 << 20
"""Of the keys and values of an answer, each with ANSWER_KEY_BYTES more. What is larger no client of
the native front could be sent, and several at a time were too much for the memory."""

ANSWER_KEY_BYTES: Final = 128

_TRIES: Final = 8
_EVENT_BYTES: Final = 64
"""What an event takes in a page beside its keys and values."""

_Result = TypeVar("_Result")
Now = Callable[[], Standing]
_Index = Callable[[], Iterator[tuple[int, int, EventRecord]]]
_Look = Callable[[StoredSource, bytes, int], KeyValue | None]
_Tell = Callable[[StoredSource, int, int, EventRecord], Event | None]


def read_range(store: Store, standing: Now, request: Range) -> RangeAnswer:
    """The answer to a Range; raises EtcdError."""
    check(request)

    def read(now: Standing) -> RangeAnswer:
        revision = max(request.revision, 0)
        check_revision(now, revision)
        source = StoredSource(store, now.model_from, now.revision)
        return take(source, request, revision, now.revision, _Room().keep)

    return read_settled(standing, read)


def gather_range(
    store: GatheringStore, standing: Now, request: Range, make: MakeGathered
) -> GatheredAnswer | RangeAnswer:
    """The same into what ``make`` makes, where the Range is of keys as they come."""
    check(request)
    if not may_be_gathered(request):
        return read_range(store, standing, request)

    def read(now: Standing) -> GatheredAnswer:
        check_revision(now, max(request.revision, 0))
        answer = gather(store, request, now, make, ANSWER_BYTES_MAX)
        if answer is None:
            raise EtcdError(Reason.REQUEST_TOO_LARGE)
        return answer

    return read_settled(standing, read)


def read_txn(store: Store, standing: Now, request: Txn) -> TxnAnswer:
    """The answer to a Txn of nothing but Ranges; raises EtcdError."""
    check(request)

    def read(now: Standing) -> TxnAnswer:
        source = StoredSource(store, now.model_from, now.revision)
        return read_taken(source, request, now, _Room().keep)

    return read_settled(standing, read)


class _Room:
    """What is left for an answer."""

    def __init__(self) -> None:
        self._left = ANSWER_BYTES_MAX

    def keep(self, kv: KeyValue) -> None:
        """Raises EtcdError when nothing is left."""
        self._left -= ANSWER_KEY_BYTES + len(kv.key) + len(kv.value)
        if self._left < 0:
            raise EtcdError(Reason.REQUEST_TOO_LARGE)


def read_settled(standing: Now, read: Callable[[Standing], _Result]) -> _Result:
    """What ``read`` says, once nothing was compacted while it did; raises EtcdError."""
    for _ in range(_TRIES):
        now = standing()
        if not now.model_from:
            raise EtcdError(Reason.NOT_CAPABLE)
        try:
            result = read(now)
        except EtcdError:
            if standing().compacted == now.compacted:
                raise
        except InvalidArgumentError as error:
            if standing().compacted == now.compacted:
                raise _lost(now) from error
        else:
            if standing().compacted == now.compacted:
                return result
    # Compacted to the present again and again: it is the reader's fate to wait.
    raise EtcdError(Reason.TOO_MANY_REQUESTS)


def read_events(
    store: Store,
    standing: Now,
    first: int,
    last: int,
    bytes_max: int,
    *,
    previous: bool = False,
    wanted: Callable[[bytes], bool] | None = None,
    sub: int = 0,
) -> EventPage:
    """The events of the revisions ``first``, from its event ``sub`` on, to ``last``.

    As many whole revisions as it takes to reach ``bytes_max``; of one that is beyond it alone, a
    part. ``previous``: with what the keys were before, but for events of the compacted revision:
    what was before that is gone. ``wanted``: only events of such keys are
    told, and their values looked up. Raises EtcdError where ``first`` is compacted by the end.
    """

    def index() -> Iterator[tuple[int, int, EventRecord]]:
        for key, record, _ in store.versions(event_key(first, sub), events_prefix(last + 1)):
            yield *decode_event_key(key), decode_event(record)

    tell = partial(_tell, wanted, _look_up if previous else None)
    return _read_page(store, standing, index, (first, last), bytes_max, tell)


def read_events_cached(
    store: Store,
    standing: Now,
    first: int,
    last: int,
    bytes_max: int,
    *,
    previous: bool = False,
    wanted: Callable[[bytes], bool] | None = None,
) -> EventPage:
    """The same, of whole revisions, by what single keys of ``store`` say; raises ColdError.

    What a key was before is left out where that alone is cold.
    """
    tell = partial(_tell, wanted, _look_up_cached if previous else None)
    index = partial(_look_up_index, store, first, last)
    page = _read_page(store, standing, index, (first, last), bytes_max, tell)
    if page.next_sub:
        raise ColdError(event_key(page.next_revision, page.next_sub))
    return page


def _look_up_index(store: Store, first: int, last: int) -> Iterator[tuple[int, int, EventRecord]]:
    for revision in range(first, last + 1):
        place = 0
        while (found := store.get_versioned(event_key(revision, place))) is not None:
            yield revision, place, decode_event(found[0])
            place += 1


def _read_page(
    store: Store,
    standing: Now,
    index: _Index,
    span: tuple[int, int],
    bytes_max: int,
    tell: _Tell,
) -> EventPage:
    first = span[0]
    source = StoredSource(store, standing().model_from, None)
    for _ in range(_TRIES):
        now = standing()
        if first < now.compacted:
            raise EtcdError(Reason.COMPACTED)
        try:
            page = _fill_page(index(), span, bytes_max, partial(tell, source, now.compacted))
        except (CorruptionError, InvalidArgumentError) as error:
            compacted = standing().compacted
            if first < compacted:
                raise EtcdError(Reason.COMPACTED) from None
            if compacted == now.compacted:
                # What names a file is the engine's: that one is damaged, and can be repaired.
                if _names_file(error):
                    raise
                raise _lost(now) from error
            # To ``first`` itself, which can still be read, but nothing before it.
        else:
            if first < standing().compacted:
                raise EtcdError(Reason.COMPACTED)
            return page
    raise EtcdError(Reason.TOO_MANY_REQUESTS)


def _names_file(error: Error) -> bool:
    return isinstance(error, StorageError) and bool(error.path)


def _fill_page(
    index: Iterator[tuple[int, int, EventRecord]],
    span: tuple[int, int],
    bytes_max: int,
    tell: Callable[[int, EventRecord], Event | None],
) -> EventPage:
    at, last = span
    page: list[tuple[int, tuple[Event, ...]]] = []
    page_bytes = 0
    # Of the revision `at`, as far as it was read.
    events: list[Event] = []
    events_bytes = 0
    for revision, place, record in index:
        if revision != at:
            if events_bytes:
                page.append((at, tuple(events)))
                page_bytes += events_bytes
            if page_bytes >= bytes_max:
                return EventPage(tuple(page), at + 1)
            at, events, events_bytes = revision, [], 0
        elif events_bytes >= bytes_max:
            if page:
                return EventPage(tuple(page), at)
            return EventPage(((at, tuple(events)),), at, place)
        event = tell(revision, record)
        events_bytes += _EVENT_BYTES + len(record.key)
        if event is not None:
            events.append(event)
            events_bytes += len(event.kv.value)
            events_bytes += 0 if event.previous is None else len(event.previous.value)
    if events_bytes:
        page.append((at, tuple(events)))
    return EventPage(tuple(page), last + 1)


def _tell(
    wanted: Callable[[bytes], bool] | None,
    look_back: _Look | None,
    source: StoredSource,
    compacted: int,
    revision: int,
    record: EventRecord,
) -> Event | None:
    """The event, None where it isn't wanted. ``look_back``: finds what the key was before, which
    isn't known of what happened at the ``compacted`` revision."""
    is_delete, key, previous_revision = record
    if wanted is not None and not wanted(key):
        return None
    if is_delete:
        kv = KeyValue(key, 0, revision, 0, b"", 0)
    else:
        kv = _look_up(source, key, revision)
        if kv.mod_revision != revision:
            raise _missing(key, revision)
    previous = None
    if look_back is not None and previous_revision and revision > compacted:
        previous = look_back(source, key, revision - 1)
    return Event(is_delete, kv, previous_revision, previous)


def _look_up(source: StoredSource, key: bytes, revision: int) -> KeyValue:
    kv = source.get(key, revision)
    if kv is None:
        raise _missing(key, revision)
    return kv


def _look_up_cached(source: StoredSource, key: bytes, revision: int) -> KeyValue | None:
    try:
        return _look_up(source, key, revision)
    except ColdError:
        return None


def _missing(key: bytes, revision: int) -> CorruptionError:
    return CorruptionError(
        f"no value of {key[:100]!r} at revision {revision}", code=IntegrityCode.INVALID_RECORD
    )


def _lost(now: Standing) -> CorruptionError:
    return CorruptionError(
        f"history from revision {now.compacted} on isn't all there",
        code=IntegrityCode.INVALID_RECORD,
    )
