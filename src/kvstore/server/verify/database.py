"""The files of one database of the engine: a user's own, or a member's state."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from kvstore._engine.files.native import PosixFileSystem, TwoCopies
from kvstore._engine.log.native import SegmentCheck
from kvstore._engine.table.native import TableFile
from kvstore._engine.version.native import END, END_MAGIC
from kvstore.engine import DB, Options
from kvstore.errors import (
    AlreadyOpenError,
    ConfigurationError,
    CorruptionError,
    IntegrityCode,
    StorageError,
)
from kvstore.server.verify.report import Outcome, Report

__all__ = ["verify_database", "verify_note", "verify_segments"]

PIECE_BYTES = 4 << 20
_TABLE = re.compile(r"(\d+)\.sst")
_SEGMENT = re.compile(r"(\d+)\.wal")
_MANIFEST = re.compile(r"MANIFEST-\d+")
_LEFT_OVER = re.compile(r".*\.(new|spare|trusted|damaged\d*)")
_EMPTY = ("LOCK", "RESERVE")

_DISK = PosixFileSystem()


def verify_database(
    report: Report, path: str, *, wal: bool, look: Callable[[DB], None] = lambda db: None
) -> None:
    """Check all files of the database in ``path``; ``look`` gets it, where it can be opened.

    Nothing is written. Raises ConfigurationError while somebody has it open.
    """
    try:
        options = Options(create_if_missing=False, read_only=True, wal=wal, background=False)
        with DB(path, options=options, filesystem=_DISK) as db:
            live = _check_open(report, db, path)
            _say_rest(report, path, live)
            if report.is_whole:
                with report.noting(path):
                    look(db)
    except AlreadyOpenError as error:
        raise ConfigurationError(f"{path} is in use: close it first") from error
    except StorageError as error:
        # It can't be opened: file by file, without what they say of each other.
        report.note(error, path)
        _check_each(report, path)


def _check_open(report: Report, db: DB, path: str) -> set[str]:
    """What opening has read is whole; the tables are read now."""
    live = {f"{number:06d}.sst": number for number, _ in db.live_tables()}
    for name, number in live.items():
        where = f"{path}/{name}"
        with report.noting(where):
            check = db.check_table(number)
            assert check is not None, "a database that is only read lets go of no table"
            left = os.path.getsize(where)
            while piece := check.step():
                report.progress(piece)
                left -= piece
            report.progress(left)
            report.say(where, Outcome.WHOLE, counted=True)
    return set(live)


def _say_rest(report: Report, path: str, live: set[str]) -> None:
    """Of what isn't a table: opening has read all of it that counts."""
    with open(f"{path}/CURRENT", "rb") as file:
        manifest = file.read().split(b" ")[0].decode()
    for name in sorted(os.listdir(path)):
        where = f"{path}/{name}"
        if name in live:
            continue
        if name in ("IDENTITY", "CURRENT", manifest):
            report.say(where, Outcome.WHOLE)
        elif name == END:
            verify_note(report, where, END_MAGIC)
        elif name == "wal" and os.path.isdir(where):
            for segment in sorted(os.listdir(where)):
                whole = _SEGMENT.fullmatch(segment) is not None
                report.say(f"{where}/{segment}", Outcome.WHOLE if whole else _kind_of(segment))
        else:
            report.say(where, _kind_of(name))


def _kind_of(name: str) -> Outcome:
    if name in _EMPTY:
        return Outcome.EMPTY
    if _LEFT_OVER.fullmatch(name) or _MANIFEST.fullmatch(name) or _TABLE.fullmatch(name):
        return Outcome.LEFT_OVER
    return Outcome.FOREIGN


def _check_each(report: Report, path: str) -> None:
    """Tables and segments by what they say of themselves."""
    for name in sorted(os.listdir(path)):
        where = f"{path}/{name}"
        table = _TABLE.fullmatch(name)
        if table is not None:
            with report.noting(where), TableFile(_DISK, where, int(table[1])) as file:
                file.verify()
                report.say(where, Outcome.WHOLE)
        elif name == "wal" and os.path.isdir(where):
            verify_segments(report, where)
        elif name == END:
            verify_note(report, where, END_MAGIC)
        elif name not in ("IDENTITY", "CURRENT") and not _MANIFEST.fullmatch(name):
            report.say(where, _kind_of(name))


def verify_note(report: Report, path: str, magic: bytes) -> None:
    """Both copies of a note of how far something is."""
    with report.noting(path):
        _, damage = TwoCopies(_DISK, path, magic).load()
        if damage:
            raise CorruptionError(damage, code=IntegrityCode.CHECKSUM_MISMATCH, path=path)
        report.say(path, Outcome.WHOLE)


def verify_segments(report: Report, path: str) -> None:
    """The segments of a log that can't be opened: each that has a successor, by itself."""
    names = sorted(os.listdir(path))
    numbers = [int(segment[1]) for name in names if (segment := _SEGMENT.fullmatch(name))]
    for number in numbers:
        where = f"{path}/{number:06d}.wal"
        if number + 1 not in numbers:
            continue  # where it ends, nothing says
        with report.noting(where):
            check = SegmentCheck(_DISK, path, number)
            while piece := check.step(PIECE_BYTES, forget=False):
                report.progress(piece)
            report.say(where, Outcome.WHOLE, counted=True)
