"""Work on a database that is not open: destroying it, repairing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Unpack

from kvstore._engine.database import native
from kvstore._engine.database.repair_report import LostKeys, RepairReport
from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.engine.options import Settings, options_of

__all__ = ["LostKeys", "RepairReport", "destroy_db", "repair_db"]


def destroy_db(
    name: str | bytes | os.PathLike[str], *, filesystem: FileSystem | None = None
) -> None:
    """Remove a database and its directory. Files that are not a database's own are left alone.

    Raises AlreadyOpenError when it is open, StorageError when ``name`` holds something else. A
    directory that does not exist is fine.
    """
    native.destroy(os.fsdecode(name), filesystem or PosixFileSystem())


def repair_db(
    name: str | bytes | os.PathLike[str],
    *,
    progress: Callable[[str, int, int], object] | None = None,
    filesystem: FileSystem | None = None,
    **settings: Unpack[Settings],
) -> RepairReport:
    """Make a damaged database openable again, with all in it that is provably whole.

    Tables that verify are kept; of a damaged one the blocks that check are written into a fresh
    one. Every record of a damaged log that checks goes into a table, those behind the damage too.
    What was damaged stays beside them under its name and ``.damaged``. What is gone may have
    deleted or replaced something that is there, so this is for embedded use after backups failed,
    never for a member of a cluster: the :class:`RepairReport` says what was done, which keys and
    sequences are gone, and whether something old may be back.

    ``progress`` is called with (``"tables"``, ``"log"`` or ``"merge"``; done; total). What it
    raises stops the repair, which can be run again then, as after a crash.

    ``settings`` are the options of :class:`kvstore.DB`, as plyvel takes them here. They are
    checked but change nothing: tables describe themselves, and all bytes are always verified.

    Raises AlreadyOpenError when it is open, StorageError when ``name`` holds something else, or
    files of a later version, InvalidArgumentError when there is nothing there, TypeError when a
    setting is no option.
    """
    options_of(settings)
    return native.repair(os.fsdecode(name), filesystem or PosixFileSystem(), progress)
