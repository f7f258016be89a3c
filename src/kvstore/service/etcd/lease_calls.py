"""Renewals of leases, and questions about them, on any member.

Only the lessor of the member that leads can answer: on that member it is asked directly, elsewhere
by a call of the leader's process for all that came in a turn. Both change nothing that a repeat
would do twice, so what nobody could answer is asked again, at the next tick and of whoever leads
then, for as long as the caller waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.calls import Call, Deadlines
from kvstore.service.etcd.lessor import ENDING, Lessor, Machine, TimeToLive

__all__ = ["AGAIN", "Answers", "AskLeader", "LeaseCalls", "Questions"]

WAITING_MAX: Final = 100_000
"""Renewals and questions of a process that wait."""

BATCH_MAX: Final = 1000
"""Of them in one call of the leader."""

CALLS_MAX: Final = 4
"""Of the leader that are under way; the second and the others only where the one before is late."""

LATE_S: Final = 0.1

AGAIN: Final = -2
"""In the place of a TTL: ask again."""


class Questions(NamedTuple):
    """Ids of leases: to renew, and to tell the time to live of."""

    renew: Sequence[int]
    look: Sequence[int]


class Answers(NamedTuple):
    """To each question in its order; AGAIN as a TTL where there is none."""

    renewed: Sequence[int]
    lives: Sequence[TimeToLive]


AskLeader = Callable[[int, Questions, float, Callable[[Answers | None], None]], None]
"""(leader, questions, seconds, done): ask its process; None: it couldn't be asked, or didn't
answer."""


class Service(Protocol):
    """Which member of the cluster leads, as :class:`kvstore.service.etcd.EtcdService` knows it."""

    @property
    def has_leader(self) -> bool: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def leader_id(self) -> int: ...

    @property
    def machine(self) -> Machine | None:
        """The state of the member that is asked; None while there is none."""


class _Question(Call[Any]):
    """``renews``: what is asked for; else it is the time to live."""

    __slots__ = ("id", "renews")

    def __init__(
        self,
        id: int,
        renews: bool,
        deadline: float,
        is_own: bool,
        done: Callable[[Any], None],
    ) -> None:
        super().__init__(deadline, is_own, done)
        self.id = id
        self.renews = renews


class LeaseCalls:
    """Of one process. One thread; knows no event loop."""

    def __init__(
        self,
        service: Service,
        lessor: Lessor,
        *,
        patience_s: float,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        ask_leader: AskLeader | None = None,
    ) -> None:
        """``patience_s``: so long a call waits whose client would wait longer. ``now``: the
        monotonic clock in seconds; ``soon`` calls back once, after this turn; ``ask_leader``: where
        that may be another process.
        """
        self._service = service
        self._lessor = lessor
        self._patience_s = patience_s
        self._now = now
        self._soon = soon
        self._ask_leader = ask_leader
        self._waiting: list[_Question] = []
        self._again: list[_Question] = []
        self._deadlines: Deadlines[_Question] = Deadlines(now())
        self._count = 0
        self._flush_is_due = False
        # When each call of the leader that is under way began, by its number.
        self._calls: dict[int, float] = {}
        self._number = 0

    # --- what it is asked ------------------------------------------------------------------------

    def renew(self, id: int, deadline: float | None, done: Callable[[int | Error], None]) -> None:
        """Give lease ``id`` its whole TTL again, and tell it; 0 where there is no such lease.

        ``deadline``: the client's own, None for none. NO_LEADER, TIMED_OUT, DEADLINE: it may live.
        """
        self._begin(id, True, deadline, done)

    def time_to_live(
        self, id: int, deadline: float | None, done: Callable[[TimeToLive | Error], None]
    ) -> None:
        """Tell how long lease ``id`` lives. Errors as of :meth:`renew`."""
        self._begin(id, False, deadline, done)

    def answer(self, questions: Questions, done: Callable[[Answers], None]) -> None:
        """Answer another member, whose leader this one is, or was: in one go, and without waiting
        for leases to end."""
        _Answering(questions, done).ask(self._lessor)

    def listing(self) -> Callable[[], list[int]]:
        """What tells, on any thread, the leases that this member knows now, those first that end
        first where it leads. Sorting very many takes long."""
        by_expiry = self._lessor.by_expiry()
        if by_expiry is not None:
            return by_expiry
        machine = self._service.machine
        leases = [] if machine is None else list(machine.leases())
        return lambda: leases

    @property
    def waiting(self) -> int:
        """How many renewals and questions are undecided."""
        return self._count

    def _begin(
        self, id: int, renews: bool, deadline: float | None, done: Callable[[Any], None]
    ) -> None:
        patience = self._now() + self._patience_s
        is_own = deadline is not None and deadline < patience
        until = deadline if deadline is not None and is_own else patience

        def decided(outcome: Any) -> None:
            self._count -= 1
            done(outcome)

        if self._count >= WAITING_MAX:
            done(EtcdError(Reason.TOO_MANY_REQUESTS))
            return
        self._count += 1
        question = _Question(id, renews, until, is_own, decided)
        self._deadlines.add(question)
        self._waiting.append(question)
        self._flush_soon()

    # --- on --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """To be called as often as members tick: what nobody could answer is asked again."""
        for question in self._deadlines.late(self._now()):
            question.refuse(self._reason(question))
        again, self._again = self._again, []
        self._waiting += (question for question in again if not question.is_decided)
        self._flush_soon()

    def _reason(self, question: _Question) -> Reason:
        if question.is_own:
            return Reason.DEADLINE
        return Reason.TIMED_OUT if self._service.has_leader else Reason.NO_LEADER

    def close(self) -> None:
        """Nobody is asked any more."""
        waiting, self._waiting, self._again = self._waiting + self._again, [], []
        for question in waiting:
            question.refuse(Reason.STOPPED)

    def _flush_soon(self) -> None:
        if self._waiting and not self._flush_is_due:
            self._flush_is_due = True
            self._soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        leader = self._service.leader_id
        if self._service.is_leader:
            waiting, self._waiting = self._waiting, []
            for question in waiting:
                told = partial(self._told, question)
                if question.renews:
                    self._lessor.renew(question.id, told)
                else:
                    self._lessor.time_to_live(question.id, told)
        elif self._ask_leader is None or not leader:
            self._again += self._waiting
            self._waiting = []
        else:
            while self._waiting and self._may_call():
                self._call(self._ask_leader, leader)

    def _may_call(self) -> bool:
        calls = self._calls
        if not calls:
            return True
        return len(calls) < CALLS_MAX and self._now() - max(calls.values()) >= LATE_S

    def _call(self, ask_leader: AskLeader, leader: int) -> None:
        batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        renewals = [question for question in batch if question.renews]
        looks = [question for question in batch if not question.renews]
        questions = Questions([each.id for each in renewals], [each.id for each in looks])
        now = self._now()
        self._number += 1
        self._calls[self._number] = now
        # Not too long: whoever leads next could answer meanwhile.
        timeout_s = min(max(each.deadline for each in batch) - now, self._patience_s / 2)
        answered = partial(self._answered, self._number, renewals, looks)
        ask_leader(leader, questions, timeout_s, answered)

    def _answered(
        self,
        number: int,
        renewals: Sequence[_Question],
        looks: Sequence[_Question],
        answers: Answers | None,
    ) -> None:
        del self._calls[number]
        if (
            answers is None
            or len(answers.renewed) != len(renewals)
            or len(answers.lives) != len(looks)
        ):
            self._again += [*renewals, *looks]
        else:
            for question, ttl in zip(renewals, answers.renewed, strict=True):
                self._told(question, ttl)
            for question, lives in zip(looks, answers.lives, strict=True):
                self._told(question, AGAIN if lives.ttl == AGAIN else lives)
        self._flush_soon()

    def _told(self, question: _Question, outcome: int | TimeToLive | EtcdError) -> None:
        if outcome in (AGAIN, ENDING) or _is_passing(outcome):
            self._again.append(question)
        else:
            question.decide(outcome)


class _Answering:
    """Questions of one member to the lessor, until each is answered."""

    def __init__(self, questions: Questions, done: Callable[[Answers], None]) -> None:
        self._questions = questions
        self._done = done
        self._renewed = [AGAIN] * len(questions.renew)
        self._lives = [TimeToLive(AGAIN, 0)] * len(questions.look)
        self._left = len(self._renewed) + len(self._lives)

    def ask(self, lessor: Lessor) -> None:
        if not self._left:
            self._done(Answers((), ()))
        for place, id in enumerate(self._questions.renew):
            lessor.renew(id, partial(self._answered, self._renewed, place))
        for place, id in enumerate(self._questions.look):
            lessor.time_to_live(id, partial(self._answered, self._lives, place))

    def _answered(self, answers: list[Any], place: int, outcome: Any) -> None:
        if not isinstance(outcome, EtcdError) and outcome != ENDING:
            answers[place] = outcome
        self._left -= 1
        if not self._left:
            self._done(Answers(self._renewed, self._lives))


def _is_passing(outcome: int | TimeToLive | EtcdError) -> bool:
    """Whether another time, or another leader, may give another answer."""
    return isinstance(outcome, EtcdError) and outcome.reason is Reason.NOT_PRIMARY_LESSOR
