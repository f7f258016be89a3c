"""A member's durable records, on the one log: identity, hard state, snapshot marks, entries.

| kind | record | index, term |
|---|---|---|
| 1, 2, 3 | entry: command, membership, empty (1 + EntryKind); the payload is its data | its own |
| 8 | hard state (codec); the newest counts | 0, 0 |
| 9 | snapshot mark (codec): entries up to it are in the state machine | 0, 0 |
| 10 | identity of the member | 0, 0 |
| 11 | u64 index: entries before that one are void, by a snapshot; 1 in a new log | 0, 0 |

An entry whose index is not above the last one's replaces that one and all after it (Raft §5.3).

Of a record whose payload is damaged the header tells what it was. An entry like that stays in its
place without its data (:attr:`MemberLog.hollow`), which others have (``kvstore.raft.mending``) and
:meth:`MemberLog.mend` puts back. Of the other kinds the newest must be whole.

Entries up to the mark, which memory holds no more, may still be here: the log's tail, for followers
that need them (:meth:`MemberLog.read_back`).

Beside the log lies a note of how far it was durable (log_note.py).
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable, Sequence

from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore._engine.log.native import Hollow, Log, Recovery
from kvstore._engine.primitives.native import crc32c
from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode, StorageError
from kvstore.raft import (
    Bundle,
    Entry,
    Fetch,
    HardState,
    Membership,
    SnapshotMeta,
    bootstrap,
)
from kvstore.raft.codec import (
    encode_hard_state,
    encode_snapshot_meta,
)
from kvstore.replica.log_loss import (
    ASIDE,
    hard_state_alone,
    newer,
    remove_aside,
    salvage,
    set_aside,
    voters_of,
)
from kvstore.replica.log_note import LogNote, NoteFile, hard_state_after_loss
from kvstore.replica.log_records import (
    HARD_STATE,
    IDENTITY,
    MARK,
    VOID,
    Identity,
    encode_identity,
    encode_index,
)
from kvstore.replica.log_replay import ENTRY_KINDS, Replay
from kvstore.replica.recovery import End, Entries, Findings, LogFound, log_found_by, refused
from kvstore.replica.work import raise_unless_passing

__all__ = ["Identity", "MemberLog"]

_RECORD_HEADER_BYTES = 48
_NO_END = 1 << 62
"""An offset that no segment reaches."""


class MemberLog:
    """One member's log. Opening it reads everything back into the fields below."""

    def __init__(
        self,
        path: str,
        identity: Identity,
        *,
        filesystem: FileSystem | None = None,
        segment_bytes: int = 64 << 20,
        note: NoteFile | None = None,
        forgotten_term: int = 0,
    ) -> None:
        """Open or begin the log at ``path``. ``note``: the file that says how far it was durable.
        ``forgotten_term``: a log that isn't there is gone, and what it promised was in this term at
        most; 0: that isn't known.

        Raises ConfigurationError when it is another member's, CorruptionError when it is damaged or
        gone, StorageError when it can't be read or written.
        """
        self.path = path
        self.hard_state = HardState()
        self.mark = SnapshotMeta()
        self.entries: list[Entry] = []
        self.hollow: frozenset[int] = frozenset()
        self.identity: Identity | None = None
        # Why it can't be opened, where that isn't plain from the error.
        self._refusing: LogFound | None = None
        # Of records whose payload is damaged: place in the log -> where that is.
        self._hollows: dict[tuple[int, int, int], list[Hollow]] = {}
        # Entries before this index came before a snapshot from a leader.
        self._void_before = 0
        # (ticket, bundle, tick at which it was saved) of writes under way, oldest first.
        self._under_way: deque[tuple[int, Bundle, int, float]] = deque()
        # Nobody wants to know how long it takes, until somebody does.
        self._clock: Callable[[], float] = float
        self._synced: Callable[[float], object] = float
        self._now = 0
        self._writer = False
        self._closed = False
        self._note = note
        # Of a log that lost something: term and vote as far as known; identity to be written again;
        # the last entry of those that can't be placed, 0 for none.
        self._promised: HardState | None = None
        self._identity_lost = False
        self._unplaced = 0
        # Who votes, where that stands in what is left out.
        self._last_voters: frozenset[int] | None = None
        self.vote_lost = ""
        """In which way term and vote are damaged, of the only voter; empty: they aren't."""
        self.is_forgotten = False
        """It was begun anew in the place of one that is gone."""
        noted = None if note is None else note.found
        self._disk = PosixFileSystem() if filesystem is None else filesystem
        try:
            self._log = Log(
                path,
                filesystem=self._disk,
                segment_bytes=segment_bytes,
                sticky_kinds=(HARD_STATE, MARK, IDENTITY, VOID),
                log_id=None if note is None else note.log_id,
                noted=None if noted is None else (0, noted.segment, noted.offset),
                report_short=True,
                hollow=True,
                report_damage=noted is not None,
            )
        except CorruptionError as error:
            raise refused(Findings(log=log_found_by(error)), error) from None
        self.is_damaged = self._log.recovery.damaged
        """What is left ends before damage, or can't be placed."""
        self.short = self._log.recovery.short
        """In which way the log, or its newest record of term and vote, lacks what was noted of it;
        empty: it doesn't."""
        self._has_aside = self._is_aside()
        try:
            replay = Replay(self._log, path)
            self._take(replay)
            # What the log durably says, which may be less than what is true.
            self._durable_hard_state = self.hard_state
            # Nor does it say yet, durably, that something was lost.
            self._loss_untold = False
            if forgotten_term and self.is_new and not self._log.recovery.damaged:
                self._begin_anew(forgotten_term, noted)
            else:
                self._judge_loss(identity.member, noted, replay)
            self._check_identity(path, identity)
            self._begin_note()
            if self._has_aside and not self.short and not self.hard_state.damaged:
                remove_aside(self._disk, path)
        except (CorruptionError, ConfigurationError) as error:
            self._log.close()
            raise refused(Findings(log=self._refusing or log_found_by(error)), error) from None
        except BaseException:
            self._log.close()
            raise

    def _take(self, replay: Replay) -> None:
        self.hard_state, self.mark = replay.hard_state, replay.mark
        self.entries, self.hollow = replay.entries, replay.hollow
        self.identity = replay.identity
        self._hollows = replay.hollows
        self._void_before = replay.void_before

    @property
    def recovery(self) -> Recovery:
        """What opening found."""
        return self._log.recovery

    @property
    def findings(self) -> Findings:
        """What opening found, for the table of recovery."""
        log = LogFound.DAMAGED if self.is_damaged else LogFound.WHOLE
        if self.is_forgotten:
            log = LogFound.FORGOTTEN
        end = End.TORN if self.recovery.cut_bytes else End.RIGHT
        if self.vote_lost:
            end = End.VOTE_ALONE
        elif self.short:
            end = End.SHORT
        return Findings(
            log=log,
            entries=Entries.HOLLOW if self.hollow else Entries.WHOLE,
            end=end,
        )

    def voters(self) -> frozenset[int]:
        """Who votes by the newest list of members that can be read, also behind damage."""
        if self._last_voters is not None:
            return self._last_voters
        return voters_of(self.mark, self.entries, self.hollow)

    def agrees(self, index: int, term: int) -> bool:
        """Whether a state with all up to entry ``index`` of ``term`` (0: unknown) is of this log.

        One that lost its end may have other entries than those that were applied.
        """
        if self.short or self.hard_state.damaged or not term:
            return True
        if index == self.mark.index:
            return term == self.mark.term
        place = index - self.mark.index - 1
        return not 0 <= place < len(self.entries) or term == self.entries[place].term

    @property
    def last_index(self) -> int:
        """Where what was read back ends; as long as ``entries`` holds it."""
        return self.entries[-1].index if self.entries else self.mark.index

    @property
    def note_damage(self) -> str:
        """What of the note couldn't be read: it may be an older one then, or none."""
        return "" if self._note is None else self._note.damage

    # --- whose it is, and how it ends -------------------------------------------------------------

    def _check_identity(self, path: str, identity: Identity) -> None:
        if self.identity is None and self._promised is not None:
            # Its note is of the same log, or there is none; settle() writes it again.
            self.identity = identity
            self._identity_lost = True
        elif self.identity is None:
            if not self.is_new:
                raise CorruptionError(
                    "the log doesn't say whose it is", code=IntegrityCode.INVALID_RECORD, path=path
                )
            self._write_identity(identity, void_before=1)
        elif self.identity != identity:
            raise ConfigurationError(
                f"{path} belongs to member {self.identity.member} of cluster "
                f"{self.identity.cluster!r}, not to member {identity.member} of "
                f"{identity.cluster!r}"
            )

    def _write_identity(self, identity: Identity, *, void_before: int) -> None:
        self._void_before = void_before
        self._log.append_many(
            [
                (IDENTITY, 0, 0, encode_identity(identity)),
                (VOID, 0, 0, encode_index(void_before)),
            ]
        )
        # Who opened it may note that there is a log: one that is missing then was lost.
        self._log.sync()

    # --- what was lost -------------------------------------------------------------------------

    def _judge_loss(self, member: int, noted: LogNote | None, replay: Replay) -> None:
        """What follows from records that are damaged, and from a log that lacks some."""
        unknown = replay.unknown
        if unknown == {HARD_STATE} and not self.short:
            vote_lost = str(replay.lost(HARD_STATE))
            if voters_of(self.mark, self.entries, self.hollow) == {member}:
                self.vote_lost = vote_lost
                self.hard_state = hard_state_alone(self.hard_state, noted, self.entries)
                self._loss_untold = True
                return
            if noted is not None:
                self.short = vote_lost
                unknown = set()
        if unknown and not (unknown == {HARD_STATE} and noted is not None):
            self._refusing = LogFound.VOTE_LOST
            raise replay.lost(min(unknown))
        if noted is not None and not self.short and self._begins_late:
            first = self.entries[0].index
            self.short = f"entries {self.mark.index + 1} to {first - 1} are gone in {self.path}"
            self.is_damaged = True
        if self.short and noted is not None:
            self._take_loss(noted)
        if self.short or self.hard_state.damaged:
            self._drop_unplaced()

    def _take_loss(self, noted: LogNote) -> None:
        """Term and vote are what is left of them, or was noted; _durable_hard_state lacks that."""
        recovery = self._log.recovery
        if not recovery.segments and not self._is_aside():
            self._refusing = LogFound.GONE
            raise ConfigurationError(f"{self.path}: the log is gone, and with it what it promised")
        if recovery.damaged:
            first, _ = self._log.newest_place()
            found = salvage(self._disk, self.path, self._log.log_id, first)
            self.hard_state = newer(self.hard_state, found.hard_state)
            if found.membership is not None:
                self._last_voters = found.membership.voters | found.membership.outgoing
        self._promised = newer(self.hard_state, noted)
        self.hard_state = hard_state_after_loss(self.hard_state, noted)
        self._loss_untold = True
        self._note_durable(self._durable_hard_state)

    def _begin_anew(self, term: int, noted: LogNote | None) -> None:
        """Nothing of it is left: it goes on as one that lost all, in a later term."""
        self.short = f"{self.path}: the log is gone, and with it what it promised"
        self.is_forgotten = True
        self._promised = HardState(term)
        if noted is not None:
            self._promised = newer(self._promised, noted)
        self.hard_state = HardState(self._promised.term + 1, damaged=True)
        self._loss_untold = True

    def _drop_unplaced(self) -> None:
        """What is left can't go on after the mark: a later one, which is lost, said where."""
        if self._begins_late:
            self._last_voters = self.voters()
            self._unplaced = self.entries[-1].index
            self.entries = []
            self.hollow = frozenset()

    @property
    def _begins_late(self) -> bool:
        return bool(self.entries) and self.entries[0].index > self.mark.index + 1

    def _is_aside(self) -> bool:
        """Segments of it were set aside."""
        return any(name.endswith(ASIDE) for name in self._disk.names(self.path))

    def settle(self) -> None:
        """It is decided that the member starts: let go, durably, of what counts for nothing.

        A crash meanwhile leaves a log that has lost the same. Raises StorageError.
        """
        recovery, promised = self._log.recovery, self._promised
        if self.is_damaged and promised is not None and self._note is not None:
            # Whatever is done now, the log ends before this until the loss stands in it.
            segment, offset = self._log.newest_place()
            end = (segment, offset + 1) if segment else (1, _NO_END)
            note = LogNote(*end, promised.term, promised.vote)
            self._note.write(note, self._log.log_id)
            set_aside(self._disk, self.path, recovery.beyond)
            self._has_aside = bool(recovery.beyond) or self._has_aside
        if self._identity_lost and self.identity is not None:
            self._write_identity(self.identity, void_before=self.mark.index + 1)
            self._identity_lost = False
        if self._unplaced:
            self._void_before = self._unplaced + 1
            self._log.append_many([(VOID, 0, 0, encode_index(self._void_before))])
        if self.vote_lost:
            self._append(self.hard_state, None, [])
            self._log.sync()
            self._durable_hard_state = self.hard_state
            self._loss_untold = False
            self._begin_note()

    # --- writing -------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Nothing but its identity was ever written: it may be founded, also in a second try."""
        return self.hard_state == HardState() and not self.entries and not self.mark.index

    def found(self, membership: Membership) -> None:
        """Write what each founder of a new cluster begins with, durably."""
        self.hard_state, entries = bootstrap(membership)
        self.entries = list(entries)
        self._append(self.hard_state, None, self.entries)
        self._log.sync()
        self._durable_hard_state = self.hard_state

    def begin_after(self, mark: SnapshotMeta) -> None:
        """Write what a member of a new cluster begins with whose state is ``mark``'s, durably."""
        self.hard_state = HardState(term=mark.term, commit=mark.index)
        self.mark = mark
        self._append(self.hard_state, mark, [])
        self._log.sync()
        self._durable_hard_state = self.hard_state

    def _append(
        self,
        hard_state: HardState | None,
        mark: SnapshotMeta | None,
        entries: list[Entry],
        *,
        installs: bool = False,
    ) -> int:
        records = []
        if hard_state is not None:
            records.append((HARD_STATE, 0, 0, encode_hard_state(hard_state)))
        if mark is not None:
            records.append((MARK, 0, 0, encode_snapshot_meta(mark)))
            if installs:
                self._void_before = mark.index + 1
                records.append((VOID, 0, 0, encode_index(self._void_before)))
        for term, index, kind, data in entries:
            records.append((1 + kind, index, term, data))
        return self._log.append_many(records)

    def start_writer(self) -> int:
        """Write and sync on a thread from now on; returns the descriptor that turns readable."""
        self._writer = True
        return self._log.start_writer()

    def watch_syncs(self, now: Callable[[], float], synced: Callable[[float], None]) -> None:
        """Tell ``synced`` how long each bundle that is saved from now on takes to be durable, in
        seconds of ``now``."""
        self._clock, self._synced = now, synced

    def save(self, bundle: Bundle) -> None:
        """Begin to make a bundle durable; :meth:`take_durable` gives it back when it is."""
        ticket = self._append(
            bundle.hard_state, bundle.snapshot, list(bundle.entries), installs=True
        )
        self._under_way.append((ticket, bundle, self._now, self._clock()))
        if self._writer:
            self._log.submit()

    def tick(self) -> None:
        """One tick has passed, for :meth:`oldest_ticks`."""
        self._now += 1

    def oldest_ticks(self) -> int:
        """Ticks since the oldest bundle was saved that isn't durable; 0 when all are.

        Raises StorageError once a write or sync has failed.
        """
        if not self._under_way:
            return 0
        durable = self._log.durable_ticket
        for ticket, _, saved_at, _ in self._under_way:
            if ticket > durable:
                return self._now - saved_at
        return 0

    @property
    def out_of_space(self) -> bool:
        """The disk has no room for what was saved; it waits in memory for :meth:`try_again`."""
        return self._log.out_of_space

    def try_again(self) -> None:
        """There may be room by now. Without a writer thread :meth:`sync` does it."""
        if self._writer:
            self._log.submit()

    def sync(self) -> None:
        """Without a writer thread: make everything saved durable, now."""
        self._log.sync()

    def take_durable(self) -> list[Bundle]:
        """The saved bundles that have become durable since the last call, in order.

        Raises StorageError once a write or sync has failed.
        """
        if not self._under_way:
            return []
        durable = self._log.durable_ticket
        done = []
        while self._under_way and self._under_way[0][0] <= durable:
            _, bundle, _, saved_s = self._under_way.popleft()
            self._synced(self._clock() - saved_s)
            self._note_durable(bundle.hard_state)
            done.append(bundle)
        return done

    def _note_durable(self, state: HardState | None) -> None:
        if state is not None:
            self._durable_hard_state = state
            if state.damaged and state.term >= self.hard_state.term:
                self._loss_untold = False

    @property
    def busy(self) -> bool:
        """Something saved isn't durable yet."""
        return bool(self._under_way)

    def write_mark(self, mark: SnapshotMeta) -> int:
        """Write that the state machine durably holds everything up to ``mark``; its ticket."""
        ticket = self._append(None, mark, [])
        if self._writer:
            self._log.submit()
        return ticket

    def is_durable(self, ticket: int) -> bool:
        """What was written with ``ticket``, and all before it, is durable."""
        return self._log.durable_ticket >= ticket

    def begin_next_segment(self) -> int:
        """Have what is saved from now on stand in a new segment, of that number. Any thread."""
        return self._log.begin_next_segment()

    @property
    def oldest_segment(self) -> int:
        """The number of the oldest segment that is there, needed or not."""
        return self._log.oldest_segment

    def remove_before(self, index: int) -> None:
        """Remove segments of entries below ``index``, one by one. Any thread."""
        self._log.remove_before(index)

    # --- the note of its end -------------------------------------------------------------------

    def _begin_note(self) -> None:
        """That the log was closed doesn't hold any more; a log without a note gets one.

        Where a full disk has no room for it now, a tick does it (NoteKeeper).
        """
        note = self.to_note()
        if note is not None and (self.noted is None or self.noted.closed):
            try:
                self.write_note(note)
            except StorageError as error:
                raise_unless_passing(error)

    @property
    def noted(self) -> LogNote | None:
        """What the note beside the log says; None: nothing, or there is to be none."""
        return None if self._note is None else self._note.newest

    def to_note(self) -> LogNote | None:
        """What could be noted now, None for nothing. Not on the writer's thread.

        After a loss not before it is durable that there was one: the note is what tells of it.
        """
        if self._note is None or self._loss_untold:
            return None
        state = self._durable_hard_state
        segment, offset = self._log.newest_place()
        return LogNote(segment, offset, state.term, state.vote) if segment else None

    def write_note(self, note: LogNote) -> bool:
        """Note it, durably; False where another note doesn't arrive. Any thread."""
        if self._note is None or not self._note.write(note, self._log.log_id):
            return False
        if self._has_aside and not self._durable_hard_state.damaged:
            self._has_aside = False
            remove_aside(self._disk, self.path)
        return True

    # --- the tail ------------------------------------------------------------------------------

    @property
    def first_readable(self) -> int:
        """The first index that :meth:`read_back` may find; those after it are all there."""
        return max(1, self._log.first_index, self._void_before)

    def first_of_tail(self, least_bytes: int) -> int:
        """What to :meth:`remove_before` so that segments of at least so many bytes stay."""
        return self._log.first_of_tail(least_bytes)

    def read_back(self, fetch: Fetch) -> list[Entry]:
        """What is asked for, read from the disk; less, or nothing, where it isn't there any more.

        Any thread. Raises CorruptionError, or StorageError.
        """
        entries: list[Entry] = []
        size = 0
        first = fetch.first
        while first <= fetch.last and (len(entries) < 2 or size < fetch.bytes_max):
            found = self._log.read_entries(first, fetch.last, max(fetch.bytes_max - size, 1))
            if found is None:
                break
            for kind, index, term, data in found:
                entries.append(Entry(term, index, ENTRY_KINDS[kind], data))
                size += len(data)
            first += len(found)
        return entries

    @property
    def log_id(self) -> bytes:
        """The log's own id, random."""
        return self._log.log_id

    def mend(self, entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
        """Put the data of hollow entries in its place, durably: with each, whether it was right.

        What it has to be the record's own checksum says. One whose segment is gone is wanted no
        more. Any thread, while no segment is removed. Raises StorageError.
        """
        judged = []
        paths = set()
        segments = frozenset(self._disk.names(self.path))
        for entry in entries:
            records = [
                record
                for record in self._hollows.get((1 + entry.kind, entry.index, entry.term), ())
                if posixpath.basename(record.path) in segments
            ]
            right = bool(records) and all(
                (record.size, record.checksum) == (len(entry.data), crc32c(entry.data))
                for record in records
            )
            judged.append((entry, right))
            for record in records if right else ():
                self._disk.write(record.path, record.offset + _RECORD_HEADER_BYTES, entry.data)
                paths.add(record.path)
        for path in sorted(paths):
            self._disk.sync(path)
        return judged

    def statistics(self) -> dict[str, int]:
        """The log's counters."""
        return self._log.stats()

    def close(self) -> None:
        """Sync what was saved and close. Raises the failure of a log that has failed before."""
        self._log.close()
        for _, bundle, _, _ in self._under_way:
            self._note_durable(bundle.hard_state)
        note = self.to_note()
        if note is not None and not self._closed:
            self.write_note(note._replace(closed=True))
        self._closed = True
