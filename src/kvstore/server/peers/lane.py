"""What waits for one stream to a peer, and its way onto it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

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


class Lane:
    """Packets on their way to one stream, in order. Used on the event loop's thread only."""

    def __init__(self, counters: LinkCounters) -> None:
        self._counters = counters
        self._waiting: deque[tuple[int, Parts]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    def put(self, packet: Parts) -> bool:
        """Queue a packet; False: it found no room and is dropped."""
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
        call.add_done_callback(lambda _: self._wake.set())
        while not call.done():
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            size, packets = self._take()
            await call.write(join(packets))
            self._counters.frames += 1
            self._counters.messages += len(packets)
            self._counters.bytes += size
        await call
        raise TimeoutError("the peer ended the stream")

    def _take(self) -> tuple[int, list[Parts]]:
        """What the next frame holds, at least one packet."""
        waiting = self._waiting
        size, packet = waiting.popleft()
        packets = [packet]
        while waiting and size + waiting[0][0] <= FRAME_BYTES:
            more, packet = waiting.popleft()
            size += more
            packets.append(packet)
        self._bytes -= size
        return size, packets
