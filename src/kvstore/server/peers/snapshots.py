"""Chunks of snapshots on their way to one peer: a connection of their own, and no faster than told.

A snapshot is many megabytes that nobody waits for. On the stream of messages it would stand before
heartbeats; without a limit it would take the disk and the network from those who wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

import grpc
import grpc.aio
import structlog

from kvstore._engine.primitives.native import crc32c
from kvstore.api.v1 import raft_pb2, raft_pb2_grpc
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.raft.codec import decode_snapshot_meta, encode_snapshot_meta
from kvstore.replica.packets import SnapshotPart
from kvstore.server.peers.introductions import Introductions, RefusedPeerError, introduced
from kvstore.server.peers.link import CONNECT_TIMEOUT_S
from kvstore.server.peers.noting import judged
from kvstore.server.peers.wire import Dialler

# Chunks that wait. The sender offers few at a time and offers again what was dropped.
QUEUE_PARTS_MAX = 64

# A connection without chunks for this long is closed.
IDLE_S = 10.0

PROGRESS_LOG_INTERVAL_S = 5.0

log = structlog.get_logger("kvstore.snapshot")


class SnapshotLane:
    """Takes chunks for one peer and sends them at ``bytes_per_s`` at most.

    Connects when there is something to send. Used on the event loop's thread only.
    """

    def __init__(
        self,
        peer: int,
        address: str,
        introductions: Introductions,
        dialler: Dialler,
        bytes_per_s: int,
    ) -> None:
        self.sent_bytes = 0
        self._peer = peer
        self._address = address
        self._introductions = introductions
        self._dialler = dialler
        self._bytes_per_s = bytes_per_s
        self._parts: deque[SnapshotPart] = deque()
        # What is being sent or was sent last, until the limit allows the next.
        self._sending: tuple[int, int, int] | None = None
        self._wake = asyncio.Event()
        self._logged = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def send(self, part: SnapshotPart) -> None:
        """Queue a chunk, or drop it.

        One that waits or is being sent already is not sent again: its answer is only late because
        of the limit.
        """
        place = _place(part)
        if len(self._parts) >= QUEUE_PARTS_MAX or place == self._sending:
            return
        if any(_place(waiting) == place for waiting in self._parts):
            return
        self._parts.append(part)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"peer-snapshot-{self._peer}")

    async def close(self) -> None:
        """End the stream, in the middle of a snapshot if need be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """One stream, until it is idle or breaks; what waits is dropped then."""
        try:
            async with self._dialler.dial(self._peer, self._address) as channel:
                await self._stream(channel)
        except (grpc.aio.AioRpcError, RefusedPeerError, TimeoutError) as error:
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            log.warning("snapshot interrupted", peer=self._peer, reason=reason)
        except asyncio.InvalidStateError:
            log.warning("snapshot interrupted", peer=self._peer, reason="the stream ended")
        except StorageError as error:
            log.warning("snapshot interrupted", peer=self._peer, reason=str(error))
        finally:
            self._parts.clear()
            self._sending = None

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        stub: raft_pb2_grpc.RaftPeerAsyncStub = raft_pb2_grpc.RaftPeerStub(channel)  # type: ignore[assignment]
        metadata = self._introductions.to(self._peer)
        call = stub.InstallSnapshot(metadata=metadata)  # type: ignore[call-arg]
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes with the answer.
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                answer = await call.initial_metadata()
            if not introduced(answer):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await call  # raises why
            judge = partial(self._introductions.judge_called, answer, self._peer, metadata)
            await judged(self._introductions.registry, judge)
            while await self._has_parts():
                part = self._parts.popleft()
                self._sending = _place(part)
                await call.write(to_request(part, self._introductions.identity.cluster_id))
                self.sent_bytes += len(part.data)
                self._log_progress(part)
                await asyncio.sleep(len(part.data) / self._bytes_per_s)
                self._sending = None
            await call.done_writing()
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await call
        finally:
            call.cancel()

    async def _has_parts(self) -> bool:
        """Wait for a chunk; False when none came for a while."""
        if self._parts:
            return True
        self._wake.clear()
        try:
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _log_progress(self, part: SnapshotPart) -> None:
        now = asyncio.get_running_loop().time()
        end = part.offset + len(part.data)
        if now - self._logged >= PROGRESS_LOG_INTERVAL_S or end == part.total:
            self._logged = now
            log.info(
                "snapshot sent",
                peer=self._peer,
                index=part.meta.index,
                bytes=end,
                of=part.total,
                percent=100 * end // max(part.total, 1),
            )


def _place(part: SnapshotPart) -> tuple[int, int, int]:
    return part.meta.index, part.meta.term, part.offset


def to_request(part: SnapshotPart, cluster_id: str) -> raft_pb2.InstallSnapshotRequest:
    """The wire form of a chunk (figure 13 of the paper, and a checksum)."""
    mark = encode_snapshot_meta(part.meta)
    return raft_pb2.InstallSnapshotRequest(
        term=part.term,
        leader_id=part.sender,
        last_included_index=part.meta.index,
        last_included_term=part.meta.term,
        offset=part.offset,
        data=part.data,
        done=part.offset + len(part.data) == part.total,
        cluster_id=cluster_id,
        crc32c=crc32c(mark + part.data),
        mark=mark,
        total=part.total,
    )


def from_request(request: raft_pb2.InstallSnapshotRequest, member: int) -> SnapshotPart:
    """The chunk in a request to ``member``. Raises CorruptionError."""
    if crc32c(request.mark + request.data) != request.crc32c:
        raise _bad(IntegrityCode.CHECKSUM_MISMATCH, "snapshot chunk")
    meta = decode_snapshot_meta(request.mark)
    if (meta.index, meta.term) != (request.last_included_index, request.last_included_term):
        raise _bad(IntegrityCode.INVALID_RECORD, "snapshot chunk contradicts its mark")
    if max(request.term, request.total) >= 1 << 63:
        raise _bad(IntegrityCode.INVALID_RECORD, "snapshot chunk out of range")
    end = request.offset + len(request.data)
    if end > request.total or request.done != (end == request.total):
        raise _bad(IntegrityCode.INVALID_RECORD, "snapshot chunk beyond the snapshot's end")
    return SnapshotPart(
        request.leader_id, member, request.term, meta, request.total, request.offset, request.data
    )


def _bad(code: IntegrityCode, what: str) -> CorruptionError:
    return CorruptionError(what, code=code, path="a peer's stream")
