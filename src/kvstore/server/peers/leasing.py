"""Questions about leases that a member asks the one that leads: both sides of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from kvstore.api.handlers.calls import Context
from kvstore.api.handlers.failures import Failure
from kvstore.api.v1 import leases_pb2, leases_pb2_grpc
from kvstore.server.peers.forwarding import Forwarder
from kvstore.service.etcd.lease_calls import Answers, Questions
from kvstore.service.etcd.lessor import TimeToLive

__all__ = ["AnswerQuestions", "AskingLeader", "LeaseHandlers"]

AnswerQuestions = Callable[[Questions, Callable[[Answers], None]], None]
"""As ``LeaseCalls.answer``."""

log = structlog.get_logger("kvstore.etcd")


class LeaseHandlers(leases_pb2_grpc.LeasePeerServicer):
    """The leader's side; ``admit`` ends the calls of anybody but members."""

    def __init__(self, answer: AnswerQuestions, admit: Callable[[Context], Awaitable[int]]) -> None:
        self._answer = answer
        self._admit = admit

    async def AskLessor(
        self, request: leases_pb2.LessorQuestions, context: Context
    ) -> leases_pb2.LessorAnswers:
        await self._admit(context)
        told: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()

        def done(answers: Answers) -> None:
            if not told.done():  # the caller may be gone
                told.set_result(answers)

        self._answer(Questions(request.renew, request.look), done)
        answers = await told
        return leases_pb2.LessorAnswers(
            renewed=answers.renewed,
            lives=[
                leases_pb2.LeaseLife(ttl=lives.ttl, granted=lives.granted)
                for lives in answers.lives
            ],
        )


class AskingLeader:
    """A follower's side: a :data:`kvstore.service.etcd.lease_calls.AskLeader`. On a running event
    loop."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[None]] = set()

    def __call__(
        self,
        leader: int,
        questions: Questions,
        timeout_s: float,
        done: Callable[[Answers | None], None],
    ) -> None:
        """Ask ``leader``; ``done`` is told once."""
        asking = self._loop.create_task(self._ask(leader, questions, timeout_s, done))
        self._under_way.add(asking)
        asking.add_done_callback(self._under_way.discard)

    async def _ask(
        self,
        leader: int,
        questions: Questions,
        timeout_s: float,
        done: Callable[[Answers | None], None],
    ) -> None:
        answers = None
        try:
            request = leases_pb2.LessorQuestions(renew=questions.renew, look=questions.look)
            response = await self._forwarder.forward("AskLessor", request, leader, timeout_s, ())
            # None, too: no way to it is known, or its kvd is too old to be asked.
            if response is not None and not isinstance(response, Failure):
                lives = [TimeToLive(life.ttl, life.granted) for life in response.lives]
                answers = Answers(response.renewed, lives)
        except Exception:
            log.exception("the leader couldn't be asked about leases")
        finally:
            done(answers)
