"""A kvd's data directory, one member's, a user's database or a backup, and the check of each."""

from __future__ import annotations

import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kvstore._engine.files.native import PosixFileSystem
from kvstore._engine.log.native import Log
from kvstore.engine import DB
from kvstore.errors import (
    ConfigurationError,
    InvalidArgumentError,
    StorageError,
)
from kvstore.replica.backup_file import CHUNK_BYTES, BackupParser
from kvstore.replica.log_note import MAGIC as NOTE_MAGIC
from kvstore.replica.log_note import NoteFile
from kvstore.replica.scrub import FILE as SCRUB_FILE
from kvstore.replica.scrub import MAGIC as SCRUB_MAGIC
from kvstore.server.config.data_directory import LOCK, MARKER, check_marker, locked_by_another
from kvstore.server.config.sealed_file import read_sealed
from kvstore.server.verify.database import verify_database, verify_note, verify_segments
from kvstore.server.verify.report import Outcome, Progress, Report
from kvstore.state.invariants import check_rows

__all__ = ["held_bytes", "verify"]

_SEALED = ("MEMBER", "PEERS", "HISTORY")
_MEMBER = re.compile(r"node\d+")
_STATE = re.compile(r"state-(\d+)")
_LEFT_OVER = re.compile(r"(incoming|outgoing-.*|ready-.*|state-.*|.*\.new)")
_NOTE = "LOGEND"

_DISK = PosixFileSystem()


def held_bytes(path: str) -> int:
    """What there is to be checked below ``path``."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.lstat(file).st_size for file in _files_below(path))


def _files_below(path: str) -> Iterator[str]:
    for directory, _, names in os.walk(path):
        yield from (f"{directory}/{name}" for name in names)


def verify(path: str, progress: Progress = lambda count: None) -> Report:
    """Check every byte of every file below ``path``, or of the backup file ``path``.

    Nothing is written. Raises InvalidArgumentError for what is none of these, ConfigurationError
    while somebody has it open: what changes meanwhile would look like damage. Raises StorageError
    where the system lets nobody read: that says nothing of the bytes.
    """
    path = os.path.abspath(path)
    report = Report(path, progress)
    if not os.path.exists(path):
        raise InvalidArgumentError(f"there is nothing at {path}")
    if not os.path.isdir(path):
        if not os.path.isfile(path):
            raise InvalidArgumentError(f"{path} is neither a directory nor a regular file")
        _verify_backup(report, path)
    elif os.path.exists(f"{path}/{MARKER}") or any(map(_MEMBER.fullmatch, os.listdir(path))):
        with _locked(Path(path)):
            _verify_data(report, path)
    elif os.path.isdir(f"{path}/log") and any(map(_STATE.fullmatch, os.listdir(path))):
        with _locked(Path(path).parent):
            _verify_member(report, path)
    elif os.path.exists(f"{path}/IDENTITY") or os.path.exists(f"{path}/CURRENT"):
        verify_database(report, path, wal=os.path.isdir(f"{path}/wal"))
    else:
        raise InvalidArgumentError(
            f"{path} is no data directory of kvd, no member's, no database and no backup"
        )
    return report


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """While this lasts no kvd starts there."""
    reason = locked_by_another(directory)
    if reason is not None:
        raise ConfigurationError(f"{reason}: stop it first; while it runs it checks by itself")
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # the copy of a directory: nobody starts there without making one
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigurationError(f"data directory {directory} is in use by another kvd") from None
    finally:
        os.close(lock)


def _verify_backup(report: Report, path: str) -> None:
    parser = BackupParser(path)
    with report.noting(path), open(path, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            parser.feed(piece)
            report.progress(len(piece))
        parser.finish()
        report.say(path, Outcome.WHOLE, counted=True)


def _verify_data(report: Report, path: str) -> None:
    """A data directory: what lies beside the members, and each of them."""
    for name in sorted(os.listdir(path)):
        where = f"{path}/{name}"
        if _MEMBER.fullmatch(name) and os.path.isdir(where):
            _verify_member(report, where)
        elif name == MARKER:
            with report.noting(where):
                check_marker(Path(path))
                report.say(where, Outcome.WHOLE)
        elif name in _SEALED:
            with report.noting(where):
                read_sealed(Path(where))
                report.say(where, Outcome.WHOLE)
        elif name == LOCK:
            report.say(where, Outcome.EMPTY)
        elif _LEFT_OVER.fullmatch(name):
            report.say_all(_files_of(where), Outcome.LEFT_OVER)
        else:
            report.say_all(_files_of(where), Outcome.FOREIGN)


def _files_of(path: str) -> Iterator[str]:
    if os.path.isdir(path) and not os.path.islink(path):
        yield from _files_below(path)
    else:
        yield path


def _verify_member(report: Report, path: str) -> None:
    states = sorted(name for name in os.listdir(path) if _STATE.fullmatch(name))
    for name in sorted(os.listdir(path)):
        where = f"{path}/{name}"
        if name == "log":
            _verify_log(report, path)
        elif name == _NOTE:
            verify_note(report, where, NOTE_MAGIC)
        elif name == SCRUB_FILE:
            verify_note(report, where, SCRUB_MAGIC)
        elif states and name == states[-1]:
            verify_database(
                report,
                where,
                wal=False,
                look=partial(_check_rows, report, where),
            )
        elif _LEFT_OVER.fullmatch(name):
            report.say_all(_files_of(where), Outcome.LEFT_OVER)
        else:
            report.say_all(_files_of(where), Outcome.FOREIGN)
    if not states:
        report.findings.append(f"{path}: the member's state is missing")


def _check_rows(report: Report, path: str, db: DB) -> None:
    """The rows of the state in ``path``; what is wrong with several alike is said once."""
    for finding, count in Counter(check_rows(db)).items():
        times = f" ({count} times)" if count > 1 else ""
        report.findings.append(f"{path}: {finding}{times}")


def _verify_log(report: Report, member: str) -> None:
    """Each record of each segment, and that the log reaches as far as its note says."""
    path = f"{member}/log"
    noted = None
    with report.noting(f"{member}/{_NOTE}"):
        noted = NoteFile(_DISK, f"{member}/{_NOTE}").found
    places = None if noted is None else (0, noted.segment, noted.offset)
    try:
        with Log(path, filesystem=_DISK, read_only=True, noted=places):
            names = sorted(os.listdir(path))
    except StorageError as error:
        report.note(error, path)
        verify_segments(report, path)
        names = []
    for name in names:
        whole = name.endswith(".wal")
        report.say(f"{path}/{name}", Outcome.WHOLE if whole else Outcome.LEFT_OVER)
