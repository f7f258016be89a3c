"""The one durable log: records in order, segments, group commit, failures, damage."""

from __future__ import annotations

import errno
import os
import struct
import threading

import pytest

from kvstore._engine.files.native import MemoryFileSystem, PosixFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.primitives import native as memory
from kvstore.errors import (
    ClosedError,
    CorruptionError,
    IntegrityCode,
    InvalidArgumentError,
    StorageError,
)

COMMAND, STATE = 1, 9
SEGMENT_HEADER, RECORD_HEADER = 128, 48

Record = tuple[int, int, int, bytes]


def record(index: int, size: int = 20) -> Record:
    return COMMAND, index, index // 10, b"%d" % index * (size // len(b"%d" % index))


def records(first: int, last: int, size: int = 20) -> list[Record]:
    return [record(index, size) for index in range(first, last + 1)]


def fill(log: Log, first: int, last: int, size: int = 20) -> None:
    log.append_many(records(first, last, size))
    log.sync()


def read(disk: MemoryFileSystem) -> list[Record]:
    with Log("/log", filesystem=disk, read_only=True) as log:
        return list(log.replay())


def segments(disk: MemoryFileSystem) -> list[str]:
    return [name for name in disk.names("/log") if name.endswith(".wal")]


@pytest.fixture(params=["memory", "posix"])
def place(request, tmp_path):
    """Where a log can be opened again and again: its arguments."""
    if request.param == "memory":
        return {"path": "/log", "filesystem": MemoryFileSystem()}
    return {"path": tmp_path / "log", "filesystem": PosixFileSystem()}


def test_records_come_back_in_order_over_many_openings(place):
    expected = []
    for number in range(5):
        with Log(**place, segment_bytes=4096) as log:
            assert list(log.replay()) == expected
            assert log.recovery.records == len(expected)
            assert log.recovery.clean
            fresh = records(1 + 50 * number, 50 + 50 * number, 1 + 30 * number)
            log.append_many(fresh)
            expected += fresh


def test_written_and_not_synced_survives_the_process_but_not_the_machine():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 3)
    log.append_many(records(4, 6))
    log.write()
    assert [index for _, index, _, _ in read(disk.crash(keep="all"))] == [1, 2, 3, 4, 5, 6]
    assert [index for _, index, _, _ in read(disk.crash())] == [1, 2, 3]


def test_payloads_of_every_size_around_the_paddings_and_segments(place):
    sizes = [0, 1, 7, 8, 9, 15, 16, 17, 4000, 4096, 10_000, 3 << 20]
    expected = [(COMMAND, i, 0, os.urandom(size)) for i, size in enumerate(sizes)]
    with Log(**place, segment_bytes=4096) as log:
        for one in expected:
            log.append(*one)
            log.write()
    with Log(**place, segment_bytes=4096) as log:
        assert list(log.replay()) == expected


def test_old_segments_go_and_are_used_again():
    disk = MemoryFileSystem()
    with Log("/log", filesystem=disk, segment_bytes=4096) as log:
        fill(log, 1, 400)
        before = len(segments(disk))
        assert before > 5
        removed = log.remove_before(350)
        assert removed == before - len(segments(disk)) > 0
        assert any(name.endswith(".spare") for name in disk.names("/log"))
        fill(log, 401, 500)
    left = read(disk)
    assert left == records(left[0][1], 500)
    assert left[0][1] <= 350


def test_a_segment_stays_for_its_last_record():
    disk = MemoryFileSystem()
    with Log("/log", filesystem=disk, segment_bytes=4096) as log:
        fill(log, 1, 400)
        before = segments(disk)
        last = next(
            index - 1
            for index in range(2, 400)
            if struct.pack("<Q", index) in disk.read_file(f"/log/{before[1]}")[144:152]
        )
        assert log.remove_before(last) == 0
        assert log.remove_before(last + 1) == 1
        assert segments(disk) == before[1:]
    assert read(disk) == records(last + 1, 400)


def test_synced_records_are_written_over_zeros_that_went_ahead_of_them():
    disk = MemoryFileSystem()

    def writes(records):
        before = disk.counts["pwrite"]
        for _ in range(records):
            log.append(COMMAND, 1, 1, bytes(1024))
            log.sync()
        return disk.counts["pwrite"] - before

    with Log("/log", filesystem=disk, segment_bytes=1 << 20) as log:
        assert writes(1) == 4  # the segment's header, the record, zeros, the mark
        assert writes(200) == 2 * 200
        assert writes(200) == 2 * 200 + 1
        while log.stats()["segment"] == 1:
            log.append(COMMAND, 1, 1, bytes(1024))
        log.sync()
        assert log.remove_before(2) == 1
        while log.stats()["segment"] == 2:
            log.append(COMMAND, 3, 1, bytes(1024))
        log.sync()
        # The third is in the first one's file, all of which was written once.
        assert writes(400) == 2 * 400


def test_nothing_goes_before_a_later_segment_is_durable():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096, sticky_kinds=[STATE])
    log.append(STATE, 0, 0, b"the state")
    fill(log, 1, 40)
    log.append_many(records(41, 80))
    log.write()
    log.remove_before(80)
    with Log("/log", filesystem=disk.crash(), sticky_kinds=[STATE]) as again:
        found = list(again.replay())
    assert (STATE, 0, 0, b"the state") in found
    assert [index for kind, index, _, _ in found if kind == COMMAND][-1] >= 40


def test_sticky_records_outlive_the_segments_that_held_them():
    disk, highest = MemoryFileSystem(), 0xEF
    with Log("/log", filesystem=disk, segment_bytes=4096, sticky_kinds=[STATE, highest]) as log:
        log.append(highest, 0, 0, b"who I am")
        for index in range(1, 300):
            if index % 50 == 0:
                log.append(STATE, 0, 0, b"state %d" % index)
            log.append(*record(index))
        log.sync()
        log.remove_before(299)
        assert len(segments(disk)) == 1
    with Log("/log", filesystem=disk, sticky_kinds=[STATE, highest]) as log:
        newest = {kind: payload for kind, _, _, payload in log.replay() if kind != COMMAND}
    assert newest == {STATE: b"state 250", highest: b"who I am"}


def test_threads_share_syncs_and_each_returns_only_when_its_record_is_durable(tmp_path):
    log = Log(tmp_path / "log")
    lock = threading.Lock()
    indexes = iter(range(1, 1000))
    failures = []

    def work() -> None:
        for _ in range(50):
            with lock:
                ticket = log.append(*record(next(indexes)))
            log.sync()
            if log.durable_ticket < ticket:
                failures.append(ticket)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    # 400 calls of sync(), most of which find their record durable or wait for another's.
    assert log.stats()["syncs"] < 300
    log.close()
    with Log(tmp_path / "log") as again:
        assert list(again.replay()) == records(1, 400)


def test_the_writer_thread_signals_when_what_was_submitted_is_durable(tmp_path):
    with Log(tmp_path / "log") as log:
        event = log.start_writer()
        log.append(*record(1))
        ticket = log.submit()
        while log.durable_ticket < ticket:
            os.set_blocking(event, True)
            os.read(event, 8)
        log.append(*record(2))
        ticket = log.submit()
        while log.durable_ticket < ticket:
            os.read(event, 8)


def test_who_submits_what_another_sync_was_for_is_signalled_too(tmp_path):
    with Log(tmp_path / "log") as log:
        event = log.start_writer()
        os.set_blocking(event, True)
        log.append(*record(1))
        log.sync()
        syncs = log.stats()["syncs"]
        log.submit()
        os.read(event, 8)
        assert log.stats()["syncs"] == syncs


def test_every_eventfd_is_signalled_until_it_is_forgotten(tmp_path):
    own, other = os.eventfd(0), os.eventfd(0)
    with Log(tmp_path / "log") as log:
        log.start_write_behind()  # beside the writer, which tell() starts
        log.tell(own)
        log.tell(other)
        log.append(*record(1))
        log.submit()
        assert os.eventfd_read(own) >= 1
        assert os.eventfd_read(other) >= 1
        log.forget(other)
        log.append(*record(2))
        ticket = log.submit()
        while log.durable_ticket < ticket:
            os.eventfd_read(own)
        os.set_blocking(other, False)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(other)
    # The end is told as well.
    assert os.eventfd_read(own) >= 1
    assert log.synced_ticket >= ticket
    os.close(own)
    os.close(other)


def test_a_log_that_fails_tells_so():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    event = os.eventfd(0)
    log.tell(event)
    fill(log, 1, 1)
    ticket = log.durable_ticket
    disk.fail("datasync", errno.EIO)
    log.append(*record(2))
    log.submit()
    os.eventfd_read(event)
    assert log.synced_ticket == ticket
    with pytest.raises(StorageError):
        _ = log.durable_ticket
    with pytest.raises(StorageError):
        log.submit()
    log.close()
    os.close(event)


def test_a_failed_sync_is_final_and_never_tried_again():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 1)
    disk.fail("datasync", errno.EIO)
    log.append(*record(2))
    with pytest.raises(StorageError) as first:
        log.sync()
    assert first.value.code == IntegrityCode.IO_ERROR
    syncs = disk.counts["datasync"]
    for call in (log.sync, log.write, lambda: log.append(*record(3)), lambda: log.durable_ticket):
        with pytest.raises(StorageError):
            call()
    assert disk.counts["datasync"] == syncs
    assert read(disk.crash()) == [record(1)]


def test_what_opening_found_in_memory_of_the_system_is_durable_from_then_on():
    """The process died, the machine didn't; whoever replays the records builds on them."""
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 3)
    log.append_many(records(4, 6))
    log.write()
    del log
    assert read(disk.crash()) == records(1, 3)
    with Log("/log", filesystem=disk) as again:
        assert list(again.replay()) == records(1, 6)
        assert read(disk.crash()) == records(1, 6)


def test_the_mark_of_a_close_whose_sync_failed_is_not_believed():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 3)
    log.append(*record(4))
    disk.fail("datasync", errno.EIO)
    with pytest.raises(StorageError):
        log.close()
    del log
    with Log("/log", filesystem=disk) as again:
        assert list(again.replay()) == records(1, 4)
        assert not again.recovery.clean
        assert read(disk.crash()) == records(1, 4)


def test_a_read_that_returns_too_little_is_a_failing_device_and_no_torn_tail():
    disk = MemoryFileSystem()
    with Log("/log", filesystem=disk) as log:
        fill(log, 1, 5, 200_000)
    before = disk.counts["pread"]
    expected = read(disk)
    reads = disk.counts["pread"] - before
    failures = 0
    for at in range(1, reads + 1):
        disk.shorten_read(at=at)
        try:
            assert read(disk) == expected
        except StorageError as failed:
            assert (failed.code, failed.errno) == (IntegrityCode.IO_ERROR, errno.EIO)
            failures += 1
    assert failures >= 5
    assert read(disk) == expected


def test_an_append_that_lacks_memory_midway_changes_nothing():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    fill(log, 1, 3)
    many = [*records(4, 6), record(7, 200_000), record(8)]
    refused = 0
    while True:
        memory.fail_allocation(refused + 1)
        try:
            log.append_many(many)
            break
        except MemoryError:
            refused += 1
        finally:
            memory.reset()
    assert refused > 1
    log.sync()
    assert read(disk.crash()) == [*records(1, 3), *many]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_fails_within_a_segment_is_final(code):
    """Also for want of space, which a file system that copies on write may lack all the same."""
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 1)
    disk.fail("pwrite", code)
    log.append(*record(2))
    with pytest.raises(StorageError) as failed:
        log.sync()
    assert failed.value.errno == code
    for call in (log.sync, log.write, lambda: log.append(*record(3)), lambda: log.durable_ticket):
        with pytest.raises(StorageError):
            call()
    assert read(disk.crash()) == [record(1)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_what_waits_goes_on_when_there_is_room(code):
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    fill(log, 1, 20)
    disk.fail("allocate", code, always=True)
    log.append_many(records(21, 200))
    with pytest.raises(StorageError) as caught:
        log.sync()
    assert caught.value.errno == code
    disk.heal()
    log.sync()
    log.close()
    assert read(disk) == records(1, 200)


def test_a_closed_log_and_bad_arguments_are_refused(tmp_path):
    log = Log(tmp_path / "log")
    for kind in (0, 240, -1, 256):
        with pytest.raises(InvalidArgumentError):
            log.append(kind, 1, 1, b"")
    with pytest.raises(InvalidArgumentError, match="1 GiB"):
        log.append(COMMAND, 1, 1, bytes((1 << 30) + 1))
    log.close()
    log.close()
    with pytest.raises(ClosedError):
        log.append(*record(1))
    with pytest.raises(InvalidArgumentError):
        Log(tmp_path / "log", segment_bytes=100)
    with Log(tmp_path / "log", read_only=True) as reader, pytest.raises(InvalidArgumentError):
        reader.append(*record(1))


# --- damage ------------------------------------------------------------------------------------


def damaged_log() -> tuple[MemoryFileSystem, str]:
    """A log of two syncs that was not closed: ten records, ten more, a mark."""
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 10)
    fill(log, 11, 20)
    return disk.crash(keep="all"), "/log/000001.wal"


def test_every_changed_bit_in_a_durable_record_is_damage():
    disk, path = damaged_log()
    size = 21 * (RECORD_HEADER + 24)
    content = disk.read_file(path)
    for bit in range((SEGMENT_HEADER + size - RECORD_HEADER) * 8):
        offset = bit // 8
        if _is_unused(offset, content):
            continue
        disk.flip_bit(path, offset, bit % 8)
        with pytest.raises(CorruptionError) as caught:
            Log("/log", filesystem=disk)
        assert caught.value.path == path
        assert caught.value.offset is not None
        disk.flip_bit(path, offset, bit % 8)
    assert read(disk) == records(1, 20)


def _is_unused(offset: int, content: bytes) -> bool:
    """Bytes that say nothing: the padding behind a payload."""
    at = SEGMENT_HEADER
    while at <= offset:
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + RECORD_HEADER + size
        if end <= offset < (end + 7) // 8 * 8:
            return True
        at = (end + 7) // 8 * 8
    return False


def test_a_tail_that_was_never_promised_is_cut_and_told():
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    fill(log, 1, 5)
    end = log.stats()["durable_bytes"]
    log.append_many(records(6, 8))
    log.write()
    torn = disk.crash(keep="all")
    torn.flip_bit("/log/000001.wal", SEGMENT_HEADER + end + RECORD_HEADER + 3)
    with Log("/log", filesystem=torn) as again:
        assert list(again.replay()) == records(1, 5)
        assert again.recovery.cut_bytes > 0
        assert again.recovery.cut_path == "/log/000001.wal"
        assert not again.recovery.clean
        fill(again, 6, 9)
    assert read(torn) == records(1, 9)


@pytest.mark.parametrize(
    ("offset", "bytes_", "code"),
    [
        (0, b"XXXX", IntegrityCode.INVALID_MAGIC),
        (8, b"\x07", IntegrityCode.CHECKSUM_MISMATCH),
        (SEGMENT_HEADER, b"XX", IntegrityCode.INVALID_MAGIC),
        (SEGMENT_HEADER + 4, b"\xff\xff", IntegrityCode.CHECKSUM_MISMATCH),
        (SEGMENT_HEADER + RECORD_HEADER, b"\xff", IntegrityCode.CHECKSUM_MISMATCH),
    ],
)
def test_damage_has_the_code_of_what_is_wrong(offset, bytes_, code):
    disk, path = damaged_log()
    content = bytearray(disk.read_file(path))
    content[offset : offset + len(bytes_)] = bytes_
    disk.write_file(path, bytes(content))
    with pytest.raises(CorruptionError) as caught:
        Log("/log", filesystem=disk)
    assert caught.value.code == code


def test_durable_records_that_are_gone_are_damage():
    disk, path = damaged_log()
    content = bytearray(disk.read_file(path))
    size = RECORD_HEADER + 24
    content[SEGMENT_HEADER + size * 4 : SEGMENT_HEADER + size * 6] = bytes(size * 2)
    disk.write_file(path, bytes(content))
    with pytest.raises(CorruptionError):
        Log("/log", filesystem=disk)


def test_a_missing_or_foreign_segment_is_damage():
    disk = MemoryFileSystem()
    with Log("/log", filesystem=disk, segment_bytes=4096) as log:
        fill(log, 1, 300)
    first, second, third = segments(disk)[:3]
    hole = disk.crash()
    hole.remove_file(f"/log/{second}")
    with pytest.raises(CorruptionError, match="missing"):
        Log("/log", filesystem=hole)
    swapped = disk.crash()
    swapped.write_file(f"/log/{second}", disk.read_file(f"/log/{third}"))
    with pytest.raises(CorruptionError):
        Log("/log", filesystem=swapped)
    cut = disk.crash()
    cut.write_file(f"/log/{first}", disk.read_file(f"/log/{first}")[:1000])
    with pytest.raises(CorruptionError):
        Log("/log", filesystem=cut)


def test_a_log_inside_a_value_is_not_taken_for_records():
    disk = MemoryFileSystem()
    with Log("/log", filesystem=disk) as log:
        fill(log, 1, 30)
    inner = disk.read_file("/log/000001.wal")
    outer = MemoryFileSystem()
    log = Log("/log", filesystem=outer)
    log.append(COMMAND, 1, 1, inner)
    log.sync()
    assert read(outer.crash()) == [(COMMAND, 1, 1, inner)]
