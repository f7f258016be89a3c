"""Events of keys as a handler of this process follows them, by the hub that serves watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.hub import WatchHub
from kvstore.service.etcd.watch_words import Canceled, Events, WatchRequest
from kvstore.state.mvcc.answers import Event

__all__ = ["follow"]


def _as_it_is(event: Event, prev_kv: bool) -> Event:
    return event


async def follow(
    hub: WatchHub, key: bytes, range_end: bytes, revision: int
) -> AsyncGenerator[tuple[int, Sequence[Event]], None]:
    """Yield the events of a range from ``revision`` on, in order, and the revision that the store
    was at. To be closed (``contextlib.aclosing``): until then the hub keeps events for it.

    Raises EtcdError: COMPACTED where history begins after ``revision``, TOO_MANY_REQUESTS where
    there is no room for a watch, and whatever streams of watches end with.
    """
    due = asyncio.Event()
    endings: list[Error] = []

    def end(error: Error) -> None:
        endings.append(error)
        due.set()

    stream = hub.open(_as_it_is, due.set, end)
    try:
        stream.create(WatchRequest(key, range_end, revision))
        while not endings:
            due.clear()
            messages = stream.take()
            for message in messages:
                if isinstance(message, Events):
                    for chunk in message.chunks:
                        yield message.revision, chunk.pieces
                elif isinstance(message, Canceled):
                    is_late = message.compact_revision > 0
                    raise EtcdError(Reason.COMPACTED if is_late else Reason.TOO_MANY_REQUESTS)
            if not messages:
                await due.wait()
        raise endings[0]
    finally:
        stream.close()
