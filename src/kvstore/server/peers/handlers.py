"""``kvstore.v1.RaftPeer``: what other members send to this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol, runtime_checkable

import grpc
import grpc.aio
import structlog

from kvstore.api.tolerant import tolerant
from kvstore.api.v1 import raft_pb2, raft_pb2_grpc
from kvstore.errors import CorruptionError, Error, IntegrityCode, StorageError
from kvstore.raft.messages import Message
from kvstore.replica.packets import Packet
from kvstore.server.peers.frames import packets_in
from kvstore.server.peers.introductions import Introductions, RefusedPeerError
from kvstore.server.peers.noting import judged
from kvstore.server.peers.registry import Known
from kvstore.server.peers.snapshots import from_request
from kvstore.server.peers.streams import OpenStreams
from kvstore.server.peers.unary import (
    UnaryCalls,
    append_message,
    append_response,
    vote_message,
    vote_response,
)
from kvstore.server.tls.handshakes import Handshakes

UNARY_TIMEOUT_S = 5.0

Context = grpc.aio.ServicerContext[Any, Any]
Receive = Callable[[Sequence[Packet]], None]

log = structlog.get_logger("kvstore.peer")


@runtime_checkable
class Delivering(Protocol):
    """The context of a call on the native wire."""

    async def deliver(self, take: Callable[[bytes], None]) -> None:
        """See :class:`kvstore.wire.server.call.Call`: no task is woken for each request."""


class PeerHandlers(raft_pb2_grpc.RaftPeerServicer):
    """Lets members in, checks what they send and hands it to ``receive``.

    ``receive`` gets only whole packets with good checksums, to this member, from the member that
    the call is from, and raises CorruptionError for what it can't take.
    """

    def __init__(
        self,
        introductions: Introductions,
        receive: Receive,
        unary: UnaryCalls,
        handshakes: Handshakes | None = None,
    ) -> None:
        """``handshakes`` is told of connections that call."""
        self._handshakes = handshakes
        self._introductions = introductions
        self._receive = receive
        self._unary = unary
        self._refused: dict[str, str] = {}
        self.streams = OpenStreams()

    def register(self, server: grpc.aio.Server) -> None:
        """Serve at ``server``."""
        messages = grpc.stream_unary_rpc_method_handler(
            self.frames,
            request_deserializer=None,
            response_serializer=raft_pb2.MessageFrameReply.SerializeToString,
        )
        # The first that knows a method serves it: this one parses frames itself.
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("kvstore.v1.RaftPeer", {"Messages": messages}),)
        )
        raft_pb2_grpc.add_RaftPeerServicer_to_server(self, tolerant(server))

    async def frames(
        self, request_iterator: AsyncIterator[bytes], context: Context
    ) -> raft_pb2.MessageFrameReply:
        """The method Messages; frames come as their bytes."""
        sender = await self.admit(context)
        await self._introduce(sender, context)
        received = 0

        def take(frame: bytes) -> None:
            nonlocal received
            self._hand_on(packets_in(frame), sender)
            received += 1

        try:
            async with self.streams.entered(context.auth_context()):
                if isinstance(context, Delivering):
                    await context.deliver(take)
                else:
                    async for frame in request_iterator:
                        take(frame)
        except TimeoutError:
            await self._end(context)
        except CorruptionError as error:
            await self._damaged(context, sender, error)
        except RefusedPeerError as error:
            await self._refuse(context, error)
        return raft_pb2.MessageFrameReply(received=received)

    async def InstallSnapshot(
        self, request_iterator: AsyncIterator[raft_pb2.InstallSnapshotRequest], context: Context
    ) -> raft_pb2.InstallSnapshotResponse:
        sender = await self.admit(context)
        await self._introduce(sender, context)
        received = 0
        try:
            async with self.streams.entered(context.auth_context()):
                async for request in request_iterator:
                    await self._take(await self._part(request, sender, context), sender, context)
                    received += 1
        except TimeoutError:
            await self._end(context)
        return raft_pb2.InstallSnapshotResponse(received=received)

    async def _part(
        self, request: raft_pb2.InstallSnapshotRequest, sender: int, context: Context
    ) -> Packet:
        try:
            return from_request(request, self._introductions.member)
        except CorruptionError as error:
            await self._damaged(context, sender, error)

    async def _end(self, context: Context) -> NoReturn:
        await context.abort(
            grpc.StatusCode.UNAVAILABLE,
            "a certificate of this connection has ended or was exchanged: dial again",
        )

    async def RequestVote(
        self, request: raft_pb2.RequestVoteRequest, context: Context
    ) -> raft_pb2.RequestVoteResponse:
        sender = await self.admit_member(context)
        try:
            message = vote_message(request, self._introductions.member)
        except CorruptionError as error:
            await self._damaged(context, sender, error)
        return vote_response(await self._ask(message, sender, context))

    async def AppendEntries(
        self, request: raft_pb2.AppendEntriesRequest, context: Context
    ) -> raft_pb2.AppendEntriesResponse:
        sender = await self.admit_member(context)
        try:
            message = append_message(request, self._introductions.member)
        except CorruptionError as error:
            await self._damaged(context, sender, error)
        return append_response(await self._ask(message, sender, context))

    async def Register(
        self, request: raft_pb2.RegisterRequest, context: Context
    ) -> raft_pb2.RegisterResponse:
        sender = await self.admit_member(context)
        await self._introduce(sender, context)
        return raft_pb2.RegisterResponse(
            known=[
                _known(member, seen)
                for member, seen in self._introductions.registry.known().items()
            ]
        )

    async def _introduce(self, sender: int, context: Context) -> None:
        said = context.invocation_metadata() or ()
        await context.send_initial_metadata(self._introductions.to(sender, said))

    async def _ask(self, message: Message, sender: int, context: Context) -> Message:
        """Step a unary call's message and wait for what the core says to it."""
        left_s = context.time_remaining()
        answer = self._unary.expect(message)
        try:
            await self._take(message, sender, context)
            async with asyncio.timeout(
                UNARY_TIMEOUT_S if left_s is None else min(left_s, UNARY_TIMEOUT_S)
            ):
                return await answer
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, "nothing to answer was durable in time"
            )
        finally:
            answer.cancel()

    async def _take(self, packet: Packet, sender: int, context: Context) -> None:
        """Hand a packet on, or end the call."""
        try:
            self._hand_on((packet,), sender)
        except CorruptionError as error:
            await self._damaged(context, sender, error)
        except RefusedPeerError as error:
            await self._refuse(context, error)

    def _hand_on(self, packets: Sequence[Packet], sender: int) -> None:
        """Hand packets on, if they are from whom they should be, and still welcome.

        Raises RefusedPeerError, CorruptionError.
        """
        own = self._introductions.member
        self._introductions.refuse_removed(sender)
        for packet in packets:
            if packet.sender != sender or packet.to != own:
                raise CorruptionError(
                    f"packet from {packet.sender} to {packet.to} on the stream from "
                    f"{sender} to {own}",
                    code=IntegrityCode.INVALID_RECORD,
                )
        self._receive(packets)

    async def admit_member(self, context: Context) -> int:
        """The present member that calls; ends the call of anybody else."""
        sender = await self.admit(context)
        try:
            self._introductions.refuse_absent(sender)
        except RefusedPeerError as error:
            await self._refuse(context, error)
        return sender

    async def admit(self, context: Context) -> int:
        """Who calls; ends the call when it isn't who it says, or isn't welcome.

        It need not be a member: what it sends is heard where the protocol needs it
        (``kvstore.raft.admission``).
        """
        if self._handshakes is not None:
            self._handshakes.meet(context.peer())
        try:
            introductions = self._introductions
            judge = partial(
                introductions.judge_caller,
                context.invocation_metadata() or (),
                context.auth_context(),
            )
            return await judged(introductions.registry, judge)
        except RefusedPeerError as error:
            await self._refuse(context, error)
        except StorageError as error:
            if self._is_news(context, error):
                log.error("can't note a peer", address=context.peer(), error=str(error))
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    def _is_news(self, context: Context, error: Error) -> bool:
        """True once for each place and reason: a peer that is refused comes again and again."""
        place = context.peer().rpartition(":")[0]
        if self._refused.get(place) == str(error):
            return False
        if len(self._refused) >= 1024:
            self._refused.clear()
        self._refused[place] = str(error)
        return True

    async def _refuse(self, context: Context, error: RefusedPeerError) -> NoReturn:
        if self._is_news(context, error):
            log.warning("peer refused", address=context.peer(), reason=str(error))
        await context.abort(error.code, error.told, error.trailer)

    async def _damaged(self, context: Context, sender: int, error: CorruptionError) -> NoReturn:
        log.error("message from a peer can't be trusted", peer=sender, error=str(error))
        await context.abort(grpc.StatusCode.DATA_LOSS, str(error))


def _known(member: int, seen: Known) -> raft_pb2.KnownMember:
    return raft_pb2.KnownMember(member=member, incarnation=seen.incarnation, starts=seen.starts)
