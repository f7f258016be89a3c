"""``etcdserverpb.Watch``: a stream of requests, and one of what its watches see.

A message is put together of parts that are encoded apart: the header, the watch's id, and events,
which all streams share that send them in the same wording.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NoReturn, Protocol

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.auth_gate import Gate, unreadable
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.translate import header_message
from kvstore.etcd_errors import EtcdError
from kvstore.service.etcd.header import Header
from kvstore.service.etcd.hub import WatchHub
from kvstore.service.etcd.watch_stream import Watch, WatchStream
from kvstore.service.etcd.watch_words import (
    Canceled,
    Created,
    Events,
    Message,
    WatchRequest,
)
from kvstore.state.mvcc.answers import Event, KeyValue
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.requests import TO_THE_END

__all__ = ["WatchHandlers", "Wording", "event_message"]

HEADS_MAX: Final = 64
"""Headers that are kept, for the streams that send the same one."""

_NO_PUTS: Final = pb.WatchCreateRequest.NOPUT
_NO_DELETES: Final = pb.WatchCreateRequest.NODELETE
_DELETE: Final = pb.Event.DELETE


class Wording(Protocol):
    """How a call's messages look. A call that has none of its own (``wording`` of its context) gets
    protobuf's."""

    def event(self, event: Event, prev_kv: bool) -> bytes:
        """An event, as a part of a message: it is the same for all who have the same wording, which
        says so by being the same function."""

    def message(self, head: bytes, events: Sequence[bytes]) -> bytes:
        """What goes out: all but the events, encoded, and the events, one after the other."""


class _Binary:
    """Fields of one protobuf message may follow each other in any number of pieces."""

    @staticmethod
    def event(event: Event, prev_kv: bool) -> bytes:
        return pb.WatchResponse(events=[event_message(event, prev_kv)]).SerializeToString()

    @staticmethod
    def message(head: bytes, events: Sequence[bytes]) -> bytes:
        return b"".join((head, *events))


def event_message(event: Event, prev_kv: bool) -> pb.Event:
    """An event, with what the key was before where that is wanted."""
    message = pb.Event()
    if event.is_delete:
        message.type = _DELETE
    _fill(message.kv, event.kv)
    if prev_kv and event.previous is not None:
        _fill(message.prev_kv, event.previous)
    return message


def _fill(message: pb.KeyValue, kv: KeyValue) -> None:
    (
        message.key,
        message.create_revision,
        message.mod_revision,
        message.version,
        message.value,
        message.lease,
    ) = kv


class WatchHandlers:
    """Serves Watch on a hub. On a running event loop."""

    def __init__(self, hub: WatchHub, header: Callable[[], Header], gate: Gate) -> None:
        """``gate``: who may watch what."""
        self._hub = hub
        self._header = header
        self._gate = gate
        self._heads: dict[tuple[int, Header], bytes] = {}

    async def Watch(self, requests: AsyncIterator[pb.WatchRequest], context: Context) -> NoReturn:
        """Ends with an error alone, whatever the client does: see the specification, §5.3."""
        wording: Wording = getattr(context, "wording", _Binary)
        call = _Call(self._hub, context, self._gate, wording)
        try:
            call.listen(requests)
            while True:
                messages = await call.next()
                await _write(context, [self._bytes_of(message, wording) for message in messages])
        finally:
            call.close()

    def _bytes_of(self, message: Message, wording: Wording) -> bytes:
        revision = message.revision
        parts = [self._head(revision), _id(message.watch_id)]
        events: list[bytes] = []
        match message:
            case Events(chunks=chunks, fragment=fragment):
                if fragment:
                    parts.append(_FRAGMENT)
                events = [chunk.joined() for chunk in chunks]
            case Created():
                parts.append(_CREATED)
            case Canceled(_, _, compact_revision, reason, created):
                canceled = pb.WatchResponse(
                    created=created,
                    canceled=True,
                    compact_revision=compact_revision,
                    cancel_reason=reason,
                )
                parts.append(canceled.SerializeToString())
        return wording.message(b"".join(parts), events)

    def _head(self, revision: int) -> bytes:
        header = self._header()
        head = self._heads.get((revision, header))
        if head is None:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            message = pb.WatchResponse(header=header_message(header, revision))
            head = self._heads[revision, header] = message.SerializeToString()
        return head


class _Call:
    """A stream's two halves: requests in by a task of its own, messages out.

    Its watches end when its caller may not read any more what they are of.
    """

    def __init__(self, hub: WatchHub, context: Context, gate: Gate, wording: Wording) -> None:
        self._gate = gate
        self._caller = gate.caller(context)
        self._lasting = gate.keep(self._caller, self._judge)
        # Something is to be sent, or it is to end; and requests are to be taken again.
        self._due = asyncio.Event()
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self._listening: asyncio.Task[None] | None = None
        self._stream: WatchStream = hub.open(wording.event, self._due.set, self._end)

    def listen(self, requests: AsyncIterator[pb.WatchRequest]) -> None:
        """Take requests from now on."""
        self._listening = asyncio.create_task(self._listen(requests))
        self._listening.add_done_callback(self._listened)

    async def next(self) -> Sequence[Message]:
        """What is to be sent next. Raises what the stream is to end with."""
        while self._error is None:
            self._due.clear()
            messages = self._stream.take()
            self._room.set()
            if messages:
                return messages
            await self._due.wait()
        raise self._error

    def close(self) -> None:
        """It is gone."""
        self._lasting.end()
        self._stream.close()
        if self._listening is not None:
            self._listening.cancel()

    async def _listen(self, requests: AsyncIterator[pb.WatchRequest]) -> None:
        # When no more requests come the watches go on.
        async for request in requests:
            await self._take(request)
            while self._stream.is_congested:
                self._room.clear()
                await self._room.wait()

    def _listened(self, listening: asyncio.Task[None]) -> None:
        if not listening.cancelled() and (error := listening.exception()) is not None:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._due.set()

    async def _take(self, request: pb.WatchRequest) -> None:
        match request.WhichOneof("request_union"):
            case "create_request":
                await self._create(request.create_request)
            case "cancel_request":
                self._stream.cancel(request.cancel_request.watch_id)
            case "progress_request":
                self._stream.request_progress()
            # Another one is of a later version of the protocol, or of none.

    async def _create(self, request: pb.WatchCreateRequest) -> None:
        auth = self._gate.auth
        if auth is not None and auth.enabled:
            auth = await self._gate.known(self._caller)
            # An empty key stands for the first of all. The range's end is judged as it came.
            refused = unreadable(auth, self._caller, request.key or b"\0", request.range_end)
            if refused is not None:
                self._stream.refuse(_go_error(refused))
                return
        self._stream.create(
            WatchRequest(
                request.key,
                request.range_end,
                request.start_revision,
                request.prev_kv,
                _NO_PUTS in request.filters,
                _NO_DELETES in request.filters,
                request.watch_id,
                request.progress_notify,
                request.fragment,
            )
        )

    def _judge(self, auth: Auth) -> None:
        """Users have changed: end what the caller may not read any more."""
        for watch_id, watch in [*self._stream.watches.items()]:
            refused = unreadable(auth, self._caller, *_range_of(watch))
            if refused is not None:
                self._stream.cancel(watch_id, _go_error(refused))


def _range_of(watch: Watch) -> tuple[bytes, bytes]:
    """What is watched, as a key and a range's end."""
    place = watch.topic.place
    if place.end == place.start + b"\0":
        return place.start, b""
    return place.start, TO_THE_END if place.end is None else place.end


async def _write(context: Context, messages: Sequence[bytes]) -> None:
    """Send them; returns when the connection took them."""
    write_all = getattr(context, "write_all", None)
    if write_all is not None:
        await write_all(messages)
        return
    for message in messages:
        await context.write(message)


def _go_error(error: EtcdError) -> str:
    """As gRPC for Go puts a status into words, which is what a reason is in etcd."""
    name = "".join(word.capitalize() for word in error.reason.code.split("_"))
    return f"rpc error: code = {name} desc = {error.reason.text}"


def _id(watch_id: int) -> bytes:
    return pb.WatchResponse(watch_id=watch_id).SerializeToString()


_CREATED: Final = pb.WatchResponse(created=True).SerializeToString()
_FRAGMENT: Final = pb.WatchResponse(fragment=True).SerializeToString()
