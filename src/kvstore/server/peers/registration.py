"""A founder makes itself known before it votes for the first time.

A new data directory looks like one whose disk was wiped. So its founder first has its incarnation
noted by so many others that, with itself, they are a majority, and is told what they remember. If
one of them knew the same id with another directory, the founder was wiped: it stops here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import partial

import grpc
import grpc.aio
import structlog

from kvstore.api.v1 import raft_pb2, raft_pb2_grpc
from kvstore.errors import ConfigurationError
from kvstore.server.peers.introductions import Introductions, RefusedPeerError
from kvstore.server.peers.noting import judged
from kvstore.server.peers.registry import Known
from kvstore.server.peers.wire import Dialler

TRY_TIMEOUT_S = 3.0
PAUSE_S = 0.1

log = structlog.get_logger("kvstore.peer")


async def register(
    introductions: Introductions, dialler: Dialler, founders: Mapping[int, str]
) -> None:
    """Return when a majority of ``founders`` (addresses by id, without this one) knows this one.

    Tries for ever: a founder alone can do nothing anyway. Raises ConfigurationError when one of
    them knew this id with another data directory.
    """
    needed = (len(founders) + 1) // 2
    waiting = {
        asyncio.create_task(_register_with(introductions, dialler, peer, address))
        for peer, address in founders.items()
    }
    try:
        while needed > 0:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                introductions.registry.learn(task.result())
            needed -= len(done)
    finally:
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)


async def _register_with(
    introductions: Introductions, dialler: Dialler, peer: int, address: str
) -> list[tuple[int, Known]]:
    """Be noted by ``peer``, however often that must be tried; return what it remembers."""
    said = ""
    while True:
        async with dialler.dial(peer, address) as channel:
            stub: raft_pb2_grpc.RaftPeerAsyncStub = raft_pb2_grpc.RaftPeerStub(channel)  # type: ignore[assignment]
            said_to = introductions.to(peer)
            call = stub.Register(
                raft_pb2.RegisterRequest(),
                metadata=said_to,
                timeout=TRY_TIMEOUT_S,
            )
            try:
                response = await call
                answer = await call.initial_metadata()
                judge = partial(introductions.judge_called, answer, peer, said_to)
                await judged(introductions.registry, judge)
                return [(k.member, Known(k.incarnation, k.starts)) for k in response.known]
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.ABORTED:
                    raise ConfigurationError(
                        f"member {peer} refuses this new data directory: {error.details()}"
                    ) from error
                reason = error.details() or error.code().name
            except RefusedPeerError as error:
                reason = str(error)
        if reason != said:
            said = reason
            log.warning("waiting for a founder", peer=peer, address=address, reason=reason)
        await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.5))
