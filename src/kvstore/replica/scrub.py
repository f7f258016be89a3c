"""Reads and checks all that a member holds, slowly, so that damage is found before it is needed.

A round goes through the state's small files, the log's segments that are written no more, and the
state's tables, each in the order of their numbers, a piece at a time on a worker. What comes into
being meanwhile is for the next round, and what is removed meanwhile was none of its business. How
far it is lies in the file ``SCRUB`` beside the log: a member that is started again goes on there,
and where that file is lost the round begins anew.

Snapshots on their way are not looked at: whoever gets one checks all of it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol

from kvstore._engine.files.native import FileSystem, TwoCopies
from kvstore._engine.log.native import SegmentCheck, log_segments
from kvstore.errors import ClosedError, Error, StorageError
from kvstore.replica.applying import Applying
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.failing import as_damage
from kvstore.replica.log_note import check_note
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.scrub_rate import bytes_per_s
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs
from kvstore.state import StateMachine

__all__ = ["FILE", "MAGIC", "Scrub", "ScrubFigures"]

FILE: Final = "SCRUB"
MAGIC: Final = b"kvscrub\0"
# Kind and number of what was checked last, Unix milliseconds at the end of the last round (0: there
# was none).
_FIELDS = struct.Struct("<QQQ")

PIECE_BYTES: Final = 256 << 10
"""Of the log at a time; a piece of a table is a megabyte or two, whatever it is."""
SAVE_S: Final = 60.0
"""Between two notes of how far it is."""
PATIENCE_S: Final = 60.0
"""So long it gives way to other work at most, then it does one piece all the same."""
RETRY_S: Final = 10.0
"""After something that goes by, as a lack of descriptors."""

PAUSE_PARTS: Final = 1000
"""The next round begins this part of a round's time after one: little is read in seconds, and each
round's end is written down."""

_SMALL_FILES, _SEGMENT, _TABLE = 1, 2, 3


class ScrubFigures(NamedTuple):
    """``progress`` of the round under way, from 0 to 1; -1 where nothing is checked. ``rounds``
    ended, ``bytes`` read and ``damages`` found since the member was opened. ``ended_s``: since a
    round ended last, before the start perhaps; -1: none did yet."""

    progress: float
    rounds: int
    ended_s: float
    bytes: int
    damages: int


class _Check(Protocol):
    """A file under check."""

    def step(self) -> int:
        """Check a piece; its bytes, 0 after the last one. Raises StorageError, ClosedError."""


class _Item(NamedTuple):
    """Something to be checked: ``place`` is its kind and number, in the order of a round."""

    place: tuple[int, int]
    bytes: int


@dataclass(slots=True)
class _Round:
    """What is left of a round through ``machine`` and the log; the first is under ``check``."""

    machine: StateMachine
    items: deque[_Item]
    bytes: int
    done_bytes: int
    check: _Check | None = None


class Scrub:
    """Of one member. On the thread that drives it."""

    def __init__(
        self,
        applying: Applying,
        directory: MemberDirectory,
        jobs: Jobs,
        options: ReplicaOptions,
        *,
        owner: bytes,
        damaged: Callable[[StorageError], None],
        gives_way: Callable[[], bool],
        wall: Callable[[], float],
    ) -> None:
        """``owner``: id of the member's log. ``damaged`` is told of each damage that is found.
        ``gives_way``: the disk has other work to do. ``wall``: seconds since 1970."""
        self._applying = applying
        self._directory = directory
        self._jobs = jobs
        self._damaged = damaged
        self._gives_way = gives_way
        self._wall = wall
        self._round_s = options.scrub_round_s
        self._tick_s = options.tick_s
        self._save_ticks = ticks_of(SAVE_S, self._tick_s)
        self._patience_ticks = ticks_of(PATIENCE_S, self._tick_s)
        self._retry_ticks = ticks_of(RETRY_S, self._tick_s)
        self._pause_ticks = ticks_of(max(RETRY_S, self._round_s / PAUSE_PARTS), self._tick_s)
        self._now = 0
        self._round: _Round | None = None
        self._rate = 0.0
        # Bytes that may be read now; below 0 it waits.
        self._credit = 0.0
        self._waited = 0
        self._hurried = False
        self._not_before = self._retry_ticks
        self._saved_at = 0
        self._file = _PlaceFile(directory.filesystem, f"{directory.path}/{FILE}", owner)
        self._place = self._file.place
        self._ended_at_s = self._file.ended_ms / 1000
        self._rounds = 0
        self._bytes = 0
        self._damages = 0
        self.damage: StorageError | None = None
        """What was found last."""

    def figures(self) -> ScrubFigures:
        """This moment."""
        progress = -1.0
        if self._round_s or self._hurried:
            now = self._round
            progress = 0.0 if now is None or not now.bytes else now.done_bytes / now.bytes
        ended_s = -1.0
        if self._ended_at_s:
            ended_s = max(0.0, self._wall() - self._ended_at_s)
        return ScrubFigures(min(progress, 1.0), self._rounds, ended_s, self._bytes, self._damages)

    def hurry(self) -> None:
        """Begin a round anew now, and go through it without a pause and without giving way, for
        somebody who waits. Also where there are no rounds otherwise."""
        self._round = None
        self._place = (0, 0)
        self._hurried = True
        self._not_before = self._now
        self._credit = 0.0

    def found_beside(self, error: StorageError) -> None:
        """Files of the process were damaged, which aren't this member's own and are mended."""
        self._damages += 1
        self.damage = error

    def close(self) -> None:
        """Check nothing more, and let go of what is under check."""
        self._round = None
        self._round_s = 0.0
        self._hurried = False

    def tick(self) -> None:
        """One tick has passed: is it time for a piece?"""
        self._now += 1
        if self._now < self._not_before:
            return
        if self._hurried:
            self._go_on()
        elif self._round_s:
            self._credit = min(self._credit + self._rate * self._tick_s, 0.0)
            if self._credit == 0.0 and not self._must_give_way():
                self._go_on()

    def _must_give_way(self) -> bool:
        self._waited += 1
        if self._waited < self._patience_ticks and self._gives_way():
            return True
        self._waited = 0
        return False

    def _go_on(self) -> None:
        """Have the next piece checked, unless one is."""
        if self._applying.is_installing:
            return
        machine = self._applying.machine
        now = self._round
        if now is None or now.machine is not machine:
            self._round = None
            plan = partial(_plan, machine, self._directory, self._place)
            self._jobs.start("scrub", plan, partial(self._planned, machine, self._place))
        elif now.items:
            step = partial(_step, now, self._directory)
            self._jobs.start("scrub", step, partial(self._stepped, now))
        else:
            self._end_round()

    def _planned(
        self,
        machine: StateMachine,
        place: tuple[int, int],
        outcome: tuple[list[_Item], int] | Error,
    ) -> None:
        if machine is not self._applying.machine or place != self._place:
            return  # of another state, or of a round that somebody didn't wait for
        if isinstance(outcome, Error):
            if not isinstance(outcome, StorageError | ClosedError):
                raise outcome
            # Names and sizes couldn't be had; what can't be read is found when it is.
            self._not_before = self._now + self._retry_ticks
            return
        items, total = outcome
        done = total - sum(item.bytes for item in items)
        self._round = _Round(machine, deque(items), total, done)
        if self._round_s:
            self._rate = bytes_per_s(total, self._round_s)

    def _stepped(self, now: _Round, outcome: int | Error) -> None:
        if now is not self._round or now.machine is not self._applying.machine:
            return  # it was another state's
        if isinstance(outcome, Error):
            self._failed(now, outcome)
        elif outcome:
            self._bytes += outcome
            self._credit -= outcome
            now.done_bytes += outcome
        else:
            self._next(now)
        if self._hurried and self._now >= self._not_before:
            self._go_on()

    def _next(self, now: _Round) -> None:
        """The first of the items is done."""
        self._place = now.items.popleft().place
        now.check = None
        now.done_bytes = now.bytes - sum(item.bytes for item in now.items)
        if self._now >= self._saved_at + self._save_ticks:
            self._save()

    def _failed(self, now: _Round, error: Error) -> None:
        now.check = None
        if isinstance(error, StorageError) and not error.retryable:
            self._damages += 1
            self.damage = as_damage(error)
            self._next(now)
            self._damaged(self.damage)
        elif isinstance(error, StorageError | ClosedError):
            # From the beginning of that file, later.
            self._not_before = self._now + self._retry_ticks
        else:
            raise error

    def _end_round(self) -> None:
        self._round = None
        self._hurried = False
        self._rounds += 1
        self._place = (0, 0)
        self._ended_at_s = self._wall()
        self._save()
        self._not_before = self._now + self._pause_ticks

    def _save(self) -> None:
        self._saved_at = self._now
        save = partial(self._file.save, self._place, int(self._ended_at_s * 1000))
        self._jobs.start("scrub's place", save, self._saved)

    def _saved(self, outcome: Error | None) -> None:
        # What couldn't be noted is checked once more after a start.
        if outcome is not None and not isinstance(outcome, StorageError):
            raise outcome


class _PlaceFile:
    """Where a round is, over starts."""

    def __init__(self, filesystem: FileSystem, path: str, owner: bytes) -> None:
        self.place = (0, 0)
        self.ended_ms = 0
        self._copies = TwoCopies(filesystem, path, MAGIC, owner)
        try:
            fields, _ = self._copies.load()
        except StorageError:
            fields = None  # of another member, or can't be read: nothing rests on it
        if fields is not None:
            kind, number, self.ended_ms = _FIELDS.unpack_from(fields)
            self.place = (kind, number)

    def save(self, place: tuple[int, int], ended_ms: int) -> None:
        """Any thread. Raises StorageError."""
        self._copies.store(_FIELDS.pack(*place, ended_ms))


# --- on a worker ---------------------------------------------------------------------------------


def _plan(
    machine: StateMachine, directory: MemberDirectory, after: tuple[int, int]
) -> tuple[list[_Item], int]:
    """What is behind ``after`` in a round, and the bytes of the whole round."""
    filesystem, path = directory.filesystem, directory.log
    items = [_Item((_SMALL_FILES, 0), int(machine.statistics()["manifest_bytes"]))]  # type: ignore[call-overload]
    for number in log_segments(filesystem, path)[:-1]:
        try:
            size = filesystem.size(f"{path}/{number:06d}.wal")
        except StorageError:
            continue  # the log has let it go since
        items.append(_Item((_SEGMENT, number), size))
    items += [_Item((_TABLE, number), size) for number, size in machine.live_tables()]
    return [item for item in items if item.place > after], sum(item.bytes for item in items)


def _step(now: _Round, directory: MemberDirectory) -> int:
    """The next piece of the first of the items; 0: it is done, or isn't there any more."""
    if now.check is None:
        now.check = _open(now.items[0], now.machine, directory)
    return 0 if now.check is None else now.check.step()


def _open(item: _Item, machine: StateMachine, directory: MemberDirectory) -> _Check | None:
    kind, number = item.place
    if kind == _TABLE:
        return machine.check_table(number)
    if kind == _SEGMENT:
        return _Segment(directory.filesystem, directory.log, number)
    return _SmallFiles(machine, directory)


class _SmallFiles:
    """Those of the state, and the note of the log's end: a piece by themselves."""

    def __init__(self, machine: StateMachine, directory: MemberDirectory) -> None:
        self._machine = machine
        self._directory = directory
        self._done = False

    def step(self) -> int:
        if self._done:
            return 0
        self._done = True
        check_note(self._directory.filesystem, self._directory.log_note)
        return self._machine.check_small_files()


class _Segment:
    """A segment of the log, which may go at any time."""

    def __init__(self, filesystem: FileSystem, path: str, number: int) -> None:
        self._check = SegmentCheck(filesystem, path, number)
        self._filesystem = filesystem
        self._path = path
        self._number = number

    def step(self) -> int:
        try:
            return self._check.step(PIECE_BYTES)
        except StorageError:
            if self._number in log_segments(self._filesystem, self._path)[:-1]:
                raise
            # It was let go of, and its file is used anew.
            return 0
