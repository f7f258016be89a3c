"""Every disk keeps the rules of file.pxd: the operating system's and the one in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from kvstore._engine.files import file_face
from kvstore._engine.files.native import FileSystem, MemoryFileSystem, PosixFileSystem


@pytest.fixture(params=["posix", "memory"])
def disk(request, tmp_path) -> Iterator[tuple[FileSystem, str]]:
    if request.param == "posix":
        yield PosixFileSystem(), str(tmp_path)
    else:
        filesystem = MemoryFileSystem()
        file_face.make_directory(filesystem, "/d")
        yield filesystem, "/d"


def refusal(call, *arguments) -> int:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno is not None
    return caught.value.errno


def test_what_is_written_is_read_back(disk):
    filesystem, folder = disk
    file = file_face.open_file(filesystem, f"{folder}/a")
    file.pwrite(b"hello world", 0)
    file.pwrite(b"HELLO", 0)
    assert file.pread(100, 0) == b"HELLO world"
    assert file.pread(5, 6) == b"world"
    assert file.pread(5, 11) == b""
    assert file.size() == 11
    file.datasync()
    file.close()


def test_a_write_past_the_end_leaves_zeros_before_it(disk):
    filesystem, folder = disk
    file = file_face.open_file(filesystem, f"{folder}/a")
    file.pwrite(b"x", 1000)
    assert file.pread(2000, 0) == bytes(1000) + b"x"
    file.close()


def test_allocate_grows_with_zeros_and_never_shrinks(disk):
    filesystem, folder = disk
    file = file_face.open_file(filesystem, f"{folder}/a")
    file.pwrite(b"abc", 0)
    file.allocate(5000)
    assert file.pread(9000, 0) == b"abc" + bytes(4997)
    file.allocate(10)
    assert file.size() == 5000
    file.truncate(2)
    assert file.pread(10, 0) == b"ab"
    file.close()


def test_modes_say_whether_a_file_must_exist(disk):
    filesystem, folder = disk
    path = f"{folder}/a"
    assert refusal(file_face.open_file, filesystem, path, "read") == errno.ENOENT
    assert refusal(file_face.open_file, filesystem, path, "write") == errno.ENOENT
    file_face.open_file(filesystem, path, "exclusive").close()
    assert refusal(file_face.open_file, filesystem, path, "exclusive") == errno.EEXIST
    file = file_face.open_file(filesystem, path, "read")
    assert refusal(file.pwrite, b"x", 0) == errno.EBADF
    file.close()


def test_rename_replaces_and_link_does_not(disk):
    filesystem, folder = disk
    for name in "ab":
        file = file_face.open_file(filesystem, f"{folder}/{name}")
        file.pwrite(name.encode(), 0)
        file.close()
    assert refusal(file_face.link, filesystem, f"{folder}/a", f"{folder}/b") == errno.EEXIST
    file_face.link(filesystem, f"{folder}/a", f"{folder}/c")
    file_face.rename(filesystem, f"{folder}/a", f"{folder}/b")
    assert file_face.names(filesystem, folder) == ["b", "c"]
    for name in "bc":
        file = file_face.open_file(filesystem, f"{folder}/{name}", "read")
        assert file.pread(9, 0) == b"a"
        file.close()
    assert refusal(file_face.rename, filesystem, f"{folder}/z", f"{folder}/y") == errno.ENOENT


def test_what_is_written_back_reads_the_same(disk):
    filesystem, folder = disk
    file = file_face.open_file(filesystem, f"{folder}/a")
    file.pwrite(bytes(range(256)) * 40, 0)
    file.write_back(0, 10_240)
    file.write_back(5000, 1)
    file.write_back(1 << 30, 4096)
    assert file.pread(20_000, 0) == bytes(range(256)) * 40
    file.datasync()
    file.close()


def test_a_file_that_loses_its_last_name_gives_its_space_back(disk):
    filesystem, folder = disk
    file = file_face.open_file(filesystem, f"{folder}/a")
    file.pwrite(bytes(8 << 20), 0)
    file_face.link(filesystem, f"{folder}/a", f"{folder}/b")
    file_face.unlink(filesystem, f"{folder}/a")
    assert len(file.pread(8 << 20, 0)) == 8 << 20
    file_face.unlink(filesystem, f"{folder}/b")
    # What is open has little of it left, so that the close has little to do.
    assert len(file.pread(8 << 20, 0)) <= 1 << 20
    file.close()
    assert refusal(file_face.unlink, filesystem, f"{folder}/a") == errno.ENOENT


def test_unlinking_a_symbolic_link_leaves_what_it_names_alone(tmp_path):
    (tmp_path / "target").write_bytes(bytes(4 << 20))
    (tmp_path / "link").symlink_to("target")
    file_face.unlink(PosixFileSystem(), str(tmp_path / "link"))
    assert (tmp_path / "target").stat().st_size == 4 << 20
    os.mkfifo(tmp_path / "pipe")
    file_face.unlink(PosixFileSystem(), str(tmp_path / "pipe"))
    assert os.listdir(tmp_path) == ["target"]


def test_directories(disk):
    filesystem, folder = disk
    file_face.make_directory(filesystem, f"{folder}/sub")
    assert refusal(file_face.make_directory, filesystem, f"{folder}/sub") == errno.EEXIST
    assert refusal(file_face.make_directory, filesystem, f"{folder}/no/sub") == errno.ENOENT
    file_face.open_file(filesystem, f"{folder}/sub/f").close()
    assert file_face.kind(filesystem, f"{folder}/sub") == 2
    assert file_face.kind(filesystem, f"{folder}/sub/f") == 1
    assert refusal(file_face.kind, filesystem, f"{folder}/none") == errno.ENOENT
    assert refusal(file_face.remove_directory, filesystem, f"{folder}/sub") == errno.ENOTEMPTY
    file_face.unlink(filesystem, f"{folder}/sub/f")
    file_face.sync_directory(filesystem, f"{folder}/sub")
    file_face.remove_directory(filesystem, f"{folder}/sub")
    assert file_face.names(filesystem, folder) == []
    assert refusal(file_face.names, filesystem, f"{folder}/sub") == errno.ENOENT
    assert refusal(file_face.sync_directory, filesystem, f"{folder}/sub") == errno.ENOENT


def test_a_directory_is_renamed_with_what_is_in_it(disk):
    filesystem, folder = disk
    file_face.make_directory(filesystem, f"{folder}/new")
    file_face.open_file(filesystem, f"{folder}/new/f").close()
    file_face.rename(filesystem, f"{folder}/new", f"{folder}/current")
    assert file_face.names(filesystem, f"{folder}/current") == ["f"]


def test_a_lock_has_one_holder_even_within_a_process(disk):
    filesystem, folder = disk
    holder = file_face.lock(filesystem, f"{folder}/LOCK")
    assert refusal(file_face.lock, filesystem, f"{folder}/LOCK") == errno.EWOULDBLOCK
    holder.close()
    file_face.lock(filesystem, f"{folder}/LOCK").close()


def test_free_bytes_is_known(disk):
    filesystem, folder = disk
    assert file_face.free_bytes(filesystem, folder) > 0
