"""Clients: they call, wait, give up waiting, and try again elsewhere with the same request id."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kvstore.errors import (
    Error,
    ForgottenError,
    InvalidArgumentError,
    NotLeaderError,
    Refusal,
    ResourceExhaustedError,
)
from kvstore.service import Delete, Get, OpenSession, Operation, Put
from kvstore.service.operations import Result
from tests.simulator import linearizability
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.linearizability import Kind
from tests.simulator.plan import CLOCK_SPEEDS, Plan
from tests.simulator.process import Process
from tests.simulator.trace import Trace, Violation

__all__ = ["Client"]

PATIENCE_US = 6 * SECOND
"""After this long a client gives an operation up."""

CALM_PATIENCE_US = (200 * MILLISECOND, 2 * SECOND)
"""How long a client waits for an answer once the troubles are over."""


@dataclass(slots=True)
class Task:
    """One operation of a client, however often it is sent.

    ``expected`` is what a retry of a finished write must get: its first result, or a refusal.
    ``sent`` counts what was sent of it, ``first_sent`` is when.
    """

    operation: Operation
    called: int
    expected: bool | type[InvalidArgumentError] | None = None
    attempt: int = 0
    sent: int = 0
    first_sent: int | None = None


class Client:
    """One client: one operation at a time, until told to stop."""

    def __init__(
        self,
        number: int,
        *,
        plan: Plan,
        agenda: Agenda,
        trace: Trace,
        processes: Callable[[], Sequence[Process]],
    ) -> None:
        self.number = number
        self.history: list[linearizability.Operation] = []
        self.finished = 0
        """Operations that were answered."""
        self._plan = plan
        self._agenda = agenda
        self._trace = trace
        self._processes = processes
        self._rng = random.Random(f"{plan.seed}/client/{number}")
        self.refused = 0
        """Writes that were refused since nobody knew any more what had become of them."""
        self._made = 0
        # Of another source, so that the other draws stay what they were.
        self._session_rng = random.Random(f"{plan.seed}/client/{number}/session")
        self._in_session = self._session_rng.random() < plan.in_session
        self._session = b""
        self._sequence = 0
        self._floor = 1
        self._task: Task | None = None
        self._stopping = False
        self._favourite = 0
        self._home = self._rng.randint(1, plan.members)
        self._troubled = True
        self._homing = plan.homing
        self._loss = plan.loss
        self._patient = False
        self._think()

    @property
    def idle(self) -> bool:
        """It has stopped, and nothing is under way."""
        return self._stopping and self._task is None

    def turn_to(self, member: int) -> None:
        """Ask that member from now on, also for what is under way."""
        self._favourite = self._home = member
        if self._task is not None:
            self._attempt(self._task)

    def calm(self) -> None:
        """The troubles are over: ask whoever leads, and nothing gets lost."""
        self._troubled = False
        self._homing = 0.0
        self._loss = 0.0

    def stop(self) -> None:
        """Begin nothing new; what is under way is followed to its end, however long it takes."""
        self._stopping = True
        self._patient = True

    # --- operations ----------------------------------------------------------------------------

    def _think(self) -> None:
        pause = int(self._rng.expovariate(1.0 / self._plan.think_us))
        self._agenda.after(pause, self._begin)

    def _begin(self) -> None:
        if self._stopping or self._task is not None:
            return
        wanted = self._in_session and not self._session
        self._start(Task(OpenSession() if wanted else self._choose(), self._agenda.now))

    @property
    def left_to_read(self) -> bool:
        """:meth:`read_all` isn't through yet."""
        return bool(self._to_read)

    def read_all(self, keys: Sequence[bytes]) -> None:
        """Read ``keys`` one after the other, also when stopped."""
        if self._task is None and keys:
            first, *self._to_read = keys
            self._start(Task(Get(first), self._agenda.now))

    _to_read: Sequence[bytes] = ()

    def _choose(self) -> Operation:
        rng = self._rng
        self._made += 1
        key = b"key-%d" % rng.randrange(self._plan.keys)
        kind = rng.random()
        if kind < 0.4:
            return Get(key)
        name = b"%d/%d" % (self.number, self._made)
        request = self._number() if self._session else name
        if kind < 0.85:
            padding = bytes(rng.randrange(self._plan.value_bytes_max))
            return Put(key, b"<" + name + b">" + padding, request)
        return Delete(key, request)

    def _number(self) -> bytes:
        """The next id of the session; its floor follows late, as with several writes under way."""
        self._sequence += 1
        late = self._session_rng.choice((0, 0, 1, 8, 200))
        self._floor = max(self._floor, self._sequence - late)
        return b"kvs1/%s/%d/%d" % (self._session, self._sequence, self._floor)

    def _start(self, task: Task) -> None:
        self._task = task
        self._attempt(task)

    def _attempt(self, task: Task) -> None:
        """Send the operation to somebody, and see to it that this isn't the last word."""
        if self._task is not task:
            return
        if not self._patient and self._agenda.now - task.called > PATIENCE_US:
            self._end(task, None)
            return
        task.attempt += 1
        attempt = task.attempt
        process = self._whom()
        rng = self._rng
        low, high = self._plan.patience_us if self._troubled else CALM_PATIENCE_US
        patience = rng.randint(low, high)
        self._agenda.after(patience, lambda: self._retry(task, attempt))
        first = self._copy(task, 0)
        if rng.random() < self._loss:
            return
        delay = rng.randint(*self._plan.delay_us)
        self._agenda.after(delay, lambda: self._arrive(task, first, process))
        if rng.random() < self._plan.doubling:
            late = rng.randint(0, SECOND)
            other = rng.choice((process, rng.choice(self._processes())))
            second = self._copy(task, late)
            self._agenda.after(late, lambda: self._arrive(task, second, other))

    def _copy(self, task: Task, late_us: int) -> Operation:
        """What is sent, to arrive in ``late_us``: a retry says how old the request is by then."""
        operation = task.operation
        task.sent += 1
        if not isinstance(operation, Put | Delete):
            return operation
        now = self._agenda.now
        if task.first_sent is None:
            task.first_sent = now
            return operation
        # In the time of the fastest clock: the simulated ones differ by more than real ones.
        fastest = max(1.0, *CLOCK_SPEEDS)
        age_us = (now + late_us - task.first_sent) * fastest
        return operation._replace(age_s=age_us / SECOND)

    def _whom(self) -> Process:
        processes = self._processes()
        at_home = self._rng.random() < self._homing
        wanted = self._home if at_home else self._favourite
        for process in processes:
            if process.member == wanted:
                return process
        return self._rng.choice(processes)

    def _arrive(self, task: Task, operation: Operation, process: Process) -> None:
        """The call reaches a member. Its answer may get lost."""

        def answer(result: Result) -> None:
            if self._rng.random() >= self._loss:
                delay = self._rng.randint(*self._plan.delay_us)
                self._agenda.after(delay, lambda: self._answered(task, result))

        if self._plan.follower_reads and isinstance(operation, Get):
            process.read_here(operation, answer)
        else:
            process.call(operation, answer)

    def _retry(self, task: Task, attempt: int) -> None:
        if self._task is task and task.attempt == attempt:
            self._favourite = 0
            self._attempt(task)

    def _answered(self, task: Task, result: Result) -> None:
        if self._task is not task:
            return
        if isinstance(result, ForgottenError | ResourceExhaustedError):
            self._refused(task, result)
            return
        if isinstance(result, InvalidArgumentError):
            if task.expected is not InvalidArgumentError:
                raise Violation(f"{task.operation} was refused: {result}")
        elif isinstance(result, Error):
            self._favourite = result.leader if isinstance(result, NotLeaderError) else 0
            attempt = task.attempt
            pause = self._rng.randint(10, 200) * MILLISECOND
            self._agenda.after(pause, lambda: self._retry_unless_sent(task, attempt))
            return
        self.finished += 1
        self._end(task, result)

    def _refused(self, task: Task, error: ForgottenError | ResourceExhaustedError) -> None:
        """Nobody knows what became of it, or a session can't be had: that is the last word."""
        self.refused += 1
        self._task = None
        operation = task.operation
        first = task.sent == 1 and task.expected is None
        if isinstance(error, ResourceExhaustedError):
            if not isinstance(operation, OpenSession):
                raise Violation(f"{operation} was refused: {error}")
        elif error.refusal is Refusal.SESSION_EXPIRED:
            self._session = b""
        elif first or (error.refusal is Refusal.SEQUENCE_PASSED and task.expected is None):
            raise Violation(f"{operation} was refused: {error}")
        # What was sent once was not applied: no order of operations has it.
        if task.expected is None and not first and not isinstance(operation, OpenSession):
            self._record(task, None, given_up=True)
        self._go_on()

    def _retry_unless_sent(self, task: Task, attempt: int) -> None:
        if self._task is task and task.attempt == attempt:
            self._attempt(task)

    # --- what becomes of them ------------------------------------------------------------------

    def _end(self, task: Task, result: Result) -> None:
        """``result`` is the answer; with a task that was given up it is nothing."""
        self._task = None
        if isinstance(task.operation, OpenSession):
            self._take_session(result)
            self._go_on()
            return
        given_up = task.called + PATIENCE_US < self._agenda.now and not self._patient
        if task.expected is not None:
            self._check_retry(task, result, given_up)
        else:
            self._record(task, result, given_up)
        again = None
        if not self._to_read and not self._stopping and not given_up:
            again = self._again(task, result)
        if again is not None:
            self._start(again)
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._to_read:
            self.read_all(self._to_read)
        elif not self._stopping:
            self._think()

    def _take_session(self, result: Result) -> None:
        if isinstance(result, bytes):
            self._session = result
            self._sequence = 0
            self._floor = 1

    def _check_retry(self, task: Task, result: Result, given_up: bool) -> None:
        if given_up:
            return
        if task.expected is InvalidArgumentError:
            if not isinstance(result, InvalidArgumentError):
                raise Violation(f"{task.operation} got {result!r}, though its id was used before")
        elif result is not task.expected:
            raise Violation(f"a retry of {task.operation} got {result!r}, first {task.expected}")

    def _record(self, task: Task, result: Result, given_up: bool) -> None:
        assert not isinstance(result, Error)
        operation = task.operation
        assert not isinstance(operation, OpenSession)
        if isinstance(operation, Get):
            kind, value = Kind.GET, None
        elif isinstance(operation, Put):
            kind, value = Kind.PUT, operation.value
        else:
            kind, value = Kind.DELETE, None
        returned = None if given_up else self._agenda.now
        record = linearizability.Operation(
            self.number, kind, operation.key, value, task.called, returned, result
        )
        self.history.append(record)
        self._trace.note(f"{record}"[:160])

    def _again(self, task: Task, result: Result) -> Task | None:
        """Sometimes a finished write is sent once more, or its id used for something else."""
        operation = task.operation
        if not isinstance(operation, Put | Delete) or task.expected is not None:
            return None
        if not isinstance(result, bool):
            return None
        chance = self._rng.random()
        if chance < 0.06:
            return replace(task, called=self._agenda.now, expected=result, attempt=0)
        if chance < 0.1:
            other = Put(operation.key, b"something else", operation.request_id)
            return replace(
                task,
                operation=other,
                called=self._agenda.now,
                expected=InvalidArgumentError,
                attempt=0,
            )
        return None
