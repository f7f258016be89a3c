"""Bits turned in the files of members that run: a disk's, which nobody asks before they matter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from kvstore._engine.files.native import PosixFileSystem
from kvstore.client import Client
from kvstore.replica.log_note import NoteFile
from tests.integration.process import environment, run

__all__ = ["KINDS", "Flip", "flip_some", "make_tables", "repair"]

KINDS = ("table", "log", "manifest", "small")
"""Of files in a member's directory."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A bit that was turned."""

    path: Path
    offset: int
    bit: int

    def __str__(self) -> str:
        return f"{self.path.name} at byte {self.offset}"


def flip_some(directory: Path, rng: random.Random, kinds: tuple[str, ...] = KINDS) -> list[Flip]:
    """Turn a bit of one file of each of ``kinds`` below a member's ``directory``; what was done.

    Of the log only what was durable before: whether what comes after it is whole nobody can say.
    """
    done = []
    for kind in kinds:
        places = [(path, end) for path, end in _places(directory, kind) if end]
        if places:
            path, end = rng.choice(places)
            offset = rng.randrange(end)
            while kind == "log" and _is_zero(path, offset):
                offset = rng.randrange(end)  # between records there are zeros, which nobody reads
            flip = Flip(path, offset, rng.randrange(8))
            _turn(flip)
            done.append(flip)
    return done


def _places(directory: Path, kind: str) -> list[tuple[Path, int]]:
    """Files, and up to where to turn bits of each."""
    state = max(directory.glob("state-*"))
    if kind == "log":
        return _segments(directory)
    patterns = {"table": ["*.sst"], "manifest": ["MANIFEST-*"], "small": ["CURRENT", "IDENTITY"]}
    files = [path for pattern in patterns[kind] for path in state.glob(pattern)]
    return [(path, path.stat().st_size) for path in files]


def _segments(directory: Path) -> list[tuple[Path, int]]:
    note = NoteFile(PosixFileSystem(), str(directory / "LOGEND")).found
    found = []
    for path in sorted((directory / "log").glob("*.wal")):
        number = int(path.stem)
        if note is None or number > note.segment:
            continue
        # The rest of a segment is reserved, and zeros.
        end = note.offset if number == note.segment else len(path.read_bytes().rstrip(b"\0"))
        found.append((path, end))
    return found


def _is_zero(path: Path, offset: int) -> bool:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(1) == b"\0"


def _turn(flip: Flip) -> None:
    with flip.path.open("r+b") as file:
        file.seek(flip.offset)
        (byte,) = file.read(1)
        file.seek(flip.offset)
        file.write(bytes([byte ^ 1 << flip.bit]))


def make_tables(data: Path) -> None:
    """Have the member of a data directory write what it holds in memory into tables."""
    with Client(f"unix:{data}/admin.sock", timeout=60) as client:
        for _ in client.save_snapshot(stale=True):
            pass


def repair(data: Path) -> str:
    """Have it check and repair itself; the last line that it says of that."""
    done = run("kvctl", f"--dir={data}", "repair", env=environment())
    told = done.stderr.decode().strip()
    assert done.returncode == 0, told
    return told.splitlines()[-1]
