"""The in-memory disk: what a power loss leaves, and faults on demand."""

from __future__ import annotations

import errno
from functools import partial
from random import Random

import pytest

from kvstore._engine.files import file_face
from kvstore._engine.files.native import MemoryFileSystem


def durable_file(disk: MemoryFileSystem, path: str, content: bytes) -> file_face.OpenFile:
    file = file_face.open_file(disk, path)
    file.pwrite(content, 0)
    file.datasync()
    file_face.sync_directory(disk, path.rpartition("/")[0] or "/")
    return file


def outcomes(disk: MemoryFileSystem, keep, path: str, seeds: int = 200) -> set[bytes | None]:
    """Each content (None: no such file) that some power loss leaves."""
    found: set[bytes | None] = set()
    for seed in range(seeds):
        after = disk.crash(Random(seed), keep)
        found.add(after.read_file(path) if after.exists(path) else None)
    return found


def test_only_synced_bytes_survive():
    disk = MemoryFileSystem()
    file = durable_file(disk, "/a", b"old")
    file.pwrite(b"new", 0)
    assert disk.read_file("/a") == b"new"
    assert disk.unsynced_files() == ["/a"]
    assert disk.crash().read_file("/a") == b"old"
    file.datasync()
    assert disk.unsynced_files() == []
    assert disk.crash().read_file("/a") == b"new"


def test_a_name_survives_only_after_a_sync_of_its_directory():
    disk = MemoryFileSystem()
    file = file_face.open_file(disk, "/a")
    file.pwrite(b"x", 0)
    file.datasync()
    assert disk.crash().files() == []
    file_face.sync_directory(disk, "/")
    assert disk.crash().read_file("/a") == b"x"
    file_face.rename(disk, "/a", "/b")
    assert disk.crash().files() == ["/a"]
    file_face.unlink(disk, "/b")
    assert disk.crash().files() == ["/a"]
    file_face.sync_directory(disk, "/")
    assert disk.crash().files() == []


def test_a_directory_that_was_never_synced_takes_its_files_with_it():
    disk = MemoryFileSystem()
    file_face.make_directory(disk, "/d")
    durable_file(disk, "/d/a", b"x")
    assert disk.crash().files() == []
    file_face.sync_directory(disk, "/")
    assert disk.crash().files() == ["/d/a"]


def test_a_rename_is_all_or_nothing_also_between_directories():
    disk = MemoryFileSystem()
    for name in ("/d", "/e"):
        file_face.make_directory(disk, name)
    file_face.sync_directory(disk, "/")
    durable_file(disk, "/d/a", b"new")
    durable_file(disk, "/e/a", b"old")
    file_face.rename(disk, "/d/a", "/e/a")
    seen = set()
    for seed in range(50):
        after = disk.crash(Random(seed), "random")
        seen.add((tuple(after.files()), after.read_file("/e/a")))
    assert seen == {(("/d/a", "/e/a"), b"old"), (("/e/a",), b"new")}
    file_face.sync_directory(disk, "/d")
    assert disk.crash().files() == ["/e/a"]


def test_prefix_tears_the_last_write_at_any_byte_and_keeps_order():
    disk = MemoryFileSystem()
    file = durable_file(disk, "/a", b"")
    file.pwrite(b"12345", 0)
    file.pwrite(b"6789", 5)
    assert outcomes(disk, "prefix", "/a") == {b"123456789"[:n] for n in range(10)}


def test_random_keeps_any_sector_as_it_was_at_any_moment():
    disk = MemoryFileSystem()
    file = durable_file(disk, "/a", b"a" * 1024)
    file.pwrite(b"b" * 1024, 0)
    file.pwrite(b"c" * 512, 0)
    found = outcomes(disk, "random", "/a")
    assert found == {
        first * 512 + second * 512 for first in (b"a", b"b", b"c") for second in (b"a", b"b")
    }


def test_all_keeps_everything():
    disk = MemoryFileSystem()
    file_face.open_file(disk, "/a").pwrite(b"x", 3)
    assert disk.crash(keep="all").read_file("/a") == b"\0\0\0x"


def test_the_same_seed_leaves_the_same_disk():
    disk = MemoryFileSystem()
    file = durable_file(disk, "/a", b"")
    for i in range(50):
        file.pwrite(bytes([i]) * 700, i * 500)
    for keep in ("prefix", "random"):
        assert disk.crash(Random(7), keep).read_file("/a") == disk.crash(Random(7), keep).read_file(
            "/a"
        )


def test_hard_links_stay_one_file_over_a_power_loss():
    disk = MemoryFileSystem()
    durable_file(disk, "/a", b"x")
    file_face.link(disk, "/a", "/b")
    file_face.sync_directory(disk, "/")
    after = disk.crash()
    file_face.open_file(after, "/a").pwrite(b"y", 0)
    assert after.read_file("/b") == b"y"


@pytest.mark.parametrize("operation", ["datasync", "write_back"])
def test_what_could_not_be_written_is_never_durable(operation):
    disk = MemoryFileSystem()
    file = durable_file(disk, "/a", b"old")
    file.pwrite(b"new", 0)
    disk.fail(operation, errno.EIO)
    call = file.datasync if operation == "datasync" else partial(file.write_back, 0, 3)
    with pytest.raises(OSError, match="Input/output"):
        call()
    file.datasync()
    assert disk.read_file("/a") == b"new"
    assert disk.crash().read_file("/a") == b"old"


@pytest.mark.parametrize("always", [False, True])
def test_the_nth_operation_fails_once_or_always(always):
    disk = MemoryFileSystem()
    file = file_face.open_file(disk, "/a")
    file_face.open_file(disk, "/b").pwrite(b"elsewhere", 0)
    disk.fail("pwrite", errno.EIO, at=2, always=always, path="a")
    failed = []
    for _ in range(4):
        try:
            file.pwrite(b"x", 0)
            failed.append(False)
        except OSError as error:
            assert error.errno == errno.EIO
            failed.append(True)
    assert failed == ([False, True, True, True] if always else [False, True, False, False])
    disk.heal()
    file.pwrite(b"x", 0)


def test_a_full_disk_takes_what_fits_and_overwrites_in_place():
    disk = MemoryFileSystem(capacity_bytes=10)
    file = file_face.open_file(disk, "/a")
    file.pwrite(b"12345678", 0)
    assert file_face.free_bytes(disk, "/") == 2
    with pytest.raises(OSError, match="No space"):
        file.pwrite(b"abcd", 8)
    assert disk.read_file("/a") == b"12345678ab"
    file.pwrite(b"AB", 0)
    with pytest.raises(OSError, match="No space"):
        file.allocate(11)
    disk.capacity_bytes = 100
    file.allocate(11)


def test_short_reads_and_bit_flips():
    disk = MemoryFileSystem()
    file = durable_file(disk, "/a", b"12345678")
    disk.shorten_read()
    assert file.pread(8, 0) == b"1234"
    assert file.pread(8, 0) == b"12345678"
    disk.flip_bit("/a", 2, 1)
    assert file.pread(8, 0) == b"12145678"
    assert disk.crash().read_file("/a") == b"12145678"


def test_the_disk_stops_at_each_operation_and_stays_stopped():
    def run(disk: MemoryFileSystem) -> None:
        file = durable_file(disk, "/a", b"x")
        file.pwrite(b"y", 0)
        file.datasync()

    whole = MemoryFileSystem()
    run(whole)
    assert whole.operations == 6  # create, pwrite, datasync, sync_directory, pwrite, datasync
    left = []
    for stop in range(1, whole.operations + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        with pytest.raises(OSError, match="Input/output"):
            run(disk)
        assert disk.stopped
        with pytest.raises(OSError, match="Input/output"):
            file_face.names(disk, "/")
        after = disk.crash()
        left.append(after.read_file("/a") if after.exists("/a") else None)
    assert left == [None, None, None, None, b"x", b"x"]


def test_a_hook_sees_each_operation_and_may_fail_it():
    disk = MemoryFileSystem()
    seen = []

    def hook(operation: str, path: str) -> None:
        seen.append((operation, path))
        if operation == "datasync":
            raise OSError(errno.EDQUOT, "quota")

    disk.on_operation = hook
    file = file_face.open_file(disk, "/a")
    with pytest.raises(OSError) as caught:
        file.datasync()
    assert caught.value.errno == errno.EDQUOT
    assert seen == [("open", "/a"), ("create", "/a"), ("datasync", "/a")]
    assert disk.counts["datasync"] == 1


def test_contents_go_in_and_out():
    disk = MemoryFileSystem()
    disk.write_file("/x/y/a", b"1")
    disk.write_file("/x/b", b"2")
    disk.copy("/x", "/z")
    assert disk.files() == ["/x/b", "/x/y/a", "/z/b", "/z/y/a"]
    assert disk.names("/x") == ["b", "y"]
    assert disk.used_bytes == 4
    assert disk.crash().read_file("/z/y/a") == b"1"
    disk.remove_file("/x/b")
    assert not disk.crash(keep="all").exists("/x/b")
