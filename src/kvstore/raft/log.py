"""The log in memory: what is known, what is durable, what is committed, what was handed out.

::

    offset        offered <= commit                      stable        handed        last
      |  (kept)      |          |                           |             |            |
      +--------------+----------+---------------------------+-------------+------------+
      the tail of what the       in the log and durable      being written  not given
      state machine holds                                                   to the disk yet

``offset`` is the last entry that is gone from memory: covered by the state machine. From ``oldest``
on entries can be read back from the disk (0: none can). ``stable`` is the last
one that is durable here, ``handed`` the last one given out to be written. ``commit`` may be past
``stable``: a quorum of others can commit what isn't durable here yet. Entries are offered for
application only up to the lesser of the two.

Of a *hollow* entry index and term are known and the data isn't, until it is mended
(``mending.py``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter

from kvstore.errors import InternalError
from kvstore.raft.messages import Entry, SnapshotMeta

__all__ = ["Log"]

_data = itemgetter(3)


class Log:
    """Entries ``offset + 1`` to ``last`` and the marks above.

    ``ends`` holds for each entry the payload bytes up to and with it, counted from the start of
    this object's life; ``run_starts`` and ``run_terms`` the first index and the term of each
    stretch of entries of one term, so that looking for a term is a bisection.
    """

    __slots__ = (
        "applied",
        "base",
        "commit",
        "ends",
        "entries",
        "handed",
        "hollow",
        "last",
        "offered",
        "offset",
        "offset_term",
        "oldest",
        "run_starts",
        "run_terms",
        "stable",
    )

    def __init__(self, offset: int, offset_term: int) -> None:
        self.oldest = 0
        self.reset(offset, offset_term)

    def reset(self, offset: int, offset_term: int) -> None:
        """Forget everything; the log starts after ``offset``, which a snapshot covers."""
        self.offset = offset
        self.offset_term = offset_term
        if self.oldest:
            # What is on the disk from before may have come from another leader.
            self.oldest = offset + 1
        self.last = offset
        self.stable = offset
        self.handed = offset
        self.commit = offset
        self.offered = offset
        self.applied = offset
        self.base = 0
        self.entries: list[Entry] = []
        self.ends: list[int] = []
        self.run_starts: list[int] = []
        self.run_terms: list[int] = []
        self.hollow: set[int] = set()

    # Reading

    @property
    def whole(self) -> int:
        """The last entry before the first hollow one; without any, the last one of all."""
        return min(self.hollow) - 1 if self.hollow else self.last

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self.entries[-1][0] if self.entries else self.offset_term

    @property
    def size(self) -> int:
        """Payload bytes kept."""
        return self.ends[-1] - self.base if self.ends else 0

    def term(self, index: int) -> int:
        """The term at ``index``, or -1 when it isn't known here."""
        at = index - self.offset
        if at > 0:
            return self.entries[at - 1][0] if index <= self.last else -1
        return self.offset_term if at == 0 else -1

    def bytes_between(self, after: int, upto: int) -> int:
        """Payload bytes of the entries ``after + 1`` to ``upto``."""
        return self._end(upto) - self._end(after)

    def _end(self, index: int) -> int:
        at = index - self.offset
        return self.ends[at - 1] if at > 0 else self.base

    def slice(self, first: int, upto: int, bytes_max: int) -> Sequence[Entry]:
        """Entries from ``first`` to ``upto``, cut where ``bytes_max`` is passed; at least one."""
        start = first - self.offset - 1
        stop = upto - self.offset
        limit = (self.ends[start - 1] if start else self.base) + bytes_max
        if self.ends[stop - 1] > limit:
            stop = max(bisect_right(self.ends, limit, start, stop), start + 1)
        return self.entries[start:stop]

    def covers(self, last_index: int, last_term: int) -> bool:
        """True when a log that ends there is at least as up to date as this one (Raft §5.4.1)."""
        mine = self.last_term
        return last_term > mine or (last_term == mine and last_index >= self.last)

    def common(self, index: int, term: int) -> int:
        """The last place up to ``index`` whose term is at most ``term`` (Raft §5.3).

        Given the end of one log and its term, nothing after that place of the other can be
        equal: terms never fall along a log. 0 when no such place is kept.

        Of what is on the disk alone the terms aren't known: the answer may be too high there, and
        the other side then refuses once more.
        """
        run = bisect_right(self.run_terms, term)
        if run == 0:
            if self.offset_term <= term:
                return min(index, self.offset)
            place = min(index, self.offset - 1)
            return place if 0 < self.oldest <= place else 0
        end = self.run_starts[run] - 1 if run < len(self.run_starts) else self.last
        return min(index, end)

    # Writing

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one."""
        first = entries[0]
        term = entries[-1][0]
        if first[1] != self.last + 1:
            raise InternalError("a hole in the log")
        if entries[-1][1] != self.last + len(entries):
            raise InternalError("a hole in a batch")
        if first[0] < self.last_term:
            raise InternalError("terms never fall along a log (Raft §5.3)")
        if first[0] == term:
            self._note_run(self.last + 1, term)
        else:
            for entry in entries:
                self._note_run(entry[1], entry[0])
        ends = self.ends
        sums = accumulate(map(len, map(_data, entries)), initial=ends[-1] if ends else self.base)
        next(sums)
        ends.extend(sums)
        self.entries.extend(entries)
        self.last += len(entries)

    def _note_run(self, index: int, term: int) -> None:
        if not self.run_terms or self.run_terms[-1] < term:
            self.run_starts.append(index)
            self.run_terms.append(term)

    def news(self, entries: Sequence[Entry]) -> int:
        """How many of ``entries``, which may overlap with the log, it has already.

        The answer is the position of the first that is missing or has another term.
        """
        first = entries[0][1]
        if first == self.last + 1:
            return 0
        for position in range(max(0, self.commit + 1 - first), len(entries)):
            entry = entries[position]
            if entry[1] > self.last or self.term(entry[1]) != entry[0]:
                return position
        return len(entries)

    def truncate(self, index: int) -> None:
        """Drop ``index`` and all after it: a leader's log wins over them (Raft §5.3)."""
        if index <= self.commit:
            raise InternalError("a committed entry is never dropped (Raft §5.4.3)")
        keep = index - self.offset - 1
        del self.entries[keep:]
        del self.ends[keep:]
        runs = bisect_left(self.run_starts, index)
        del self.run_starts[runs:]
        del self.run_terms[runs:]
        self.last = index - 1
        self.stable = min(self.stable, self.last)
        self.handed = min(self.handed, self.last)
        if self.hollow:
            self.hollow = {hollow for hollow in self.hollow if hollow < index}

    def mend(self, entry: Entry) -> None:
        """A hollow entry is known in full, and durable."""
        index = entry.index
        at = index - self.offset - 1
        self.hollow.remove(index)
        self.entries[at] = entry
        size = len(entry.data)
        self.ends[at:] = [end + size for end in self.ends[at:]]

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Start over after a snapshot from the leader (Raft §7)."""
        self.reset(snapshot.index, snapshot.term)

    def compact(self, index: int) -> None:
        """Forget the entries up to ``index``, which the state machine holds."""
        if index > self.applied:
            raise InternalError("only what was applied can go")
        if index > self.handed:
            raise InternalError("only what was given to the disk can go")
        drop = index - self.offset
        if drop <= 0:
            return
        self.offset_term = self.entries[drop - 1][0]
        self.base = self.ends[drop - 1]
        self.offset = index
        del self.entries[:drop]
        del self.ends[:drop]
        if self.hollow:
            self.hollow = {hollow for hollow in self.hollow if hollow > index}
        runs = bisect_right(self.run_starts, index + 1)
        if runs:
            # The stretch that reaches past the cut stays, and starts where the log does now.
            self.run_starts = self.run_starts[runs - 1 :]
            self.run_terms = self.run_terms[runs - 1 :]
            if self.entries:
                self.run_starts[0] = index + 1
            else:
                self.run_starts = []
                self.run_terms = []

    def tail_start(self, entries_kept: int, bytes_kept: int) -> int:
        """The index to compact to so that at most so many entries and bytes stay."""
        excess = self.size - bytes_kept
        by_bytes = bisect_left(self.ends, self.base + excess) + 1 if excess > 0 else 0
        return self.offset + max(0, by_bytes, len(self.entries) - entries_kept)

    # Marks

    def take_unwritten(self) -> Sequence[Entry]:
        """What the disk was not given yet; it counts as given from now on."""
        if self.handed == self.last:
            return ()
        entries = self.entries[self.handed - self.offset :]
        self.handed = self.last
        return entries

    def has_committed(self, bytes_max: int) -> bool:
        """True when ``take_committed`` would give something."""
        offered = self.offered
        if self.commit <= offered or self.stable <= offered:
            return False
        applied = self.applied
        return applied >= offered or self.bytes_between(applied, offered) < bytes_max

    def take_committed(self, bytes_max: int) -> Sequence[Entry]:
        """What can be applied next, at most so many payload bytes beyond what was applied."""
        if not self.has_committed(bytes_max):
            return ()
        upto = self.commit if self.commit < self.stable else self.stable
        room = bytes_max
        if self.applied < self.offered:
            room -= self.bytes_between(self.applied, self.offered)
        entries = self.slice(self.offered + 1, upto, room)
        self.offered += len(entries)
        return entries
