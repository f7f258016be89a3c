"""What a member goes on with whose log lost something: what is left says, or somebody else noted.

Where a log is damaged, and isn't merely short, records behind the damage can't be placed: what
stood between them and those before it isn't known. But each that checks was written by this member
once, and so tells of terms and votes, and of who its members are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kvstore._engine.files.native import FileSystem
from kvstore._engine.log.native import Log, log_segments, salvage_segment
from kvstore.errors import CorruptionError
from kvstore.raft import Entry, EntryKind, HardState, Membership, SnapshotMeta
from kvstore.raft.codec import decode_hard_state, decode_membership, decode_snapshot_meta
from kvstore.raft.messages import NOBODY
from kvstore.replica.log_note import LogNote
from kvstore.replica.log_records import HARD_STATE, IDENTITY, MARK, VOID

__all__ = [
    "ASIDE",
    "Salvaged",
    "hard_state_alone",
    "has_history",
    "is_unfounded",
    "newer",
    "remove_aside",
    "salvage",
    "set_aside",
    "voters_of",
]

ASIDE = ".aside"
"""What segments are called that stand behind damage, until their member is whole again."""

_MEMBERSHIP = 1 + EntryKind.MEMBERSHIP
_LOG_ID_OFFSET, _ID_BYTES = 40, 16


class Salvaged(NamedTuple):
    """The highest term and vote, and the last list of members, that records tell of."""

    hard_state: HardState
    membership: Membership | None


def salvage(disk: FileSystem, path: str, log_id: bytes, first: int) -> Salvaged:
    """What records that check say in segments from ``first`` on of the log in ``path``.

    Raises StorageError where they can't be read.
    """
    hard_state, membership = HardState(), None
    for number in log_segments(disk, path):
        segment = f"{path}/{number:06d}.wal"
        if number < first or disk.read(segment, _LOG_ID_OFFSET, _ID_BYTES) != log_id:
            continue
        for kind, _, payload in salvage_segment(disk, path, number):
            # One that a later version wrote says nothing to this one.
            with contextlib.suppress(CorruptionError):
                if kind == HARD_STATE:
                    hard_state = newer(hard_state, decode_hard_state(payload))
                elif kind == MARK:
                    membership = decode_snapshot_meta(payload).membership
                elif kind == _MEMBERSHIP:
                    membership = decode_membership(payload)
    return Salvaged(hard_state, membership)


def newer(left: HardState, found: HardState | LogNote) -> HardState:
    """``left``, with the term and vote of ``found`` where those are later."""
    if (found.term, found.vote) > (left.term, left.vote):
        return left._replace(term=found.term, vote=found.vote)
    return left


def hard_state_alone(left: HardState, noted: LogNote | None, entries: Sequence[Entry]) -> HardState:
    """What the only voter goes on with whose newest hard state is damaged: a later term.

    It may have stood for election in the term after the last one that is known, and nobody else
    could: it stands anew in a later one, and whatever it promised itself is kept.
    """
    newest = left if noted is None else newer(left, noted)
    term = max([newest.term, *(entry.term for entry in entries[-1:])]) + 1
    return newest._replace(term=term, vote=NOBODY)


def voters_of(
    mark: SnapshotMeta, entries: Iterable[Entry], hollow: Collection[int]
) -> frozenset[int]:
    """Who votes by the newest list of members that can be read."""
    membership = mark.membership
    for entry in entries:
        if entry.kind is EntryKind.MEMBERSHIP and entry.index not in hollow:
            membership = decode_membership(entry.data)
    return membership.voters | membership.outgoing


def set_aside(disk: FileSystem, path: str, segments: Sequence[str]) -> None:
    """Take ``segments`` of the log in ``path`` out of it, durably; they stay for whoever can use
    them. May be called again."""
    for segment in reversed(segments):
        disk.rename(segment, segment.removesuffix(".wal") + ASIDE)
    if segments:
        disk.sync_directory(path)


def remove_aside(disk: FileSystem, path: str) -> None:
    """The member is whole: nobody needs what was set aside of the log in ``path``."""
    for name in disk.names(path):
        if name.endswith(ASIDE):
            disk.remove_tree(f"{path}/{name}")


def is_unfounded(disk: FileSystem, path: str) -> bool:
    """No log was ever begun in a member's directory, or nothing but its identity was written."""
    log = f"{path}/log"
    names = disk.names(log) if disk.kind(log) else []
    if any(name.endswith(ASIDE) for name in names):
        return False
    segments = log_segments(disk, log) if names else []
    return not segments or (
        segments == [1]
        and all(kind in (IDENTITY, VOID) for kind, _, _ in salvage_segment(disk, log, 1))
    )


def has_history(filesystem: FileSystem, path: str) -> bool:
    """The member's log in ``path`` holds more than its cluster's founding, or is damaged.

    Reads all of it, and writes nothing. Raises StorageError where it can't be read.
    """
    try:
        with Log(path, filesystem=filesystem, read_only=True) as log:
            return any(
                index > 1
                or (
                    kind == MARK and payload is not None and decode_snapshot_meta(payload).index > 1
                )
                for kind, index, _, payload in log.replay()
            )
    except CorruptionError:
        return True
