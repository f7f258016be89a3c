"""Work on a database that is not open: destroying it, repairing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Unpack

from kvstore._engine.database import native
from kvstore._engine.database.repair_report import LostKeys, RepairReport
from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.engine.options import Settings, options_of
from kvstore.errors import ConfigurationError

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

    Raises AlreadyOpenError when it is open, ConfigurationError when it is a member's of kvd, who
    repairs it by itself, StorageError when ``name`` holds something else, or files of a later
    version, InvalidArgumentError when there is nothing there, TypeError when a setting is no
    option.
    """
    options_of(settings)
    disk = filesystem or PosixFileSystem()
    path = disk.resolve(os.fsdecode(name))
    _refuse_members(disk, path)
    return native.repair(path, disk, progress)


def _refuse_members(disk: FileSystem, path: str) -> None:
    """What is kvd's, kvd repairs: a state without all that it held would be taken for whole."""
    if disk.kind(f"{path}/KVSTORE"):
        raise ConfigurationError(
            f"{path} is kvd's data directory, whose members repair what they hold by themselves: "
            f"start kvd; while it runs, 'kvctl --dir {path} repair'"
        )
    for member in (path, os.path.dirname(path)):
        names = disk.names(member) if disk.kind(member) == 2 else []
        if "log" in names and ("LOGEND" in names or any(n.startswith("state-") for n in names)):
            raise ConfigurationError(
                f"{path} is a member's, who repairs it by itself: start its kvd"
            )
