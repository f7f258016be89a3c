"""How far a member's log was durable, noted outside the log: what is missing later was lost.

A log alone can't tell that its end is gone: a newest segment that was cut, zeroed or removed looks
like that of a crash. A member's vote rests on it, so the file ``LOGEND`` beside the log says up to
where it was durable some time ago, and which term and vote were. It is written behind the log, and
no write or vote waits for it: by a worker within a tick of a change of segment, term or vote, once
a second while entries come, and when the log was closed.

A log that ends before the note lost something (``MemberLog.short``). One that goes on behind it is
right; a log without a note is of an earlier build, or the note was lost: it opens, and gets one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from kvstore._engine.files.native import FileSystem, TwoCopies
from kvstore.errors import CorruptionError, Error, IntegrityCode
from kvstore.raft import HardState
from kvstore.raft.messages import NOBODY
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs, raise_unless_passing

__all__ = [
    "LogNote",
    "NoteFile",
    "NoteKeeper",
    "NotedLog",
    "check_note",
    "hard_state_after_loss",
]

MAGIC = b"kvlogend"
NOTE_S = 1.0
"""Between two notes while nothing changes but how many entries there are."""

# Segment, offset, term, vote, 1 for a log that was closed.
_FIELDS = struct.Struct("<QQQQB")


class LogNote(NamedTuple):
    """Up to ``offset`` of ``segment`` the log was durable, and so were ``term`` and ``vote``.

    ``closed``: nothing was written after that, as far as who noted it knew.
    """

    segment: int
    offset: int
    term: int
    vote: int
    closed: bool = False


class NoteFile:
    """The file with a member's note."""

    def __init__(self, filesystem: FileSystem, path: str) -> None:
        """Read it. Raises CorruptionError for one of a later version, StorageError."""
        self._copies = TwoCopies(filesystem, path, MAGIC)
        fields, self.damage = self._copies.load()
        """What is wrong with it, empty where nothing is. Then the note may be an older one."""
        self.found: LogNote | None = None
        """What it said when it was read; None: nothing that can be used."""
        if fields is not None:
            segment, offset, term, vote, closed = _FIELDS.unpack_from(fields)
            self.found = LogNote(segment, offset, term, vote, bool(closed))
        self.newest = self.found
        """What it says now."""

    @property
    def log_id(self) -> bytes | None:
        """The log that it is about; None where it says nothing."""
        return self._copies.owner or None

    def write(self, note: LogNote, log_id: bytes) -> bool:
        """Say so, durably; False where another note is on its way and doesn't arrive. Any thread.

        Raises StorageError.
        """
        self._copies.owner = log_id
        stored = self._copies.store(_FIELDS.pack(*note))
        if stored:
            self.newest = note
        return stored


def check_note(filesystem: FileSystem, path: str) -> None:
    """Raise CorruptionError where a copy of the note in ``path`` is damaged; StorageError.

    It may be written meanwhile: what is damaged stays so.
    """
    for _ in range(3):
        damage = NoteFile(filesystem, path).damage
        if not damage:
            return
    raise CorruptionError(damage, code=IntegrityCode.CHECKSUM_MISMATCH, path=path)


class NotedLog(Protocol):
    """The log, as far as its note is concerned: :class:`kvstore.replica.storage.MemberLog`."""

    @property
    def noted(self) -> LogNote | None:
        """What the note says now."""

    def to_note(self) -> LogNote | None:
        """What could be noted; None: not now."""

    def write_note(self, note: LogNote) -> bool:
        """Note it. Any thread."""


class NoteKeeper:
    """Has the note of a running member's log written."""

    def __init__(self, log: NotedLog, jobs: Jobs, tick_s: float) -> None:
        self._log = log
        self._jobs = jobs
        self._pause_ticks = self._ticks = ticks_of(NOTE_S, tick_s)
        self._failed = False
        # So many notes are to be written though there is nothing new.
        self._again = 0
        self._renewed: Callable[[], object] = int

    def renew(self, renewed: Callable[[], object]) -> None:
        """A copy of the note is damaged: write both, and say so when they are."""
        self._again = 2
        self._renewed = renewed

    def tick(self) -> None:
        """One tick has passed: what happened since the last note may be worth another one."""
        self._ticks -= 1
        note = self._log.to_note()
        before = self._log.noted
        if note is None or (note == before and not self._again):
            return
        urgent = (
            self._again or before is None or note._replace(offset=0) != before._replace(offset=0)
        )
        if (urgent and not self._failed) or self._ticks <= 0:
            job = partial(self._log.write_note, note)
            if self._jobs.start("log's end", job, self._written):
                self._ticks = self._pause_ticks

    def _written(self, outcome: bool | Error) -> None:
        self._failed = outcome is not True
        if not self._failed:
            before, self._again = self._again, max(0, self._again - 1)
            if before == 1:
                self._renewed()
        if isinstance(outcome, Error):
            raise_unless_passing(outcome)


def hard_state_after_loss(left: HardState, noted: LogNote) -> HardState:
    """What to go on with, standing aside (raft/damage.py), where a log ends before its note.

    ``left``: the hard state that the log still has. That of a log that was closed is in the note.
    Of one that wasn't a vote may be missing that was given just before the end, in the term after
    that one: a note follows within a tick, and no two elections do. So that term is left out.
    """
    newest = left
    if (noted.term, noted.vote) > (left.term, left.vote):
        newest = left._replace(term=noted.term, vote=noted.vote)
    if not noted.closed:
        newest = newest._replace(term=newest.term + 1, vote=NOBODY)
    return newest._replace(damaged=True)
