"""A member's log, read back: what its records say, in their order (their table: storage.py)."""

from __future__ import annotations

from kvstore._engine.log.native import Hollow, Log
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import Entry, EntryKind, HardState, SnapshotMeta
from kvstore.raft.codec import decode_hard_state, decode_snapshot_meta
from kvstore.replica.log_records import (
    HARD_STATE,
    IDENTITY,
    MARK,
    SAID_ONCE,
    VOID,
    Identity,
    decode_identity,
    decode_index,
)

__all__ = ["ENTRY_KINDS", "Replay"]

ENTRY_KINDS = {1 + int(kind): kind for kind in EntryKind}
"""Of records that are entries."""


class Replay:
    """What one log says.

    ``void_before``: entries before this index came before a snapshot from a leader. ``hollows``: of
    records whose payload is damaged, their place in the log -> where that is. ``unknown``: the
    kinds of those whose newest record is damaged, entries apart.
    """

    def __init__(self, log: Log, path: str) -> None:
        """Read all of it. Raises CorruptionError."""
        self._log = log
        self.hard_state = HardState()
        self.mark = SnapshotMeta()
        self.entries: list[Entry] = []
        self.hollow: frozenset[int] = frozenset()
        self.identity: Identity | None = None
        self.hollows: dict[tuple[int, int, int], list[Hollow]] = {}
        self.void_before = 0
        self.unknown = self._replay(path)

    def _replay(self, path: str) -> set[int]:
        newest = self._log.newest(MARK)
        # With the mark's own entry, which says whether those after it are of the same log.
        needed = 0 if newest is None else decode_snapshot_meta(newest).index
        hollow: set[tuple[int, int]] = set()
        unknown: set[int] = set()
        for kind, index, term, payload in self._log.replay(needed):
            entry_kind = ENTRY_KINDS.get(kind)
            if entry_kind is not None:
                self._replay_entry(Entry(term, index, entry_kind, payload or b""), path)
                (hollow.discard if payload is not None else hollow.add)((index, term))
                continue
            if payload is None:
                unknown.add(kind)
                continue
            if kind == VOID and kind in unknown and self._is_unplaced(payload):
                continue
            unknown.discard(kind)
            if kind == HARD_STATE:
                self.hard_state = decode_hard_state(payload)
            elif kind == MARK:
                self._replay_mark(decode_snapshot_meta(payload))
            elif kind == IDENTITY:
                self.identity = decode_identity(payload)
            elif kind == VOID:
                self._replay_void(decode_index(payload))
            else:
                raise CorruptionError(
                    f"log record of kind {kind}", code=IntegrityCode.INVALID_OPERATION, path=path
                )
        # Older segments may hold entries from before the mark.
        self.entries = [entry for entry in self.entries if entry.index > self.mark.index]
        if hollow:
            self._note_hollow(hollow)
        if not self.void_before:
            # Of a build that didn't note it: the mark may be a snapshot's, with void entries before
            # it, that were never committed. No follower may get those.
            self.void_before = self.mark.index + 1
        return unknown

    def _is_unplaced(self, payload: bytes) -> bool:
        """Whether it is open which entries are void: those before this record, or those before one
        that is damaged and said the same."""
        return bool(self.entries) and decode_index(payload) != self.void_before

    def lost(self, kind: int) -> CorruptionError:
        """The newest record of ``kind``, which no other one replaces, is damaged."""
        found = [hollow for hollow in self._log.recovery.hollows if hollow.kind == kind]
        return CorruptionError(
            f"{SAID_ONCE[kind]} is damaged",
            code=IntegrityCode.CHECKSUM_MISMATCH,
            path=found[-1].path,
            offset=found[-1].offset,
        )

    def _note_hollow(self, hollow: set[tuple[int, int]]) -> None:
        self.hollow = frozenset(
            entry.index for entry in self.entries if (entry.index, entry.term) in hollow
        )
        for record in self._log.recovery.hollows:
            if record.index in self.hollow:
                place = (record.kind, record.index, record.term)
                self.hollows.setdefault(place, []).append(record)

    def _replay_entry(self, entry: Entry, path: str) -> None:
        entries = self.entries
        if entries:
            keep = entry.index - entries[0].index
            if keep > len(entries):
                raise CorruptionError(
                    f"entry {entry.index} follows entry {entries[-1].index}",
                    code=IntegrityCode.INVALID_RECORD,
                    path=path,
                )
            del entries[max(keep, 0) :]
        entries.append(entry)

    def _replay_mark(self, mark: SnapshotMeta) -> None:
        if mark == self.mark:
            return  # said again at the head of a segment
        entries = self.entries
        place = mark.index - entries[0].index if entries else -1
        if place < 0:
            pass  # of a time whose entries are gone already
        elif place < len(entries) and entries[place].term == mark.term:
            del entries[: place + 1]
        else:
            # A snapshot from the leader: whatever was here is void (Raft §7).
            entries.clear()
        self.mark = mark

    def _replay_void(self, index: int) -> None:
        # The mark before it tells as much, but where the entry to compare it with is gone.
        if index != self.void_before:
            self.void_before = index
            self.entries.clear()
