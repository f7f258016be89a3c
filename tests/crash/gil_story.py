"""Openings and ends of a database on real files, each call of the disk looked at.

A program of its own: ``python -m tests.crash.gil_story DIRECTORY`` runs with the library of
``failing_calls.c`` preloaded. A line for each part: how many calls it made below the directory, its
name, and the kinds of those that were made with the GIL held.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kvstore

__all__ = ["PARTS"]

SMALL: dict[str, Any] = {"write_buffer_size": 1 << 16, "max_file_size": 1 << 16}
PARTS = ("create", "after a kill", "read only", "without a log", "checkpoint", "destroy")


def fill(path: Path, rows: int) -> kvstore.DB:
    # Nothing of it changes while it is copied.
    db = kvstore.DB(path, background=False, **SMALL)
    for row in range(rows):
        db.put(b"%06d" % row, bytes(100))
    db.sync()
    return db


def parts(directory: Path) -> Iterator[Callable[[], object]]:
    """In the order of PARTS; each is told once the one before it is over."""
    yield lambda: fill(directory / "db", 10).close()
    with fill(directory / "db", 3000):
        # Its log has no end that is known, and is made durable anew.
        shutil.copytree(directory / "db", directory / "left")
    yield lambda: kvstore.DB(directory / "left", **SMALL).close()
    yield lambda: kvstore.DB(directory / "left", read_only=True).close()
    yield lambda: kvstore.DB(directory / "left", wal=False, paranoid_checks=True).close()
    with kvstore.DB(directory / "left") as db:
        yield lambda: db.checkpoint(directory / "copy")
    yield lambda: kvstore.destroy_db(directory / "copy")


def main(directory: str) -> None:
    library = ctypes.CDLL(None)
    library.calls_with_gil.restype = ctypes.c_char_p
    for name, part in zip(PARTS, parts(Path(directory)), strict=True):
        library.watch_the_gil(directory.encode())
        part()
        print(library.calls_seen(), name, library.calls_with_gil().decode(), sep="|")


if __name__ == "__main__":
    main(*sys.argv[1:])
