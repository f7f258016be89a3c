"""Clients that write and read throughout, and remember what they were told."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from kvstore.client import Client
from kvstore.errors import Error
from tests.simulator.linearizability import Kind, Operation, Report, Verdict, check

PAUSE_S = 0.004
"""Between two operations of a client: a history that can be checked, not a benchmark."""
PATIENCE_S = 60.0
"""An operation that takes longer is given up, with an outcome that nobody knows."""


class Load:
    """``clients`` threads on a few keys of their own; a context manager, then :meth:`judge`."""

    def __init__(
        self, connect: Callable[[float], Client], name: str, clients: int = 6, *, seed: int = 0
    ) -> None:
        self._connect = connect
        self._seed = seed
        self.keys = [f"{name}/{number}".encode() for number in range(5)]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.history: list[Operation] = []
        self.finished: list[tuple[float, bool]] = []
        """Moments at which calls came back, and whether that was a write."""
        self.failures: list[BaseException] = []
        self.failed: list[str] = []
        """What calls that were given up ended with."""
        self._progress = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]

    def _run(self, number: int) -> None:
        rng = random.Random(self._seed + number)
        try:
            with self._connect(PATIENCE_S) as client:
                made = 0
                while not self._stopping.is_set():
                    made += 1
                    self._one(client, rng, number, made)
                    self._stopping.wait(PAUSE_S)
        except BaseException as error:  # noqa: BLE001
            self.failures.append(error)

    def _one(self, client: Client, rng: random.Random, number: int, made: int) -> None:
        key = rng.choice(self.keys)
        chance = rng.random()
        kind = Kind.GET if chance < 0.4 else Kind.DELETE if chance < 0.5 else Kind.PUT
        value = f"{number}.{made}".encode() if kind is Kind.PUT else None
        self._do(client, Operation(number, kind, key, value, time.monotonic_ns(), None))

    def _do(self, client: Client, operation: Operation) -> None:
        result: bool | bytes | None
        try:
            if operation.kind is Kind.GET:
                result = client.get(operation.key)
            elif operation.kind is Kind.DELETE:
                result = client.delete(operation.key)
            else:
                assert operation.value is not None
                result = client.put(operation.key, operation.value)
        except Error as error:
            with self._lock:
                self.history.append(operation)
                self.failed.append(repr(error))
            return
        returned = time.monotonic_ns()
        with self._progress:
            self.history.append(replace(operation, returned=returned, result=result))
            self.finished.append((returned / 1e9, operation.kind is not Kind.GET))
            self._progress.notify_all()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 10)

    def wait_for_writes(self, count: int, timeout: float = 60.0) -> None:
        """Return when so many more writes came back from now on."""
        end = time.monotonic() + timeout
        with self._progress:
            wanted = sum(wrote for _, wrote in self.finished) + count
            while sum(wrote for _, wrote in self.finished) < wanted:
                left = end - time.monotonic()
                if left <= 0 or not self._progress.wait(left):
                    raise TimeoutError(f"{count} writes did not come back in {timeout:.0f} s")

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time within [begin, end] in which no call came back, in seconds."""
        with self._lock:
            moments = [at for at, _ in self.finished if begin < at < end]
        moments = sorted([begin, *moments, end])
        return max(b - a for a, b in itertools.pairwise(moments))

    def acknowledged_writes(self) -> int:
        """So many by now."""
        return self.writes_between(float("-inf"), float("inf"))

    def writes_between(self, begin: float, end: float) -> int:
        """Writes that were acknowledged then."""
        with self._lock:
            return sum(wrote for at, wrote in self.finished if begin < at < end)

    def judge(self) -> Report:
        """Read every key once more, and check the whole history. To be called after the end."""
        assert not self.failures, self.failures
        with self._connect(PATIENCE_S) as client:
            for key in self.keys:
                self._do(client, Operation(-1, Kind.GET, key, None, time.monotonic_ns(), None))
        # A read of which nobody knows the result says nothing.
        known = [one for one in self.history if one.kind is not Kind.GET or one.returned]
        return check(known)


__all__ = ["Load", "Verdict"]
