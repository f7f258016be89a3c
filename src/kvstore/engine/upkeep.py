"""Work on a database that is not open: destroying it, repairing it."""

from __future__ import annotations

import os
from typing import Unpack

from kvstore._engine.database import native
from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.engine.options import Settings, options_of

__all__ = ["destroy_db", "repair_db"]


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
    filesystem: FileSystem | None = None,
    **settings: Unpack[Settings],
) -> list[str]:
    """Make a database whose manifest or tables are damaged openable again.

    Keeps every table that verifies byte for byte, sets damaged files aside (renamed with the
    suffix ``.damaged``), and writes a new manifest. What only a damaged file held is lost, and keys
    it had deleted may come back: for embedded use after backups failed, never for a member of a
    cluster. Returns one line for each thing done.

    ``settings`` are the options of :class:`kvstore.DB`, as plyvel takes them here. They are
    checked but change nothing: tables describe themselves, and all bytes are always verified.

    Raises AlreadyOpenError when it is open, StorageError when ``name`` holds something else,
    InvalidArgumentError when there is nothing there, TypeError when a setting is no option.
    """
    options_of(settings)
    return native.repair(os.fsdecode(name), filesystem or PosixFileSystem())
