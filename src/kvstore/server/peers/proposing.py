"""Proposals of etcd's API that a follower has the leader make: both sides of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc
import structlog

from kvstore.api.handlers.calls import Context
from kvstore.api.handlers.failures import Failure
from kvstore.api.v1 import proposals_pb2, proposals_pb2_grpc
from kvstore.errors import CorruptionError
from kvstore.server.peers.forwarding import Forwarder
from kvstore.service.etcd import Passed

__all__ = ["PassingOn", "ProposalHandlers", "Take"]

Take = Callable[[int, Sequence[bytes], Callable[[Passed], None]], None]
"""(term, encoded proposals, done): as ``EtcdService.take``."""

log = structlog.get_logger("kvstore.etcd")


class ProposalHandlers(proposals_pb2_grpc.ProposalPeerServicer):
    """The leader's side; ``admit`` ends the calls of anybody but members."""

    def __init__(self, take: Take, admit: Callable[[Context], Awaitable[int]]) -> None:
        self._take = take
        self._admit = admit

    async def Propose(
        self, request: proposals_pb2.ProposeRequest, context: Context
    ) -> proposals_pb2.ProposeResponse:
        sender = await self._admit(context)
        outcome: asyncio.Future[Passed] = asyncio.get_running_loop().create_future()

        def done(passed: Passed) -> None:
            if not outcome.done():  # the caller may be gone
                outcome.set_result(passed)

        try:
            self._take(request.term, request.proposals, done)
        except CorruptionError as error:
            log.error("proposals of a peer can't be read", peer=sender, error=str(error))
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        passed = await outcome
        return proposals_pb2.ProposeResponse(
            proposed=passed is Passed.TAKEN, no_room=passed is Passed.NO_ROOM
        )


class PassingOn:
    """A follower's side: a :data:`kvstore.service.etcd.PassOn`. On a running event loop."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._loop = asyncio.get_running_loop()
        self._on_their_way: set[asyncio.Task[None]] = set()

    def __call__(
        self,
        leader: int,
        term: int,
        proposals: Sequence[bytes],
        timeout_s: float,
        done: Callable[[Passed], None],
    ) -> None:
        """Have ``leader`` propose them in ``term``; ``done`` is told what became of them, once."""
        passing = self._loop.create_task(self._pass(leader, term, proposals, timeout_s, done))
        self._on_their_way.add(passing)
        passing.add_done_callback(self._on_their_way.discard)

    async def _pass(
        self,
        leader: int,
        term: int,
        proposals: Sequence[bytes],
        timeout_s: float,
        done: Callable[[Passed], None],
    ) -> None:
        outcome = Passed.LOST
        try:
            request = proposals_pb2.ProposeRequest(term=term, proposals=proposals)
            answer = await self._forwarder.forward("Propose", request, leader, timeout_s, ())
            if answer is None:
                # No way to it is known, or it is too old to be asked.
                outcome = Passed.REFUSED
            elif not isinstance(answer, Failure):
                outcome = _outcome(answer)
        except Exception:
            log.exception("proposals couldn't be passed on")
        finally:
            done(outcome)


def _outcome(answer: proposals_pb2.ProposeResponse) -> Passed:
    if answer.proposed:
        return Passed.TAKEN
    return Passed.NO_ROOM if answer.no_room else Passed.REFUSED
