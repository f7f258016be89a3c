"""Writes the golden files of the present format: what every later version must go on reading.

    python tools/make_golden_files.py [DIRECTORY]      (tests/golden/format2)

Once a format is released its files are never made anew: a later version that can't read them can't
read its users' databases. Needs the codecs (the extras lz4, zstd, snappy).

    tables/<codec>.sst      one table of each codec, number 7, the same entries in each
    database/               a database that was closed: tables in two levels, a log that goes on
    log/                    a log of a member: sticky kinds, entries, two segments
    expected.json           what is in them, keys and values in hexadecimal
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import kvstore
from kvstore._engine.files.native import PosixFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.table.native import TableWriter

CODECS = ("none", "lz4", "zstd", "snappy")
TABLE_NUMBER = 7
DELETE, PUT = 0, 1
STICKY = (8, 9, 10)
# Not a part of what is kept: an empty lock, and space for a full disk.
LEFT_OUT = ("LOCK", "RESERVE")

Version = tuple[bytes, int, int, bytes]


def versions() -> list[Version]:
    """Keys of several shapes; some have many versions, one of them a delete, across blocks."""
    found: list[Version] = [(b"", 3, PUT, b"the empty key")]
    for k in range(40):
        found.append((b"key%03d" % k, k + 10, PUT, b"the value of %d " % k * (k % 7)))
    found += [(b"many", s, DELETE if s == 50 else PUT, b"" if s == 50 else b"version %d" % s)
              for s in range(100, 0, -1)]  # fmt: skip
    found += [(b"\xff" * k, 2, PUT, bytes([k])) for k in (1, 2, 30)]
    return found


def make_tables(directory: Path) -> list[list[object]]:
    directory.mkdir()
    for codec in CODECS:
        writer = TableWriter(
            PosixFileSystem(), str(directory / f"{codec}.sst"), TABLE_NUMBER, block_bytes=512,
            compression=codec, file_id=f"golden table {codec}".encode().ljust(16)[:16],
        )  # fmt: skip
        for version in versions():
            writer.add(*version)
        writer.finish()
    return [[key.hex(), s, kind, value.hex()] for key, s, kind, value in versions()]


def make_database(directory: Path) -> dict[str, str]:
    with kvstore.open(
        directory, write_buffer_size=64 << 10, block_size=512, background=False
    ) as db:
        for k in range(120):
            db.put(b"row%04d" % k, b"first %d" % k)
        db.flush()
        db.compact_range()
        for k in range(0, 120, 3):
            db.put(b"row%04d" % k, b"second %d" % k)
        for k in range(0, 120, 10):
            db.delete(b"row%04d" % k)
        db.delete_range(b"row0040", b"row0045")
        db.put(b"row0042", b"after its range was deleted")
        db.flush()
        # From here on in the log alone.
        db.put(b"only in the log", b"yes", sync=True)
        db.delete(b"row0001")
        with db.write_batch() as batch:
            for k in range(5):
                batch.put(b"batch%d" % k, b"\0" * k)
            batch.delete(b"row0002")
            batch.delete_range(b"row01", b"row0104")
        return {key.hex(): value.hex() for key, value in db}


def make_log(directory: Path) -> list[list[object]]:
    log = Log(directory, segment_bytes=4096, sticky_kinds=STICKY)
    log.append(10, 0, 0, b"identity of a member")
    log.append(8, 0, 0, b"hard state 1")
    for index in range(1, 60):
        log.append(1, index, 1 + index // 20, b"entry %d " % index * 10)
        if index % 20 == 0:
            log.append(8, 0, 0, b"hard state %d" % index)
            log.sync()
    log.close()
    reader = Log(directory, sticky_kinds=STICKY, read_only=True)
    found = [[kind, index, term, bytes(p).hex()] for kind, index, term, p in reader.replay()]
    reader.close()
    return found


def main(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    expected = {
        "tables": make_tables(target / "tables"),
        "database": make_database(target / "database"),
        "log": make_log(target / "log"),
    }
    for name in LEFT_OUT:
        (target / "database" / name).unlink(missing_ok=True)
    (target / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")
    total = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {total} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("tests/golden/format2"))
