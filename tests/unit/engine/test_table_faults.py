"""Tables on a disk that fails: an error says which, and nothing is taken for absent."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from kvstore._engine.files.file_face import sync_directory
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.table.native import CacheFace, TableFile, TableWriter
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from tests.fuzz import resealing

PUT = 1
NEWEST = (1 << 56) - 1
KEYS = [b"%06d" % k for k in range(20_000)]


def fill(writer: TableWriter) -> dict[str, int]:
    for key in KEYS:
        writer.add(key, 1, PUT, b"v" * 50)
    return writer.finish()


@pytest.fixture
def disk() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories("/db")
    return disk


@pytest.fixture
def full_disk(disk: MemoryFileSystem) -> MemoryFileSystem:
    fill(TableWriter(disk, "/db/t", 7))
    return disk


def test_a_failed_read_is_an_io_error_and_passes_with_the_fault(
    full_disk: MemoryFileSystem,
) -> None:
    with TableFile(full_disk, "/db/t", 7, CacheFace(1 << 20)) as table:
        full_disk.fail("pread", errno.EIO, always=True)
        with pytest.raises(StorageError) as caught:
            table.get(KEYS[5000], NEWEST)
        assert caught.value.code is IntegrityCode.IO_ERROR
        assert caught.value.errno == errno.EIO
        assert not isinstance(caught.value, CorruptionError)
        with pytest.raises(StorageError):
            table.cursor().first()
        full_disk.heal()
        assert table.get(KEYS[5000], NEWEST) == (1, b"v" * 50)


def test_a_short_read_is_truncation_not_absence(full_disk: MemoryFileSystem) -> None:
    with TableFile(full_disk, "/db/t", 7) as table:
        full_disk.shorten_read(always=True)
        for read in (lambda: table.get(KEYS[5000], NEWEST), table.cursor().first, table.verify):
            with pytest.raises(CorruptionError) as caught:
                read()
            assert caught.value.code is IntegrityCode.TRUNCATED_RECORD


@pytest.mark.parametrize("read_ahead", [0, 1 << 18])
def test_a_scan_that_meets_a_failure_stops_there_with_the_error(
    full_disk: MemoryFileSystem, read_ahead: int
) -> None:
    with TableFile(full_disk, "/db/t", 7) as table:
        cursor = table.cursor(fill_cache=False, read_ahead=read_ahead)
        seen: list[bytes] = []

        def scan() -> None:
            entry = cursor.first()
            full_disk.fail("pread", errno.EIO, at=5, always=True)
            while entry is not None:
                seen.append(entry[0])
                entry = cursor.next()

        with pytest.raises(StorageError) as caught:
            scan()
        assert caught.value.code is IntegrityCode.IO_ERROR
        assert 0 < len(seen) < len(KEYS)
        assert seen == KEYS[: len(seen)]
        # It stands nowhere and goes on saying why, until it is placed anew.
        with pytest.raises(StorageError):
            cursor.next()
        full_disk.heal()
        assert cursor.seek(KEYS[-1], NEWEST) == (KEYS[-1], 1, PUT, b"v" * 50)


def test_read_ahead_makes_few_calls_and_short_scans_read_little(
    full_disk: MemoryFileSystem,
) -> None:
    with TableFile(full_disk, "/db/t", 7) as table:
        blocks = int(table.properties["data_blocks"])

        def reads(read_ahead: int, entries: int) -> int:
            before = full_disk.counts["pread"]
            cursor = table.cursor(fill_cache=False, read_ahead=read_ahead)
            entry, seen = cursor.first(), 0
            while entry is not None and seen < entries:
                entry = cursor.next()
                seen += 1
            return full_disk.counts["pread"] - before

        assert reads(0, len(KEYS)) >= blocks
        assert reads(1 << 20, len(KEYS)) < blocks // 10
        assert reads(1 << 20, 10) == 2


@pytest.mark.parametrize("operation", ["open", "pwrite", "write_back", "datasync", "close"])
def test_a_build_that_fails_leaves_no_file(disk: MemoryFileSystem, operation: str) -> None:
    disk.fail(operation, errno.ENOSPC)
    with pytest.raises(StorageError) as caught:
        fill(TableWriter(disk, "/db/t", 7))
    assert caught.value.code is IntegrityCode.IO_ERROR
    assert caught.value.errno == errno.ENOSPC
    assert disk.names("/db") == []


def test_a_finished_table_survives_a_power_loss(disk: MemoryFileSystem) -> None:
    fill(TableWriter(disk, "/db/t", 7))
    sync_directory(disk, "/db")
    with TableFile(disk.crash(keep="none"), "/db/t", 7) as table:
        table.verify()
        assert table.get(KEYS[77], NEWEST) == (1, b"v" * 50)


def test_running_out_of_memory_is_an_error_and_passes() -> None:
    script = textwrap.dedent(
        """
        import errno, resource
        from kvstore._engine.files.native import MemoryFileSystem
        from kvstore._engine.table.native import TableFile, TableWriter
        from kvstore.errors import StorageError

        disk = MemoryFileSystem()
        disk.make_directories("/db")
        writer = TableWriter(disk, "/db/t", 7)
        writer.add(b"k", 1, 1, b"v" * (48 << 20))
        writer.finish()
        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        with TableFile(disk, "/db/t", 7) as table:
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (now + (16 << 20), hard))
            for read in (lambda: table.get(b"k", 5), table.cursor().first, table.verify):
                try:
                    read()
                except StorageError as error:
                    assert error.errno == errno.ENOMEM, error
                else:
                    raise AssertionError("had the memory after all")
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            assert len(table.get(b"k", 5)[1]) == 48 << 20
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_block_out_of_order_is_refused_until_one_reading_found_it_in_order(
    full_disk: MemoryFileSystem,
) -> None:
    """The checksum says that it is what was written; each full check looks anew all the same."""
    whole = full_disk.read_file("/db/t")
    hurt = bytearray(whole)
    hurt[96 + 16 + 16] ^= 1  # the head of the first key of the first block
    damaged = resealing.table(bytes(hurt))

    def refused(read: Callable[[], object]) -> None:
        with pytest.raises(CorruptionError, match="block restart") as caught:
            read()
        assert caught.value.code is IntegrityCode.INVALID_RECORD

    full_disk.write("/db/t", 0, damaged)
    with TableFile(full_disk, "/db/t", 7) as table:
        for _ in range(2):
            refused(lambda: table.get(KEYS[0], NEWEST))
            refused(table.cursor().first)
        refused(table.verify)
    full_disk.write("/db/t", 0, whole)
    with TableFile(full_disk, "/db/t", 7) as table:
        assert table.get(KEYS[0], NEWEST) == (1, b"v" * 50)
        full_disk.write("/db/t", 0, damaged)
        refused(table.verify)
