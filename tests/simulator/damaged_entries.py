"""Bits that flip in the data of entries, amid members' logs, with a copy of each left."""

from __future__ import annotations

import random

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError
from kvstore.raft import Entry, EntryKind
from kvstore.replica import Identity
from kvstore.replica.storage import MemberLog

__all__ = ["damage_entries", "entries_of"]

LEAST_BYTES = 8
"""Of an entry's data, so that it can be found in the log."""


def entries_of(disk: MemoryFileSystem, log: str, identity: Identity, applied: int) -> list[Entry]:
    """Those of a member that its state doesn't hold, and that can be damaged."""
    found = _opened(disk, log, identity)
    if found is None:
        return []
    return [
        entry
        for entry in found.entries
        if entry.index > applied
        and entry.kind is EntryKind.COMMAND
        and len(entry.data) >= LEAST_BYTES
        and entry.index not in found.hollow
    ]


def damage_entries(
    disk: MemoryFileSystem, log: str, identity: Identity, entries: list[Entry], rng: random.Random
) -> list[int]:
    """Flip a bit in the data of each of ``entries``; the indexes of those that are hollow now.

    An entry is left as it is where that would be another damage, or none.
    """
    hurt: list[int] = []
    before = _opened(disk, log, identity)
    assert before is not None
    for entry in entries:
        offset, bit = rng.randrange(len(entry.data)), rng.randrange(8)
        for path in disk.files(log):
            place = disk.read_file(path).find(entry.data) if path.endswith(".wal") else -1
            if place < 0:
                continue
            disk.flip_bit(path, place + offset, bit)
            after = _opened(disk, log, identity)
            if (
                after is not None
                and after.hollow == {*before.hollow, *hurt, entry.index}
                and (after.hard_state, after.mark) == (before.hard_state, before.mark)
                and after.last_index == before.last_index
            ):
                hurt.append(entry.index)
                break
            disk.flip_bit(path, place + offset, bit)
    return hurt


def _opened(disk: MemoryFileSystem, log: str, identity: Identity) -> MemberLog | None:
    """The log as it is read now; None where it can't be."""
    try:
        found = MemberLog(log, identity, filesystem=disk.crash(keep="all"))
    except CorruptionError:
        return None
    found.close()
    return found
