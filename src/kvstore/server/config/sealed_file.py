"""Small JSON files that are replaced whole and carry a checksum."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.server.config.private_files import open_private, replace_private

_BYTES_MAX = 64 << 20


def write_sealed(path: Path, fields: dict[str, object]) -> None:
    """Replace ``path``, durably: after a crash it holds the old or the new fields.

    Layout: one line of JSON with sorted keys, then ``crc32=`` and eight hex digits over that line.
    Raises StorageError.
    """
    line = json.dumps(fields, sort_keys=True)
    try:
        replace_private(path, f"{line}\ncrc32={zlib.crc32(line.encode()):08x}\n".encode())
    except OSError as error:
        raise StorageError(
            f"failed to write: {error.strerror}", path=str(path), errno=error.errno
        ) from error


def read_sealed(path: Path) -> dict[str, object] | None:
    """The fields in ``path``; None when there is no such file. Raises StorageError."""
    try:
        with open(open_private(path, os.O_RDONLY), "rb") as file:
            # What is longer has a damaged size, and might be more than there is memory.
            data = file.read(_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"failed to read: {error.strerror}", path=str(path), errno=error.errno
        ) from error
    line, _, seal = data.partition(b"\n")
    if seal != b"crc32=%08x\n" % zlib.crc32(line):
        raise CorruptionError(
            "checksum does not match", code=IntegrityCode.CHECKSUM_MISMATCH, path=str(path)
        )
    fields = json.loads(line)
    assert isinstance(fields, dict)
    return fields
