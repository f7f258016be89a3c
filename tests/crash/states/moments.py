"""Taking after-crash disks while a workload runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from kvstore._engine.files.native import MemoryFileSystem

__all__ = ["Case", "Moments", "Taken", "Tally", "digest_of"]

Keep = Literal["none", "prefix", "random", "all"]

CHANGES = frozenset(
    (
        "open",
        "pwrite",
        "datasync",
        "allocate",
        "truncate",
        "rename",
        "link",
        "unlink",
        "make_directory",
        "remove_directory",
        "sync_directory",
    )
)
"""Before these the disk is looked at: between two of them it stays as it is."""

HELD_MAX = 100
"""Disks that wait to be checked: one is some MiB."""

Promise = TypeVar("Promise")


class Case(NamedTuple):
    """Which disk: its number tells the moment and the draw, so that it can be made again."""

    moment: int
    way: int


class Taken(NamedTuple, Generic[Promise]):
    """A disk, and what had been promised when the power went."""

    case: Case
    disk: MemoryFileSystem
    digest: int
    promise: Promise


@dataclass
class Tally:
    """What was tried: ``states`` are those that differ from each other."""

    moments: int = 0
    disks: int = 0
    states: set[int] = field(default_factory=set)


class Moments(Generic[Promise]):
    """Disks of one workload, checked after its steps, and within one where they become many."""

    def __init__(
        self,
        disk: MemoryFileSystem,
        seed: int,
        ways: int,
        promised: Callable[[], Promise],
        check: Callable[[Taken[Promise]], None],
        tally: Tally,
        only: Case | None = None,
    ) -> None:
        """``ways``: draws at each moment, beside the disk with all and the one with what is synced.

        ``promised``: what the disk must hold now, ``check`` raises where one doesn't. Both may be
        asked in the middle of a call.
        """
        self._disk = disk
        self._seed = seed
        self._ways = ways
        self._promised = promised
        self._check = check
        self._error: Exception | None = None
        self._tally = tally
        self._only = only
        self._moment = 0
        self._taken: list[Taken[Promise]] = []
        disk.on_operation = self._before

    def check(self) -> None:
        """Check what was taken since; raises what that raised."""
        self._check_taken()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more."""
        self._disk.on_operation = None

    def _check_taken(self) -> None:
        taken, self._taken = self._taken, []
        for one in taken:
            if self._error is None:
                try:
                    self._check(one)
                except Exception as error:  # noqa: BLE001 - told by check()
                    self._error = error

    def _before(self, operation: str, path: str) -> None:
        if operation not in CHANGES:
            return
        self._moment += 1
        self._tally.moments += 1
        drawn: set[int] = set()
        for way in range(self._ways + 2):
            case = Case(self._moment, way)
            if self._only is not None and case != self._only:
                continue
            left = self._disk.crash(random.Random(f"{self._seed}/{case}"), _keep(way))
            digest = digest_of(left)
            self._tally.disks += 1
            if digest not in drawn:
                drawn.add(digest)
                self._tally.states.add(digest)
                self._taken.append(Taken(case, left, digest, self._promised()))
        if len(self._taken) >= HELD_MAX:
            self._check_taken()


def _keep(way: int) -> Keep:
    if way < 2:
        return ("none", "all")[way]
    return ("prefix", "random")[way % 2]


def digest_of(disk: MemoryFileSystem) -> int:
    """The same for the same names with the same bytes, within one process: disks are many."""
    return hash(tuple((path, disk.read_file(path)) for path in disk.files()))
