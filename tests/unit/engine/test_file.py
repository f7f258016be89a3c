"""Every disk keeps the rules of file.pxd: the operating system's and the one in memory."""

from __future__ import annotations

import errno
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


def test_an_unlinked_file_stays_readable_while_it_is_open(disk):
    filesystem, folder = disk
    file = file_face.open_file(filesystem, f"{folder}/a")
    file.pwrite(b"still", 0)
    file_face.unlink(filesystem, f"{folder}/a")
    assert file.pread(9, 0) == b"still"
    file.close()
    assert refusal(file_face.unlink, filesystem, f"{folder}/a") == errno.ENOENT


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
