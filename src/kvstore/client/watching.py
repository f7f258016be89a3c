"""Watches: changes of keys as they come, in order, each once, whatever becomes of servers."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

from kvstore.api.etcd import etcd_pb2
from kvstore.client.background import Runner
from kvstore.client.entries import Event
from kvstore.client.keys import KeyRange
from kvstore.client.requests import as_revision
from kvstore.client.watch_position import Batch, Delivery, Unpacking
from kvstore.client.watch_stream import Subscription, WatchStream
from kvstore.errors import ClosedError, DeadlineExceededError, InvalidArgumentError

__all__ = ["AsyncWatch", "Watch", "watch_request"]


def watch_request(
    keys: KeyRange, revision: int, *, previous: bool, puts: bool, deletes: bool
) -> etcd_pb2.WatchCreateRequest:
    """What is asked of a server. Raises InvalidArgumentError."""
    if not (puts or deletes):
        raise InvalidArgumentError("a watch without puts and without deletes sees nothing")
    filters = []
    if not puts:
        filters.append(etcd_pb2.WatchCreateRequest.NOPUT)
    if not deletes:
        filters.append(etcd_pb2.WatchCreateRequest.NODELETE)
    return etcd_pb2.WatchCreateRequest(
        key=keys.key,
        range_end=keys.end,
        start_revision=as_revision(revision),
        prev_kv=previous,
        filters=filters,
        progress_notify=True,
        fragment=True,
    )


class AsyncWatch:
    """Changes of keys; see :meth:`kvstore.Client.watch`. For one task at a time.

    >>> async with client.watch(prefix=b"jobs/") as changes:
    ...     async for event in changes:
    ...         print(event.kind, event.key, event.value)
    """

    def __init__(
        self, stream: WatchStream, request: etcd_pb2.WatchCreateRequest, timeout: float
    ) -> None:
        self._stream = stream
        self._subscription = Subscription(request)
        self._timeout = timeout
        self._started = False
        self._closed = False
        self._unpacking = Unpacking()
        self._finalizer: weakref.finalize[..., object] | None = None

    @property
    def revision(self) -> int:
        """All changes up to here were handed out; 0 before it began."""
        return self._unpacking.revision

    async def start(self) -> Self:
        """Begin: from here on no change is missed. Leaving it out, the first event begins it.

        Raises CompactedError, PermissionDeniedError, UnavailableError (no server took it within the
        client's timeout), and as calls do.
        """
        if not self._started:
            if self._closed:
                raise ClosedError("the watch was closed")
            await self._stream.begin(self._subscription, self._timeout)
            self._started = True
            self._unpacking.revision = self._subscription.first - 1
            self._finalizer = weakref.finalize(
                self, _forget, asyncio.get_running_loop(), self._stream, self._subscription
            )
            self._finalizer.atexit = False
        return self

    async def next(self, timeout: float | None = None) -> Event | None:
        """The next change; None when ``timeout`` seconds have passed without one.

        Raises CompactedError when it was so slow that history is gone, ClosedError, and what a
        server refuses it with.
        """
        return await _next(self._unpacking, self.delivery, timeout)

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield all changes of a revision at once, those of a transaction together.

        One without events says that there were none up to its revision; servers say so now and
        then, and when they are asked by :meth:`ask_progress`.
        """
        while True:
            while (batch := self._unpacking.batch()) is not None:
                yield batch
            try:
                self._unpacking.add(await self.delivery())
            except ClosedError:
                if self._closed:
                    return
                raise

    async def delivery(self) -> Delivery:
        """What comes next, as it comes."""
        await self.start()
        return await self._stream.take(self._subscription)

    async def ask_progress(self) -> None:
        """Ask how far it is: :meth:`batches` yields one without events, once it is up to date."""
        await self.start()
        self._stream.ask_progress()

    async def close(self) -> None:
        """End it; iterating it ends."""
        self._closed = True
        if self._finalizer is not None:
            self._finalizer.detach()
        self._stream.end(self._subscription)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self._unpacking.event()) is None:
            try:
                self._unpacking.add(await self.delivery())
            except ClosedError:
                if self._closed:
                    raise StopAsyncIteration from None
                raise
        return event

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Watch:
    """Changes of keys; see :meth:`kvstore.Client.watch`. For one thread at a time, but that any
    may close it.

    >>> with client.watch(prefix=b"jobs/") as changes:
    ...     for event in changes:
    ...         print(event.kind, event.key, event.value)
    """

    def __init__(self, run: Runner, watch: AsyncWatch) -> None:
        self._run = run
        self._watch = watch
        self._closed = False
        self._unpacking = Unpacking()

    @property
    def revision(self) -> int:
        """All changes up to here were handed out; 0 before it began."""
        return max(self._unpacking.revision, self._watch.revision)

    def start(self) -> Self:
        """Begin: from here on no change is missed. Leaving it out, the first event begins it.

        Raises CompactedError, PermissionDeniedError, UnavailableError (no server took it within the
        client's timeout), and as calls do.
        """
        self._run(self._watch.start())
        return self

    def next(self, timeout: float | None = None) -> Event | None:
        """The next change; None when ``timeout`` seconds have passed without one.

        Raises CompactedError when it was so slow that history is gone, ClosedError, and what a
        server refuses it with.
        """
        event = self._unpacking.event()
        if event is None:
            event = self._run(_next(self._unpacking, self._watch.delivery, timeout))
        return event

    def batches(self) -> Iterator[Batch]:
        """Yield all changes of a revision at once, those of a transaction together.

        One without events says that there were none up to its revision; servers say so now and
        then, and when they are asked by :meth:`ask_progress`.
        """
        while True:
            while (batch := self._unpacking.batch()) is not None:
                yield batch
            if not self._more():
                return

    def ask_progress(self) -> None:
        """Ask how far it is: :meth:`batches` yields one without events, once it is up to date."""
        self._run(self._watch.ask_progress())

    def close(self) -> None:
        """End it; iterating it ends, in whichever thread."""
        self._closed = True
        self._run(self._watch.close())

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while (event := self._unpacking.event()) is None:
            if not self._more():
                raise StopIteration
        return event

    def _more(self) -> bool:
        """Wait for what comes; False: it was closed."""
        try:
            self._unpacking.add(self._run(self._watch.delivery()))
        except ClosedError:
            if self._closed:
                return False
            raise
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ClosedError):
            self.close()


async def _next(
    unpacking: Unpacking, more: Callable[[], Awaitable[Delivery]], timeout: float | None
) -> Event | None:
    try:
        async with asyncio.timeout(timeout):
            while (event := unpacking.event()) is None:
                unpacking.add(await more())
            return event
    except DeadlineExceededError:
        raise  # of its beginning
    except TimeoutError:
        return None


def _forget(
    loop: asyncio.AbstractEventLoop, stream: WatchStream, subscription: Subscription
) -> None:
    """Of a watch that nobody uses any more, and nobody closed; in whichever thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the stream
        loop.call_soon_threadsafe(stream.end, subscription)
