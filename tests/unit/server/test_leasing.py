"""The call by which a member asks the leader about leases: what each side makes of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import pytest

from kvstore.api.handlers.failures import Failure
from kvstore.api.v1 import leases_pb2
from kvstore.server.peers.forwarding import Forwarder
from kvstore.server.peers.leasing import AskingLeader, LeaseHandlers
from kvstore.service.etcd.lease_calls import AGAIN, Answers, Questions
from kvstore.service.etcd.lessor import TimeToLive

QUESTIONS = Questions([1, -2, (1 << 63) - 1], [-(1 << 63)])
ANSWERS = Answers([10, 0, AGAIN], [TimeToLive(-1, 0)])

Forward = Callable[[str, Any, int, float, tuple[()]], Awaitable[Any]]


async def admit(context: object) -> int:
    return 2


async def asked(forward: Forward) -> Answers | None:
    """What is told of QUESTIONS, over a way to the leader."""

    class Way:
        async def forward(self, *call: Any) -> Any:
            return await forward(*call)

    told: asyncio.Future[Answers | None] = asyncio.get_running_loop().create_future()
    AskingLeader(cast(Forwarder, Way()))(3, QUESTIONS, 1.5, told.set_result)
    return await told


def test_questions_and_answers_come_over_as_they_are() -> None:
    got: list[Questions] = []

    def answer(questions: Questions, done: Callable[[Answers], None]) -> None:
        got.append(Questions([*questions.renew], [*questions.look]))
        done(ANSWERS)

    async def forward(method: str, request: Any, leader: int, *more: object) -> Any:
        assert (method, leader) == ("AskLessor", 3)
        received = leases_pb2.LessorQuestions.FromString(request.SerializeToString())
        response = await LeaseHandlers(answer, admit).AskLessor(received, cast(Any, None))
        return leases_pb2.LessorAnswers.FromString(response.SerializeToString())

    async def main() -> Answers | None:
        return await asked(forward)

    answers = asyncio.run(main())
    assert got == [QUESTIONS]
    assert answers is not None
    assert ([*answers.renewed], answers.lives) == (ANSWERS.renewed, ANSWERS.lives)


@pytest.mark.parametrize(
    "outcome", [None, Failure(grpc.StatusCode.UNAVAILABLE, "gone"), RuntimeError("a defect")]
)
def test_leader_that_cannot_be_asked_has_no_answer(outcome: object) -> None:
    async def forward(*call: object) -> Any:
        if isinstance(outcome, RuntimeError):
            raise outcome
        return outcome

    async def main() -> Answers | None:
        return await asked(forward)

    assert asyncio.run(main()) is None


def test_who_is_no_member_gets_no_answer() -> None:
    async def refuse(context: object) -> int:
        raise PermissionError

    async def main() -> None:
        handlers = LeaseHandlers(lambda questions, done: done(ANSWERS), refuse)
        with pytest.raises(PermissionError):
            await handlers.AskLessor(leases_pb2.LessorQuestions(), cast(Any, None))

    asyncio.run(main())
