"""Replicas on an event loop: ticks, turns, and the log writer's news."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from kvstore.errors import Error, InternalError
from kvstore.replica.ticks import TICK_S
from kvstore.server.nodes.longest import Longest

__all__ = ["Driver", "LoopFigures"]

log = structlog.get_logger("kvstore.driver")


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """The longest of the last minute or two, in seconds: a piece of the members' work on the event
    loop, and how much later than due a tick came, whatever held the loop up."""

    turn_s: float
    late_s: float


class Driver:
    """Drives one replica, or a group of them, from the running event loop.

    However many calls, packets and syncs come in one pass of the loop, there is one turn in the
    next. The first failure, whether raised here or handed to :meth:`fail`, is the result of
    :attr:`failed`, and nothing is driven after it: half-done work can't be gone on with.
    """

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[Error] = self._loop.create_future()
        self._turn: Callable[[], None] | None = None
        self._ticks: list[Callable[[], None]] = []
        self._watched: list[int] = []
        self._turn_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._tick_due = 0.0
        self._turns = Longest()
        self._lateness = Longest()

    def start(self, turn: Callable[[], None], *ticks: Callable[[], None]) -> None:
        """Call ``turn`` after each :meth:`wake`, and each of ``ticks`` every ``tick_s``."""
        self._turn = turn
        self._ticks = list(ticks)
        self._await_tick(time.monotonic())
        self.wake()

    def watch(self, eventfd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever the eventfd of a log's writer was signalled."""
        self._watched.append(eventfd)
        self._loop.add_reader(eventfd, self._signalled, eventfd, ready)

    def wake(self) -> None:
        """Have a turn soon. Before :meth:`start` this does nothing: it begins with a turn."""
        if not self._turn_is_due and self._turn is not None:
            self._turn_is_due = True
            self._loop.call_soon(self._take_turn)

    def post(self, call: Callable[[], None]) -> None:
        """From any thread: have ``call`` made on the loop's. Once that is closed nothing is."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._run, call)

    def fail(self, error: Error) -> None:
        """End it all with ``error``; the first one counts."""
        if not self.failed.done():
            self.failed.set_result(error)

    def figures(self) -> LoopFigures:
        """How long the loop was held up lately."""
        now = time.monotonic()
        return LoopFigures(self._turns.seconds(now), self._lateness.seconds(now))

    def stop(self) -> None:
        """Drive nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        for eventfd in self._watched:
            self._loop.remove_reader(eventfd)
        self._watched.clear()
        self._turn = None
        self._ticks.clear()
        self.failed.cancel()

    def _signalled(self, eventfd: int, ready: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(eventfd)
        self._run(ready)

    def _take_turn(self) -> None:
        self._turn_is_due = False
        if self._turn is not None:
            self._run(self._turn)

    def _tick(self) -> None:
        # A loop that was held up, or a process that was stopped, ticks once and not for all the
        # time that it missed: a peer's silence can't be told from one's own sleep.
        now = time.monotonic()
        self._lateness.note(now - self._tick_due, now)
        self._await_tick(now)
        for tick in self._ticks:
            self._run(tick)

    def _await_tick(self, now: float) -> None:
        self._tick_due = now + self._tick_s
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    def _run(self, call: Callable[[], None]) -> None:
        if self.failed.done():
            return
        began = time.monotonic()
        try:
            call()
        except InternalError as error:
            log.exception("a replica failed")
            self.fail(error)
        except Error as error:
            self.fail(error)
        except Exception as error:
            log.exception("a replica failed")
            self.fail(InternalError(f"{type(error).__name__}: {error}"))
        now = time.monotonic()
        self._turns.note(now - began, now)
