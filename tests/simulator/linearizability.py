"""Is a history of puts, gets and deletes linearizable? (Herlihy and Wing, TOPLAS 1990)

Each key is a register of its own, and linearizability is local: a history is linearizable if that
of each key is. For one key the checker walks through calls and returns in the order of time and
keeps every *configuration* that could be true by now: the register's value, and which of the
operations under way have taken effect already. An operation is made to take effect as late as
possible, when it (or another one that needs it) returns (just-in-time linearization: Lowe,
"Testing for linearizability", 2017). No configuration left means that no order explains the
history; more than ``configurations_max`` means that the checker gives up, which is never a pass.

An operation whose outcome nobody learnt may take effect at any time after its call, or never.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["CONFIGURATIONS_MAX", "Kind", "Operation", "Report", "Verdict", "check"]

CONFIGURATIONS_MAX = 200_000
"""Configurations of one key at one moment beyond which the checker gives up."""


class Kind(enum.Enum):
    """What an operation does to its key."""

    PUT = "put"
    GET = "get"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as its client saw it, however often it was sent.

    ``called`` and ``returned`` are moments on one clock. ``returned`` is None when the outcome is
    unknown; then ``result`` means nothing. The result of a put or delete is whether the key had a
    value, that of a get the value or None.
    """

    client: int
    kind: Kind
    key: bytes
    value: bytes | None
    called: int
    returned: int | None
    result: bool | bytes | None = None

    def __str__(self) -> str:
        told = "?" if self.returned is None else f"{self.returned}: {self.result!r}"
        value = f", {self.value!r}" if self.kind is Kind.PUT else ""
        return f"client {self.client} {self.kind.value}({self.key!r}{value}) {self.called}..{told}"


class Verdict(enum.Enum):
    """What is known about a history after checking it."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


class Report(NamedTuple):
    """A verdict; ``story`` tells a reader why it isn't LINEARIZABLE."""

    verdict: Verdict
    story: str = ""


def check(history: Iterable[Operation], *, configurations_max: int = CONFIGURATIONS_MAX) -> Report:
    """Whether one order of the operations, each between its call and its return, explains them.

    All keys begin without a value. A key that isn't linearizable outweighs one that is undecided.
    """
    by_key: dict[bytes, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    undecided: Report | None = None
    for key in sorted(by_key):
        report = _Register(by_key[key], configurations_max).check()
        if report.verdict is Verdict.NOT_LINEARIZABLE:
            return report
        if report.verdict is Verdict.UNDECIDED:
            undecided = undecided or report
    return undecided or Report(Verdict.LINEARIZABLE)


# A configuration: (set of operations under way that have taken effect, as bits; the value).
_Configuration = tuple[int, int]
_ABSENT = 0


class _Register:
    """The check of one key."""

    def __init__(self, operations: Sequence[Operation], configurations_max: int) -> None:
        self._bound = configurations_max
        read = {op.result for op in operations if op.kind is Kind.GET and op.returned is not None}
        # Values as small numbers. Those that nobody read can't be told apart: all of them are 1.
        numbers: dict[bytes | bool | None, int] = {None: _ABSENT}
        for value in sorted(value for value in read if isinstance(value, bytes)):
            numbers[value] = len(numbers) + 1
        self._operations = [
            op for op in operations if op.returned is not None or op.kind is not Kind.GET
        ]
        self._targets = [numbers.get(op.value, 1) for op in self._operations]
        self._results = [
            numbers[op.result] if op.kind is Kind.GET else int(bool(op.result))
            for op in self._operations
        ]
        self._under_way: list[int] = []

    def check(self) -> Report:
        """Walk through the history."""
        operations = self._operations
        events: list[tuple[int, int, int]] = []
        for place, operation in enumerate(operations):
            # At the same moment calls come before returns: touching operations overlap.
            events.append((operation.called, 0, place))
            if operation.returned is not None:
                events.append((operation.returned, 1, place))
        configurations: set[_Configuration] = {(0, _ABSENT)}
        for _, is_return, place in sorted(events):
            if not is_return:
                self._under_way.append(place)
                continue
            before = configurations
            found = self._after_return(place, before)
            if found is None:
                return Report(
                    Verdict.UNDECIDED,
                    f"more than {self._bound} configurations at {operations[place]}",
                )
            if not found:
                return Report(Verdict.NOT_LINEARIZABLE, self._tell(place))
            self._under_way.remove(place)
            configurations = found
        return Report(Verdict.LINEARIZABLE)

    def _effect(self, place: int, value: int) -> int | None:
        """The value after an operation, or None where its result doesn't fit ``value``."""
        operation = self._operations[place]
        if operation.kind is Kind.GET:
            return value if self._results[place] == value else None
        if operation.returned is not None and self._results[place] != (value != _ABSENT):
            return None
        return self._targets[place] if operation.kind is Kind.PUT else _ABSENT

    def _after_return(
        self, place: int, configurations: set[_Configuration]
    ) -> set[_Configuration] | None:
        """The configurations in which ``place`` has taken effect; None when they are too many."""
        bit = 1 << place
        found: set[_Configuration] = set()
        seen: set[_Configuration] = set()
        work = list(configurations)
        while work:
            done, value = work.pop()
            done = self._take_harmless(done, value)
            if done & bit:
                found.add((done & ~bit, value))
                continue
            if (done, value) in seen:
                continue
            seen.add((done, value))
            if len(seen) + len(found) > self._bound:
                return None
            work += self._steps(done, value)
        return found

    def _take_harmless(self, done: int, value: int) -> int:
        """Let what fits and changes nothing take effect: nothing is lost by doing it now."""
        for place in self._under_way:
            if (
                not done >> place & 1
                and self._operations[place].returned is not None
                and self._effect(place, value) == value
            ):
                done |= 1 << place
        return done

    def _steps(self, done: int, value: int) -> list[_Configuration]:
        """The configurations that one more operation leads to."""
        steps = []
        # Of unknown operations that do the same the oldest may stand for all: it can take effect
        # wherever a younger one could.
        unknown_effects: set[int] = set()
        for place in self._under_way:
            if done >> place & 1:
                continue
            after = self._effect(place, value)
            if after is None or after == value:
                continue
            if self._operations[place].returned is None:
                if after in unknown_effects:
                    continue
                unknown_effects.add(after)
            steps.append((done | 1 << place, after))
        return steps

    def _tell(self, place: int) -> str:
        others = "\n".join(f"  {self._operations[other]}" for other in self._under_way)
        recent = sorted(
            (
                operation
                for operation in self._operations
                if operation.returned is not None
                and operation.returned <= (self._operations[place].returned or 0)
            ),
            key=lambda operation: operation.returned or 0,
        )[-8:]
        before = "\n".join(f"  {operation}" for operation in recent)
        return (
            f"no order explains {self._operations[place]}\n"
            f"under way then:\n{others}\nlast to return:\n{before}"
        )
