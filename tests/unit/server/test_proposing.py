"""Proposals on their way from a follower to the leader, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from kvstore.api.v1 import proposals_pb2_grpc
from kvstore.errors import CorruptionError
from kvstore.server.peers.forwarding import Forwarder
from kvstore.server.peers.introductions import Introductions
from kvstore.server.peers.proposing import PassingOn, ProposalHandlers
from kvstore.server.peers.wire import Dialler
from kvstore.service.etcd import Passed

PROPOSALS = [b"one", b"two"]


class Introduced:
    def to(self, receiver: int) -> tuple[tuple[str, bytes], ...]:
        return (("introduction-bin", b"member %d" % receiver),)


class Dials:
    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address)


class Stage:
    """A leader that does what it is told to, and a follower's way to it."""

    def __init__(self, address: str) -> None:
        self.address: str | None = address
        self.taken: list[tuple[int, list[bytes]]] = []
        self.outcome: Passed | Exception | None = Passed.TAKEN
        self.admits = True
        self._forwarder = Forwarder(
            cast(Introductions, Introduced()), cast(Dialler, Dials()), lambda member: self.address
        )
        self._passing_on = PassingOn(self._forwarder)

    def take(self, term: int, proposals: Sequence[bytes], done: Callable[[Passed], None]) -> None:
        self.taken.append((term, [*proposals]))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is not None:
            done(self.outcome)

    async def admit(self, context: Any) -> int:
        if not self.admits:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no member")
        return 3

    async def passed(self, timeout_s: float = 10.0) -> Passed:
        outcome: asyncio.Future[Passed] = asyncio.get_running_loop().create_future()
        self._passing_on(2, 7, PROPOSALS, timeout_s, outcome.set_result)
        return await outcome

    async def close(self) -> None:
        await self._forwarder.close()


def play(scene: Callable[[Stage], Awaitable[None]], *, serves: bool = True) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        stage = Stage(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        if serves:
            proposals_pb2_grpc.add_ProposalPeerServicer_to_server(
                ProposalHandlers(stage.take, stage.admit), server
            )
        await server.start()
        try:
            async with asyncio.timeout(30):
                await scene(stage)
        finally:
            await stage.close()
            await server.stop(grace=None)

    asyncio.run(main())


def test_they_are_taken_in_their_term() -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.passed() is Passed.TAKEN
        assert stage.taken == [(7, PROPOSALS)]

    play(scene)


def test_a_refusal_is_certain() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = Passed.REFUSED
        assert await stage.passed() is Passed.REFUSED

    play(scene)


def test_of_a_failure_nobody_knows_what_it_means() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = CorruptionError("no proposals")
        assert await stage.passed() is Passed.LOST
        stage.admits = False
        assert await stage.passed() is Passed.LOST
        assert len(stage.taken) == 1

    play(scene)


def test_a_leader_that_says_nothing_in_time_is_lost_sight_of() -> None:
    async def scene(stage: Stage) -> None:
        stage.outcome = None
        assert await stage.passed(0.2) is Passed.LOST

    play(scene)


def test_who_can_not_be_asked_has_not_got_them() -> None:
    async def too_old(stage: Stage) -> None:
        assert await stage.passed() is Passed.REFUSED

    async def nowhere(stage: Stage) -> None:
        stage.address = None
        assert await stage.passed() is Passed.REFUSED

    play(too_old, serves=False)
    play(nowhere)
