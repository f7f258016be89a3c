"""What a repair says that it did, and what is gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["LostKeys", "RepairReport"]


class LostKeys(NamedTuple):
    """Entries of a table that checked nowhere any more.

    Their user keys lie from ``after`` to ``before``, both included (``None``: as far as the table
    went). ``entries`` is how many of the whole table are gone, ``None`` where nothing says so.
    """

    table: str
    after: bytes | None
    before: bytes | None
    entries: int | None


@dataclass(slots=True)
class RepairReport:
    """What :func:`kvstore.repair_db` did. False where there was nothing to do."""

    actions: list[str] = field(default_factory=list)
    """A line for each thing done or found."""
    tables_whole: int = 0
    """Tables that verified and stayed as they were."""
    tables_salvaged: int = 0
    """Tables of which the blocks that check were written into a fresh one of the same number."""
    entries_salvaged: int = 0
    """Entries in those fresh tables."""
    lost: list[LostKeys] = field(default_factory=list)
    """What is gone of tables."""
    log_records: int = 0
    """Records of a damaged log that check: all of them are in the tables now."""
    log_operations: int = 0
    """Puts and deletes of those that the tables hadn't held yet."""
    log_damage: list[str] = field(default_factory=list)
    """Each place of the log where something doesn't check."""
    missing_sequences: list[tuple[int, int]] = field(default_factory=list)
    """First and last sequence of each run of writes that were in the log and are gone. What was
    behind the last record that checks isn't among them: nothing says how much that was."""
    old_may_be_back: bool = False
    """Something is gone that may have deleted or replaced what is there: keys in the ranges of
    :attr:`lost`, or any key where sequences are missing or tables were merged anew."""

    def __bool__(self) -> bool:
        return bool(self.actions)

    def __str__(self) -> str:
        return "\n".join(self.actions)
