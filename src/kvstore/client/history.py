"""The past: all that is remembered of one key, and forgetting it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from kvstore.api.etcd import etcd_pb2
from kvstore.client.calls import Calls
from kvstore.client.entries import Event, EventKind, entry_of
from kvstore.client.keys import KeyRange
from kvstore.client.options import checked_timeout
from kvstore.client.requests import as_revision
from kvstore.client.watch_stream import Subscription, WatchStream
from kvstore.client.watching import watch_request
from kvstore.errors import CompactedError, DeadlineExceededError, Outcome

__all__ = ["compact", "history"]

# A server that isn't up to date drops the question: it is asked again so often.
ASK_AGAIN_S: Final = 0.25


async def compact(calls: Calls, revision: int, physical: bool, timeout: float | None) -> None:
    """Forget history before ``revision``."""
    request = etcd_pb2.CompactionRequest(revision=as_revision(revision), physical=physical)
    try:
        await calls.write_again(lambda server: server.etcd.compact, request, timeout)
    except CompactedError as error:
        # After a try whose answer was lost it is forgotten because of that.
        if error.outcome is not Outcome.UNKNOWN:
            raise


async def history(
    calls: Calls, keys: KeyRange, timeout: float | None
) -> AsyncGenerator[Event, None]:
    """Yield a key's changes; see :meth:`kvstore.Client.history`."""
    timeout = checked_timeout(timeout, calls.timeout)
    newest = await calls.call(
        lambda server: server.etcd.range, etcd_pb2.RangeRequest(key=keys.key), timeout
    )
    # The key's last change; without the key it may be anything up to now.
    known = bool(newest.kvs)
    last = newest.kvs[0].mod_revision if known else newest.header.revision
    # A stream of its own: it can be told to be up to date only when all its watches are.
    stream = WatchStream(calls)
    try:
        start, seen = 1, 0
        while seen < last:
            try:
                async for event in _changes(stream, keys, start, last, known, timeout):
                    if event.revision > seen:
                        seen = event.revision
                        yield event
                return
            except CompactedError as error:
                if error.oldest <= start:
                    raise
                start = error.oldest
            oldest = await _as_of(calls, keys, start, timeout)
            if oldest is not None and oldest.revision > seen:
                seen = oldest.revision
                yield oldest
    finally:
        await stream.close()


async def _as_of(calls: Calls, keys: KeyRange, oldest: int, timeout: float) -> Event | None:
    """The key's last change before history begins, if it was there then."""
    request = etcd_pb2.RangeRequest(key=keys.key, revision=oldest)
    answer = await calls.call(lambda server: server.etcd.range, request, timeout)
    for message in answer.kvs:
        if message.mod_revision < oldest:
            return Event(EventKind.PUT, entry_of(message))
    return None


async def _changes(
    stream: WatchStream, keys: KeyRange, start: int, last: int, known: bool, timeout: float
) -> AsyncGenerator[Event, None]:
    """Those from ``start`` to ``last``, which is ``known`` to be one, or the end of the search."""
    request = watch_request(keys, start, previous=False, puts=True, deletes=True)
    subscription = Subscription(request)
    await stream.begin(subscription, timeout)
    end = asyncio.get_running_loop().time() + timeout
    try:
        while True:
            if not known:
                stream.ask_progress()
            try:
                async with asyncio.timeout(ASK_AGAIN_S):
                    delivery = await stream.take(subscription)
            except TimeoutError:
                if asyncio.get_running_loop().time() > end:
                    raise DeadlineExceededError(f"no answer within {timeout:g} s") from None
                continue
            for event in delivery.events:
                if event.revision > last:
                    return
                yield event
            if delivery.revision >= last and (delivery.events or not known):
                return
            end = asyncio.get_running_loop().time() + timeout
    finally:
        stream.end(subscription)
