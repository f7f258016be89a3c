"""Backup files that were cut, changed, mixed or made up are never taken for a snapshot."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives.native import crc32c
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.replica.backup_file import BackupInfo, BackupParser, encode_backup, read_backup
from kvstore.replica.checkpoint_stream import CheckpointReader, CheckpointWriter

FILES = {"CURRENT": b"MANIFEST-1", "MANIFEST-1": b"m" * 90, "empty": b"", "000007.sst": b"t" * 333}
HEAD_BYTES = 16


def disk_with(files: dict[str, bytes]) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directory("/out")
    for name, content in files.items():
        disk.write(f"/out/{name}", 0, content)
    return disk


def pieces_of(files: dict[str, bytes], chunk_bytes: int = 100, revision: int = 40) -> list[bytes]:
    stream = CheckpointReader(disk_with(files), "/out")
    info = BackupInfo("orders", 50, 3, revision, 0xABCD, 2, 1_700_000_000, stream.total)
    return list(encode_backup(info, stream.read, chunk_bytes=chunk_bytes))


PIECES = pieces_of(FILES)
FILE = b"".join(PIECES)


def parse(data: bytes) -> BackupInfo:
    parser = BackupParser("file.kvs")
    parser.feed(data)
    return parser.finish()


def refused(data: bytes) -> CorruptionError:
    with pytest.raises(CorruptionError, match=r"file\.kvs") as caught:
        parse(data)
    return caught.value


@pytest.mark.parametrize("size", [1, 7, 100, len(FILE)])
def test_the_files_come_out_as_they_went_in_however_they_arrive(size: int) -> None:
    disk = MemoryFileSystem()
    disk.make_directory("/in")
    parser = BackupParser("file.kvs", lambda info: CheckpointWriter(disk, "/in", info.stream_bytes))
    for start in range(0, len(FILE), size):
        parser.feed(FILE[start : start + size])
    assert parser.finish() == parse(FILE)
    assert {name: disk.read(f"/in/{name}", 0, 1000) for name in disk.names("/in")} == FILES


def test_no_cut_is_taken_for_whole() -> None:
    for end in range(len(FILE)):
        assert refused(FILE[:end]).code is IntegrityCode.TRUNCATED_RECORD


def test_no_flipped_bit_goes_unnoticed() -> None:
    for bit in range(len(FILE) * 8):
        bad = bytearray(FILE)
        bad[bit // 8] ^= 1 << bit % 8
        error = refused(bytes(bad))
        assert error.offset is not None
        assert error.offset <= bit // 8


def test_no_piece_can_be_left_out_doubled_swapped_or_taken_from_another_file() -> None:
    other = pieces_of(FILES, revision=41)
    for at in range(len(PIECES)):
        refused(b"".join(PIECES[:at] + PIECES[at + 1 :]))
        refused(b"".join(PIECES[: at + 1] + PIECES[at:]))
        if at in (0, len(PIECES) - 1):
            refused(b"".join([*PIECES[:at], other[at], *PIECES[at + 1 :]]))
    chunks = PIECES[1:-1]
    assert len(chunks) > 3
    refused(b"".join([PIECES[0], *chunks[::-1], PIECES[-1]]))


def test_the_code_says_what_is_wrong() -> None:
    assert refused(b"#!/bin/sh\n").code is IntegrityCode.INVALID_MAGIC
    assert refused(FILE + b"x").code is IntegrityCode.INVALID_RECORD
    newer = FILE[:8] + struct.pack("<I", 2) + FILE[12:]
    assert refused(newer).code is IntegrityCode.UNSUPPORTED_VERSION
    assert refused(FILE[:-1] + bytes([FILE[-1] ^ 1])).code is IntegrityCode.CHECKSUM_MISMATCH


@pytest.mark.parametrize(
    "header",
    [
        b"",
        struct.pack("<III", 0x4E53564B, 1, 1 << 31),
        struct.pack("<III", 0x4E53564B, 2, 0),
        struct.pack("<III", 0x4E53564B, 1, 1) + struct.pack("<HQ", 4, 1 << 63) + b"name",
        struct.pack("<III", 0x4E53564B, 1, 1) + struct.pack("<HQ", 5, 0) + b"../ab",
        struct.pack("<III", 0x4E53564B, 1, 1) + struct.pack("<HQ", 2, 0) + b"..",
        struct.pack("<III", 0x4E53564B, 1, 2) + 2 * (struct.pack("<HQ", 1, 0) + b"a"),
        struct.pack("<III", 0x4E53564B, 1, 0) + b"more",
    ],
)
def test_a_stream_that_makes_no_sense_is_refused_though_its_checksums_are_right(
    header: bytes,
) -> None:
    info = BackupInfo("orders", 50, 3, 40, 0, 2, 0, len(header))
    refused(b"".join(encode_backup(info, lambda at, size: header[at : at + size])))


@given(st.binary(max_size=300))
def test_bytes_of_a_stranger_give_nothing_but_a_corruption_error(data: bytes) -> None:
    refused(data)
    description = struct.pack("<8sII", b"KVBACKUP", 1, len(data)) + data
    refused(description + struct.pack("<I", crc32c(description)) + data)


def test_mutated_files_are_refused_or_are_the_file() -> None:
    chance = random.Random(6)
    for _ in range(3000):
        bad = bytearray(FILE)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(bad))
            match chance.randrange(3):
                case 0:
                    bad[at] = chance.randrange(256)
                case 1:
                    del bad[at : at + chance.randint(1, 60)]
                case _:
                    bad[at:at] = chance.randbytes(chance.randint(1, 8))
            if not bad:
                break
        with contextlib.suppress(CorruptionError):
            assert parse(bytes(bad)) == parse(FILE)
            assert bytes(bad) == FILE


def test_a_file_that_is_not_there_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file") as caught:
        read_backup(str(tmp_path / "nowhere"))
    assert caught.value.code is IntegrityCode.IO_ERROR
