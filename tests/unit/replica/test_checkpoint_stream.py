"""A checkpoint's stream: what names and sizes a receiver takes, in whatever pieces they come."""

from __future__ import annotations

import struct

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.replica.checkpoint_stream import CheckpointReader, CheckpointWriter

CONTENT = {"first": b"a" * 700, "none": b"", "second": b"b" * 300}


def header(*files: tuple[bytes, int], magic: int = 0x4E53564B, version: int = 1) -> bytes:
    parts = [struct.pack("<III", magic, version, len(files))]
    parts += [struct.pack("<HQ", len(name), size) + name for name, size in files]
    return b"".join(parts)


@pytest.fixture
def disk() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directory("/out")
    disk.make_directory("/in")
    for name, content in CONTENT.items():
        disk.write(f"/out/{name}", 0, content)
    return disk


@pytest.mark.parametrize("piece", [1, 7, 64, 5000])
def test_what_is_read_in_pieces_is_written_as_it_was(disk: MemoryFileSystem, piece: int) -> None:
    reader = CheckpointReader(disk, "/out")
    writer = CheckpointWriter(disk, "/in", reader.total)
    for offset in range(0, reader.total, piece):
        writer.write(reader.read(offset, piece))
    writer.finish()
    assert {name: disk.read_file(f"/in/{name}") for name in disk.names("/in")} == CONTENT


@pytest.mark.parametrize(
    "names", [[b""], [b"a/b"], [b"/"], [b"a\0b"], [b"."], [b".."], [b"same", b"same"]]
)
def test_a_name_that_leads_elsewhere_is_refused(disk: MemoryFileSystem, names: list[bytes]) -> None:
    stream = header(*((name, 0) for name in names))
    writer = CheckpointWriter(disk, "/in", len(stream))
    with pytest.raises(CorruptionError, match="snapshot with a file named"):
        writer.write(stream)
    assert disk.names("/in") == []


@pytest.mark.parametrize(
    ("stream", "total", "code"),
    [
        (header(magic=1), 12, IntegrityCode.INVALID_MAGIC),
        (header(version=2), 12, IntegrityCode.UNSUPPORTED_VERSION),
        (header((b"a", 5)), 12 + 11 + 4, IntegrityCode.INVALID_RECORD),
        (header((b"a", 5)), 12 + 11 + 6, IntegrityCode.INVALID_RECORD),
        (struct.pack("<III", 0x4E53564B, 1, (1 << 20) + 1), 12, IntegrityCode.INVALID_RECORD),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    disk: MemoryFileSystem, stream: bytes, total: int, code: IntegrityCode
) -> None:
    with pytest.raises(CorruptionError) as caught:
        CheckpointWriter(disk, "/in", total).write(stream)
    assert caught.value.code is code


def test_bytes_after_the_last_file_and_a_stream_cut_short_are_refused(
    disk: MemoryFileSystem,
) -> None:
    stream = header((b"a", 5)) + b"12345"
    short = CheckpointWriter(disk, "/in", len(stream))
    short.write(stream[:-1])
    with pytest.raises(CorruptionError, match="header"):
        short.finish()
    long = CheckpointWriter(disk, "/in", len(stream))
    with pytest.raises(CorruptionError, match="after the snapshot's last file"):
        long.write(stream + b"6")
