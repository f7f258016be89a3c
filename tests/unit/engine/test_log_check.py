"""Checks of a log's older segments, beside the log that is open."""

from __future__ import annotations

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log, SegmentCheck, log_segments
from kvstore.errors import CorruptionError, StorageError


def written(disk: MemoryFileSystem, records: int = 60) -> Log:
    disk.make_directories("/log")
    log = Log("/log", filesystem=disk, segment_bytes=8192)
    for index in range(1, records + 1):
        log.append(1, index, 1, b"%07d " % index + bytes(504))
        log.sync()
    return log


def check(disk: MemoryFileSystem, number: int, bytes_max: int = 1 << 20) -> list[int]:
    checking = SegmentCheck(disk, "/log", number)
    pieces = []
    while piece := checking.step(bytes_max):
        pieces.append(piece)
    return pieces


def test_whole_segments_are_whole_in_pieces_of_any_size() -> None:
    disk = MemoryFileSystem()
    with written(disk):
        numbers = log_segments(disk, "/log")
        assert len(numbers) > 3
        for number in numbers[:-1]:
            whole = sum(check(disk, number))
            assert 7000 < whole <= 8192
            pieces = check(disk, number, 1000)
            assert len(pieces) > 5
            assert sum(pieces) == whole


def test_segments_stay_whole_over_a_new_start() -> None:
    disk = MemoryFileSystem()
    written(disk).close()
    with Log("/log", filesystem=disk, segment_bytes=8192) as log:
        for index in range(61, 90):
            log.append(1, index, 1, bytes(500))
            log.sync()
        for number in log_segments(disk, "/log")[:-1]:
            assert check(disk, number)


def test_every_flipped_byte_of_a_segment_is_found_but_for_its_unused_end() -> None:
    disk = MemoryFileSystem()
    with written(disk):
        number = log_segments(disk, "/log")[1]
        path = f"/log/{number:06d}.wal"
        used = sum(check(disk, number))
        for at in range(0, used, 13):
            disk.flip_bit(path, at)
            with pytest.raises(CorruptionError) as told:
                check(disk, number)
            assert told.value.path == path
            disk.flip_bit(path, at)
        assert check(disk, number)


def test_a_segment_that_was_cut_or_zeroed_is_found_by_the_one_after_it() -> None:
    disk = MemoryFileSystem()
    with written(disk):
        number = log_segments(disk, "/log")[1]
        path = f"/log/{number:06d}.wal"
        content = disk.read_file(path)
        for damaged in (content[:4000], content[:4000] + bytes(len(content) - 4000)):
            disk.write_file(path, damaged)
            with pytest.raises(CorruptionError):
                check(disk, number)
        disk.write_file(path, content)
        assert check(disk, number)


def test_a_segment_under_anothers_name_or_that_is_gone_is_found() -> None:
    disk = MemoryFileSystem()
    with written(disk):
        first, second = log_segments(disk, "/log")[:2]
        other = disk.read_file(f"/log/{first:06d}.wal")
        disk.write_file(f"/log/{second:06d}.wal", other)
        with pytest.raises(CorruptionError):
            check(disk, second)
        with pytest.raises(StorageError):
            check(disk, 99)
