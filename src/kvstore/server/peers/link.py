"""Messages from this member to one other, over one stream at a time.

What can't be sent soon is dropped: the core sends anew what still matters, and says it better.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import grpc
import grpc.aio
import structlog

from kvstore.api.v1 import raft_pb2, raft_pb2_grpc
from kvstore.errors import Error
from kvstore.raft.messages import Message
from kvstore.replica.packets import Packet, encode_packet
from kvstore.server.long_lived import long_lived
from kvstore.server.peers.frames import FRAME_BYTES, join
from kvstore.server.peers.introductions import (
    Introductions,
    RefusedPeerError,
    introduced,
    says_removed,
)
from kvstore.server.peers.listener import CHANNEL_OPTIONS
from kvstore.server.peers.names import member_name
from kvstore.server.peers.noting import judged
from kvstore.server.tls.certificate_files import CertificateFiles

# Bounds of what waits for a connected peer, beyond what HTTP/2's window has taken.
QUEUE_BYTES_MAX = 32 << 20
QUEUE_MESSAGES_MAX = 8192

# What is kept for a peer that can't be reached just now: votes and heartbeats, the newest.
UNCONNECTED_MESSAGES_MAX = 16

CONNECT_TIMEOUT_S = 3.0
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0

log = structlog.get_logger("kvstore.peer")


@dataclass(slots=True)
class LinkCounters:
    """What a link did since it was made."""

    frames: int = 0
    messages: int = 0
    bytes: int = 0
    dropped: int = 0
    connects: int = 0


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """A link at one moment: whether its stream is open, and what it did since it was made."""

    connected: bool
    frames: int
    messages: int
    bytes: int
    dropped: int


class _Exchanged(Exception):
    """Certificates were exchanged: the stream is to be opened anew."""


class Dialler:
    """Makes channels to members, with what their certificates must say."""

    def __init__(self, cluster_id: str, certificates: CertificateFiles | None) -> None:
        self._cluster_id = cluster_id
        self._certificates = certificates

    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        """A channel to a member; with TLS, nobody else can answer on it."""
        if self._certificates is None:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        name = member_name(self._cluster_id, member)
        return grpc.aio.secure_channel(
            address,
            self._certificates.channel_credentials(),
            options=[*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name)],
        )


class PeerLink:
    """One direction to one peer. Used on the event loop's thread only.

    ``lost`` is called with the peer's id when messages were dropped or the stream broke, so that
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
        self._exchanged = False
        # Packets without entries overtake those with: a heartbeat must not wait behind a megabyte.
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._complaint = ""
        self._random = random.Random()
        self._task = long_lived(self._run(), f"peer-link-{peer}", failed)

    @property
    def connected(self) -> bool:
        """Whether the peer has accepted this member's stream."""
        return self._connected

    def figures(self) -> LinkFigures:
        """This moment."""
        counters = self.counters
        return LinkFigures(
            self._connected, counters.frames, counters.messages, counters.bytes, counters.dropped
        )

    def send(self, packet: Packet) -> None:
        """Queue a packet, or drop it."""
        bulk = isinstance(packet, Message) and bool(packet.entries)
        if not self._connected:
            if not bulk:
                self._urgent.append(encode_packet(packet))
                if len(self._urgent) > UNCONNECTED_MESSAGES_MAX:
                    self._urgent.popleft()
                    self.counters.dropped += 1
            else:
                self.counters.dropped += 1
            return
        payload = encode_packet(packet)
        if (
            self._queued_bytes + len(payload) > QUEUE_BYTES_MAX
            or len(self._urgent) + len(self._bulk) >= QUEUE_MESSAGES_MAX
        ):
            self.counters.dropped += 1
            self._lost(self.peer)
            return
        (self._bulk if bulk else self._urgent).append(payload)
        self._queued_bytes += len(payload)
        self._wake.set()

    def redial(self) -> None:
        """Open the stream anew, with the certificates of now."""
        self._exchanged = True
        self._wake.set()

    async def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Connect, stream until it breaks, wait a little, again."""
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
        """One stream from the first knock to its end, which is always an error."""
        self._exchanged = False
        async with self._dialler.dial(self.peer, self.address) as channel:
            stub: raft_pb2_grpc.RaftPeerAsyncStub = raft_pb2_grpc.RaftPeerStub(channel)  # type: ignore[assignment]
            metadata = self._introductions.to(self.peer)
            call = stub.Messages(metadata=metadata)  # type: ignore[call-arg]
            call.add_done_callback(lambda _: self._wake.set())
            try:
                # Not wait_for: in Python 3.11 it loses a cancellation that comes with the answer.
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    answer = await call.initial_metadata()
                if not introduced(answer):
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await call  # raises why
                judge = partial(self._introductions.judge_called, answer, self.peer, metadata)
                await judged(self._introductions.registry, judge)
                self._accepted()
                await self._pump(call)
            finally:
                call.cancel()

    async def _pump(
        self, call: grpc.aio.StreamUnaryCall[raft_pb2.MessageFrame, raft_pb2.MessageFrameReply]
    ) -> None:
        while not call.done():
            if self._exchanged:
                raise _Exchanged
            if not self._urgent and not self._bulk:
                self._wake.clear()
                await self._wake.wait()
                continue
            payloads = self._take()
            frame = raft_pb2.MessageFrame(messages=join(payloads))
            await call.write(frame)
            self.counters.frames += 1
            self.counters.messages += len(payloads)
            self.counters.bytes += sum(map(len, payloads))
        await call  # raises what ended it
        raise TimeoutError("the peer ended the stream")

    def _take(self) -> list[bytes]:
        """What the next frame holds, at least one message."""
        payloads: list[bytes] = []
        size = 0
        for queue in (self._urgent, self._bulk):
            while queue and (not payloads or size + len(queue[0]) <= FRAME_BYTES):
                payload = queue.popleft()
                size += len(payload)
                payloads.append(payload)
        self._queued_bytes -= size
        return payloads

    def _accepted(self) -> None:
        self._connected = True
        self._queued_bytes = sum(map(len, self._urgent))
        self.counters.connects += 1
        self._complaint = ""
        log.info("peer connected", peer=self.peer, address=self.address)

    def _disconnected(self) -> None:
        """Forget what waited: it is old by the time that the peer is back."""
        if not self._connected:
            return
        self._connected = False
        self.counters.dropped += len(self._urgent) + len(self._bulk)
        self._urgent.clear()
        self._bulk.clear()
        self._queued_bytes = 0
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
