"""The calls that a service hasn't answered yet, and their way back to the fronts."""

from __future__ import annotations

import heapq
from itertools import count
from typing import Protocol

from kvstore.errors import Error
from kvstore.service.limits import Limits
from kvstore.service.operations import Answered, Asked, Result

__all__ = ["Waiter", "Waiting"]


class Job(Protocol):
    """What works on calls."""

    def give_up(self) -> None:
        """One of its calls is decided, for its time is over."""


class Waiter:
    """A call, who gets it back, and what works on it."""

    __slots__ = ("answered", "call", "deadline", "decided", "job", "number")

    def __init__(self, call: Asked, answered: Answered) -> None:
        self.number = -1
        self.call = call
        self.answered = answered
        self.deadline = call.deadline
        self.decided = False
        self.job: Job | None = None


class Waiting:
    """All waiters. One thread.

    What is decided goes back with :meth:`answer`, all of it that is there by then in one call for
    each front; whoever gets calls back may bring others.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._number = count()
        self._waiters: dict[int, Waiter] = {}
        # By their numbers: a call that is answered is held by nothing here.
        self._by_deadline: list[tuple[float, int]] = []
        self._decided: list[tuple[Waiter, Result]] = []

    @property
    def count(self) -> int:
        """Of those that wait."""
        return len(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Wait for what becomes of it."""
        waiter.number = number = next(self._number)
        self._waiters[number] = waiter
        heapq.heappush(self._by_deadline, (waiter.deadline, number))

    def decide(self, waiter: Waiter, result: Result) -> None:
        """Its result; nothing where it had one."""
        if not waiter.decided:
            waiter.decided = True
            waiter.job = None
            del self._waiters[waiter.number]
            self._decided.append((waiter, result))

    def expire(self, now: float) -> None:
        """Give up calls whose deadline has passed, and tell what works on them."""
        heap, waiters = self._by_deadline, self._waiters
        while heap and (heap[0][0] <= now or heap[0][1] not in waiters):
            waiter = waiters.get(heapq.heappop(heap)[1])
            if waiter is not None:
                job = waiter.job
                self.decide(waiter, self._limits.expired())
                if job is not None:
                    job.give_up()
        if len(heap) > 64 and len(heap) > 4 * self.count:
            # Long deadlines of calls that were answered at once.
            self._by_deadline = [item for item in heap if item[1] in waiters]
            heapq.heapify(self._by_deadline)

    def close(self, reason: Error) -> None:
        """Decide all with ``reason``, and tell what works on them."""
        self._by_deadline.clear()
        for waiter in list(self._waiters.values()):
            if not waiter.decided:
                job = waiter.job
                self.decide(waiter, reason)
                if job is not None:
                    job.give_up()

    def answer(self) -> None:
        """Hand back what is decided."""
        while self._decided:
            decided, self._decided = self._decided, []
            batches: dict[int, tuple[Answered, list[Asked], list[Result]]] = {}
            for waiter, result in decided:
                batch = batches.get(id(waiter.answered))
                if batch is None:
                    batch = batches[id(waiter.answered)] = (waiter.answered, [], [])
                batch[1].append(waiter.call)
                batch[2].append(result)
            for answered, calls, results in batches.values():
                answered(calls, results)
