"""Messages from this member to one other, over two streams, each on a connection of its own.

Entries go by the one, all else by the other: a heartbeat, a vote or an acknowledgement must not
wait behind a megabyte. The two are made and end together. What can't be sent soon is dropped: the
core sends anew what still matters, and says it better.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import grpc
import grpc.aio
import structlog

from kvstore.api.v1 import raft_pb2
from kvstore.errors import Error
from kvstore.raft.messages import Message, MessageKind
from kvstore.replica.packets import Encoder, Packet
from kvstore.server.long_lived import long_lived
from kvstore.server.peers.introductions import (
    Introduction,
    Introductions,
    RefusedPeerError,
    introduced,
    says_removed,
)
from kvstore.server.peers.lane import FrameCall, Lane, LinkCounters
from kvstore.server.peers.noting import judged
from kvstore.server.peers.wire import Dialler

# What is kept for a peer that can't be reached just now: votes and heartbeats, the newest.
UNCONNECTED_MESSAGES_MAX = 16

METHOD = "/kvstore.v1.RaftPeer/Messages"

# Looking up a member of an enum costs ten times as much as a name.
_APPEND = MessageKind.APPEND

CONNECT_TIMEOUT_S = 3.0
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0

log = structlog.get_logger("kvstore.peer")


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """A link at one moment: whether its streams are open, and what it did since it was made."""

    connected: bool
    frames: int
    messages: int
    bytes: int
    dropped: int


class _Exchanged(Exception):
    """Certificates were exchanged: the streams are to be opened anew."""


class PeerLink:
    """One direction to one peer. Used on the event loop's thread only.

    ``lost`` is called with the peer's id when messages were dropped or a stream broke, so that
    the core stops streaming and probes; ``removed`` when the peer says that this member was taken
    out of the cluster; ``failed`` when it ends for a defect.
    """

    def __init__(
        self,
        peer: int,
        address: str,
        introductions: Introductions,
        dialler: Dialler,
        lost: Callable[[int], None],
        removed: Callable[[int], None],
        failed: Callable[[Error], None],
    ) -> None:
        self.peer = peer
        self.address = address
        self.counters = LinkCounters()
        self._introductions = introductions
        self._dialler = dialler
        self._lost = lost
        self._removed = removed
        self._connected = False
        self._closed = False
        self._exchanged = asyncio.Event()
        # APPENDs keep their order, those without entries too: they ask whether others got lost.
        self._entries = Lane(self.counters)
        self._others = Lane(self.counters)
        self._complaint = ""
        self._random = random.Random()
        self._task = long_lived(self._run(), f"peer-link-{peer}", failed)

    @property
    def connected(self) -> bool:
        """Whether the peer has accepted this member's streams."""
        return self._connected

    def figures(self) -> LinkFigures:
        """This moment."""
        counters = self.counters
        return LinkFigures(
            self._connected, counters.frames, counters.messages, counters.bytes, counters.dropped
        )

    def send(self, packet: Packet, encoder: Encoder) -> None:
        """Queue a packet, or drop it."""
        append = isinstance(packet, Message) and packet.kind is _APPEND
        if self._connected:
            lane = self._entries if append else self._others
            if not lane.put(encoder.parts(packet)):
                self._lost(self.peer)
        elif append:
            self.counters.dropped += 1
        else:
            self._others.put(encoder.parts(packet))
            self._others.keep(UNCONNECTED_MESSAGES_MAX)

    def push(self) -> None:
        """Let what was queued in this turn of the member go, where that needs no turn of the loop.

        Not with each packet: those of one turn share a frame.
        """
        self._entries.push()
        self._others.push()

    def redial(self) -> None:
        """Open the streams anew, with the certificates of now."""
        self._exchanged.set()

    async def close(self) -> None:
        """End the streams."""
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Connect, stream until that breaks, wait a little, again."""
        attempts = 0
        while True:
            connects = self.counters.connects
            try:
                await self._stream()
            except RefusedPeerError as error:
                self._complain("refused", str(error))
            except grpc.aio.AioRpcError as error:
                self._complain(_verdict(error.code()), error.details() or error.code().name)
                if says_removed(error.trailing_metadata() or ()):
                    self._removed(self.peer)
            except (TimeoutError, asyncio.InvalidStateError) as error:
                self._complain("unreachable", str(error) or "no answer in time")
            except _Exchanged:
                log.info("certificates were exchanged: dialling again", peer=self.peer)
            except Error as error:
                # What the peer said of itself can't be noted, as on a full disk. It passes.
                self._complain("unreachable", str(error))
            attempts = 0 if self.counters.connects > connects else attempts + 1
            self._disconnected()
            if self._closed:  # whatever became of the cancellation
                return
            # Jitter, so that members that lost each other don't meet in step.
            pause = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempts, 10))
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))

    async def _stream(self) -> None:
        """Both streams from the first knock to the end of one, which is always an error."""
        self._exchanged.clear()
        async with AsyncExitStack() as stack:
            calls = [await self._call(stack) for _ in range(2)]
            for call, said in calls:
                await self._meet(call, said)
            self._accepted()
            others, entries = (call for call, _ in calls)
            await self._pump(self._others.pump(others), self._entries.pump(entries))

    async def _call(self, stack: AsyncExitStack) -> tuple[FrameCall, Introduction]:
        """Knock, over a connection that ends with ``stack``; the stream and what was said on it."""
        channel = await stack.enter_async_context(self._dialler.dial(self.peer, self.address))
        method = channel.stream_unary(
            METHOD,
            request_serializer=None,
            response_deserializer=raft_pb2.MessageFrameReply.FromString,
        )
        said = self._introductions.to(self.peer)
        call: FrameCall = method(metadata=said)  # type: ignore[call-arg]
        stack.callback(call.cancel)
        return call, said

    async def _meet(self, call: FrameCall, said: Introduction) -> None:
        """Wait until the peer has introduced itself. Raises what is wrong with it, or it says."""
        # Not wait_for: in Python 3.11 it loses a cancellation that comes with the answer.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            answer = await call.initial_metadata()
        if not introduced(answer):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await call  # raises why
        judge = partial(self._introductions.judge_called, answer, self.peer, said)
        await judged(self._introductions.registry, judge)

    async def _pump(self, *pumps: Coroutine[None, None, None]) -> None:
        """Pump until a stream ends, or both are to be opened anew; raises which."""
        exchanged = asyncio.create_task(self._exchanged.wait())
        tasks = [*map(asyncio.create_task, pumps), exchanged]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if exchanged in done:
            raise _Exchanged
        for task in done:
            await task

    def _accepted(self) -> None:
        self._connected = True
        self.counters.connects += 1
        self._complaint = ""
        log.info("peer connected", peer=self.peer, address=self.address)

    def _disconnected(self) -> None:
        """Forget what waited: it is old by the time that the peer is back."""
        if not self._connected:
            return
        self._connected = False
        self._entries.keep(0)
        self._others.keep(0)
        self._lost(self.peer)

    def _complain(self, what: str, why: str) -> None:
        """Log a failure once, not at each try."""
        complaint = f"{what}: {why}"
        if complaint != self._complaint or self._connected:
            self._complaint = complaint
            level = log.error if what == "refused" else log.warning
            level(f"peer {what}", peer=self.peer, address=self.address, reason=why)


def _verdict(code: grpc.StatusCode) -> str:
    refusals = (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    )
    return "refused" if code in refusals else "unreachable"
