"""Ranges of keys, read in pages that all show one revision."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from kvstore.api.etcd import etcd_pb2
from kvstore.client.background import Runner
from kvstore.client.calls import Calls
from kvstore.client.entries import KeyValue, entry_of
from kvstore.client.keys import KeyRange
from kvstore.client.requests import NUMBER_MAX, as_revision
from kvstore.errors import InvalidArgumentError, OverloadedError, TooLargeError

__all__ = ["PAGE_KEYS", "AsyncRange", "Range", "Selection", "count"]

T = TypeVar("T")

# Keys of a page at most, unless a caller wants others.
PAGE_KEYS = 1000

# Keys that are asked for first, knowing nothing of their values' size: of 1 MiB each they fit into
# one answer.
FIRST_KEYS = 32

# Keys and values of a page, as far as those before tell.
PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be read. ``revision`` of 0 is the newest, ``limit`` None: all. ``serializable``:
    as the member has it that answers, maybe late."""

    keys: KeyRange
    revision: int = 0
    limit: int | None = None
    keys_only: bool = False
    reverse: bool = False
    serializable: bool = False
    page: int = PAGE_KEYS

    def __post_init__(self) -> None:
        if not 1 <= self.page <= NUMBER_MAX:
            raise InvalidArgumentError(f"a page has at least one key, not {self.page}")
        if self.limit is not None and self.limit < 0:
            raise InvalidArgumentError(f"a limit is 0 or more, not {self.limit}")
        as_revision(self.revision)


class Place:
    """How far a range was read. No I/O here."""

    def __init__(self, selection: Selection) -> None:
        self._wanted = selection
        self._keys = selection.keys
        self._left = selection.limit
        self._ask = selection.page if selection.keys_only else min(FIRST_KEYS, selection.page)
        self.revision = selection.revision
        self.done = selection.limit == 0

    def request(self) -> etcd_pb2.RangeRequest:
        """The next page."""
        descending = etcd_pb2.RangeRequest.DESCEND
        return etcd_pb2.RangeRequest(
            key=self._keys.key,
            range_end=self._keys.end,
            limit=self._ask if self._left is None else min(self._ask, self._left),
            revision=self.revision,
            sort_order=descending if self._wanted.reverse else etcd_pb2.RangeRequest.NONE,
            serializable=self._wanted.serializable,
            keys_only=self._wanted.keys_only,
        )

    def smaller(self) -> bool:
        """The page was too large: ask for less; False: less there is not."""
        if self._ask == 1:
            return False
        self._ask = max(1, self._ask // 4)
        return True

    def came(self, response: etcd_pb2.RangeResponse) -> tuple[KeyValue, ...]:
        """A page's keys."""
        self.revision = self.revision or response.header.revision
        page = tuple(map(entry_of, response.kvs))
        if self._left is not None:
            self._left -= len(page)
        self.done = not response.more or not page or self._left == 0
        if not self.done:
            last = page[-1].key
            if self._wanted.reverse:
                self._keys = KeyRange(self._keys.key, last)
            else:
                self._keys = KeyRange(last + b"\0", self._keys.end)
            largest = max(len(entry.key) + len(entry.value) for entry in page)
            self._ask = max(1, min(self._wanted.page, PAGE_BYTES // largest, 8 * len(page)))
        return page


async def read_page(calls: Calls, place: Place, timeout: float | None) -> tuple[KeyValue, ...]:
    """The next page: smaller ones where the server or the wire find it too large."""
    while True:
        try:
            request = place.request()
            response = await calls.call(lambda server: server.etcd.range, request, timeout)
            return place.came(response)
        except (TooLargeError, OverloadedError):
            if not place.smaller():
                raise


async def count(calls: Calls, keys: KeyRange, revision: int, timeout: float | None) -> int:
    """How many keys there are."""
    request = etcd_pb2.RangeRequest(
        key=keys.key, range_end=keys.end, revision=as_revision(revision), count_only=True
    )
    return (await calls.call(lambda server: server.etcd.range, request, timeout)).count


class AsyncRange:
    """Keys and values in order, as they were at one revision; see :meth:`kvstore.Client.range`.

    It may be iterated any number of times; each time it is read anew, at the revision that the
    first time found.
    """

    def __init__(self, calls: Calls, selection: Selection, timeout: float | None) -> None:
        self._calls = calls
        self._selection = selection
        self._timeout = timeout
        self.revision = selection.revision
        """What is read: 0 until the first page came, unless it was chosen."""

    async def pages(self) -> AsyncIterator[tuple[KeyValue, ...]]:
        """Yield it page by page."""
        place = self.place()
        while not place.done:
            page = await self.next_page(place)
            yield page

    async def __aiter__(self) -> AsyncIterator[KeyValue]:
        place = self.place()
        while not place.done:
            for entry in await self.next_page(place):
                yield entry

    async def list(self) -> list[KeyValue]:
        """All of it."""
        return [entry async for entry in self]

    def place(self) -> Place:
        """Where reading begins."""
        place = Place(self._selection)
        place.revision = self.revision
        return place

    async def next_page(self, place: Place) -> tuple[KeyValue, ...]:
        """Read on."""
        page = await read_page(self._calls, place, self._timeout)
        self.revision = place.revision
        return page


class Range:
    """The same for threads; see :meth:`kvstore.Client.range`."""

    def __init__(self, runner: Runner, keys: AsyncRange) -> None:
        self._run = runner
        self._keys = keys

    @property
    def revision(self) -> int:
        """What is read: 0 until the first page came, unless it was chosen."""
        return self._keys.revision

    def pages(self) -> Iterator[tuple[KeyValue, ...]]:
        """Yield it page by page."""
        place = self._keys.place()
        while not place.done:
            yield self._run(self._keys.next_page(place))

    def __iter__(self) -> Iterator[KeyValue]:
        for page in self.pages():
            yield from page

    def list(self) -> list[KeyValue]:
        """All of it."""
        return [*self]
