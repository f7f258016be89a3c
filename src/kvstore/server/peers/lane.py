"""What waits for one stream to a peer, and its way onto it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grpc.aio

from kvstore.api.v1 import raft_pb2
from kvstore.server.peers.frames import FRAME_BYTES, Parts, join

__all__ = ["FrameCall", "Lane", "LinkCounters"]

# Bounds of what waits for a connected peer, beyond what HTTP/2's window has taken.
QUEUE_BYTES_MAX = 32 << 20
QUEUE_MESSAGES_MAX = 8192

FrameCall = grpc.aio.StreamUnaryCall[bytes, raft_pb2.MessageFrameReply]
"""A stream of frames, and how it ended."""


@dataclass(slots=True)
class LinkCounters:
    """What a link did since it was made."""

    frames: int = 0
    messages: int = 0
    bytes: int = 0
    dropped: int = 0
    connects: int = 0


@runtime_checkable
class PromptCall(Protocol):
    """A stream on the native wire (:class:`kvstore.wire.channel_calls.StreamCall`)."""

    on_writable: Callable[[], object] | None

    def try_write(self, message: bytes) -> bool:
        """Send a frame at once. False: the one before it is still here; ``on_writable`` tells."""


class Lane:
    """Packets on their way to one stream, in order. Used on the event loop's thread only.

    A task writes them; on the native wire :meth:`push` does, with no turn of the loop between.
    """

    def __init__(self, counters: LinkCounters) -> None:
        self._counters = counters
        self._waiting: deque[tuple[int, Parts]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._prompt: PromptCall | None = None
        self._held_up = False
        # Put together, but the stream had no room for it.
        self._frame: tuple[bytes, int, int] | None = None

    def put(self, packet: Parts) -> bool:
        """Queue a packet, to be sent soon, or by :meth:`push`; False: there is no room for it."""
        size = sum(map(len, packet))
        if self._bytes + size > QUEUE_BYTES_MAX or len(self._waiting) >= QUEUE_MESSAGES_MAX:
            self._counters.dropped += 1
            return False
        self._waiting.append((size, packet))
        self._bytes += size
        self._wake.set()
        return True

    def keep(self, newest: int) -> None:
        """Drop all but the ``newest``: there is no stream just now."""
        while len(self._waiting) > newest:
            size, _ = self._waiting.popleft()
            self._bytes -= size
            self._counters.dropped += 1

    async def pump(self, call: FrameCall) -> None:
        """Send what is there and what comes, until the stream ends; raises why it did."""
        if isinstance(call, PromptCall):
            await self._push_to(call)
        else:
            await self._write_to(call)
        raise TimeoutError("the peer ended the stream")

    async def _write_to(self, call: FrameCall) -> None:
        call.add_done_callback(lambda _: self._wake.set())
        while not call.done():
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            frame, size, count = self._next_frame()
            await call.write(frame)
            self._count(size, count)
        await call

    async def _push_to(self, call: Any) -> None:
        self._prompt = call
        call.on_writable = self._go_on
        try:
            self.push()
            await call
        finally:
            self._prompt = call.on_writable = None
            self._held_up = False
            self._frame = None

    def push(self) -> None:
        """Send what waits, as far as the stream takes it at once."""
        prompt = self._prompt
        while prompt is not None and not self._held_up and (self._frame or self._waiting):
            frame, size, count = self._frame or self._next_frame()
            if prompt.try_write(frame):
                self._frame = None
                self._count(size, count)
            else:
                self._frame = frame, size, count
                self._held_up = True

    def _go_on(self) -> None:
        self._held_up = False
        self.push()

    def _count(self, size: int, count: int) -> None:
        self._counters.frames += 1
        self._counters.messages += count
        self._counters.bytes += size

    def _next_frame(self) -> tuple[bytes, int, int]:
        """A frame of one packet at least, the packets' bytes, and how many they are."""
        waiting = self._waiting
        size, packet = waiting.popleft()
        packets = [packet]
        while waiting and size + waiting[0][0] <= FRAME_BYTES:
            more, packet = waiting.popleft()
            size += more
            packets.append(packet)
        self._bytes -= size
        return join(packets), size, len(packets)
