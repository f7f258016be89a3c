"""The embedded store: an ordered map of bytes to bytes in a directory."""

from kvstore._engine.database.native import Iterator, RawIterator, Snapshot, WriteBatch
from kvstore.engine.changes import Change, ChangeFeed, ChangeKind
from kvstore.engine.database import DB, open
from kvstore.engine.options import Options
from kvstore.engine.prefixed import PrefixedDB
from kvstore.engine.upkeep import LostKeys, RepairReport, destroy_db, repair_db

__all__ = [
    "DB",
    "Change",
    "ChangeFeed",
    "ChangeKind",
    "Iterator",
    "LostKeys",
    "Options",
    "PrefixedDB",
    "RawIterator",
    "RepairReport",
    "Snapshot",
    "WriteBatch",
    "destroy_db",
    "open",
    "repair_db",
]
