"""Reading entries of the log by their index, while it goes on."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import ClosedError, CorruptionError, InvalidArgumentError, StorageError

ENTRY, STICKY = 1, 9
SEGMENT = 4096
MOST = 1 << 40


@pytest.fixture
def disk() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directory("/d")
    return disk


def open_log(disk: MemoryFileSystem) -> Log:
    return Log("/d/log", filesystem=disk, segment_bytes=SEGMENT, sticky_kinds=(STICKY,))


def payload(index: int, term: int) -> bytes:
    return b"%d/%d " % (term, index) * (1 + index % 7)


def append(log: Log, first: int, last: int, term: int) -> None:
    for index in range(first, last + 1):
        log.append(ENTRY, index, term, payload(index, term))


def read_all(log: Log, first: int, last: int, bytes_max: int = 500) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    while first <= last:
        entries = log.read_entries(first, last, bytes_max)
        assert entries, f"entry {first} isn't there"
        for kind, index, term, data in entries:
            assert (kind, index) == (ENTRY, first)
            found.append((index, term, data))
            first += 1
    return found


def test_all_entries_of_many_segments_are_read(disk):
    with open_log(disk) as log:
        append(log, 1, 900, 1)
        log.sync()
        assert log.stats()["segments"] > 5
        assert read_all(log, 1, 900) == [(i, 1, payload(i, 1)) for i in range(1, 901)]
        assert log.first_index == 1


def test_a_read_is_bounded_by_bytes_and_by_the_last_index(disk):
    with open_log(disk) as log:
        append(log, 1, 30, 1)
        log.sync()
        sizes = [len(payload(index, 1)) for index in range(1, 31)]
        assert len(log.read_entries(1, MOST, sum(sizes[:4]))) == 4
        assert len(log.read_entries(1, MOST, sum(sizes[:4]) + 1)) == 5
        assert len(log.read_entries(1, MOST, 0)) == 1
        assert [entry[1] for entry in log.read_entries(7, 9, MOST)] == [7, 8, 9]
        assert [entry[1] for entry in log.read_entries(7, 7, MOST)] == [7]


def test_an_entry_larger_than_a_segment_is_read(disk):
    with open_log(disk) as log:
        log.append(ENTRY, 1, 1, b"a")
        log.append(ENTRY, 2, 1, b"b" * 3 * SEGMENT)
        log.append(ENTRY, 3, 1, b"c")
        log.sync()
        assert [len(entry[3]) for entry in log.read_entries(2, 3, 1)] == [3 * SEGMENT]


def test_what_is_not_durable_yet_is_not_read(disk):
    with open_log(disk) as log:
        append(log, 1, 5, 1)
        log.sync()
        append(log, 6, 9, 1)
        assert [entry[1] for entry in log.read_entries(4, MOST, MOST)] == [4, 5]
        log.sync()
        assert [entry[1] for entry in log.read_entries(4, MOST, MOST)] == [4, 5, 6, 7, 8, 9]


def test_the_newest_record_of_an_index_counts(disk):
    with open_log(disk) as log:
        append(log, 1, 10, 1)
        append(log, 8, 12, 2)
        append(log, 11, 200, 3)
        append(log, 199, 205, 4)
        log.sync()
        wanted = [(i, 1 if i < 8 else 2 if i < 11 else 3 if i < 199 else 4) for i in range(1, 206)]
        for bytes_max in (0, 30, 1000, MOST):
            found = read_all(log, 1, 205, bytes_max)
            assert [(index, term) for index, term, _ in found] == wanted


def test_entries_replaced_in_a_later_segment_are_not_read_from_an_older_one(disk):
    with open_log(disk) as log:
        append(log, 1, 10, 1)
        log.append(STICKY, 0, 0, b"x" * (SEGMENT - 600))
        append(log, 9, 60, 2)
        log.sync()
        assert log.stats()["segments"] >= 2
        assert [e[1] for e in log.read_entries(1, MOST, MOST)] == list(range(1, 9))
        assert [term for _, term, _ in read_all(log, 1, 60)] == [1] * 8 + [2] * 52


def test_nothing_is_read_across_a_hole(disk):
    """A follower's log goes on after the snapshot that it got."""
    with open_log(disk) as log:
        append(log, 1, 10, 1)
        append(log, 30, 40, 2)
        log.sync()
        assert [e[1] for e in log.read_entries(30, MOST, MOST)] == list(range(30, 41))
        with pytest.raises(CorruptionError, match="entries are gone"):
            log.read_entries(20, MOST, MOST)


def test_what_was_removed_is_not_there(disk):
    with open_log(disk) as log:
        append(log, 1, 500, 1)
        log.sync()
        assert log.remove_before(300) > 0
        first = log.first_index
        assert 1 < first <= 300
        assert log.read_entries(first - 1, MOST, MOST) is None
        assert read_all(log, first, 500) == [(i, 1, payload(i, 1)) for i in range(first, 501)]
        # The first of the removed segments has become a new one.
        append(log, 501, 900, 1)
        log.sync()
        assert read_all(log, first, 900)[-1][0] == 900


def test_so_many_bytes_of_segments_stay(disk):
    with open_log(disk) as log:
        append(log, 1, 900, 1)
        log.sync()
        assert log.first_of_tail(1 << 30) == 1
        before = log.stats()["segments"]
        log.remove_before(log.first_of_tail(5 * SEGMENT))
        assert 5 < log.stats()["segments"] <= 7 < before
        log.remove_before(log.first_of_tail(0))
        assert log.stats()["segments"] == 1


def test_it_works_after_a_restart(disk):
    with open_log(disk) as log:
        append(log, 1, 300, 1)
        append(log, 290, 310, 2)
        log.append(STICKY, 0, 0, b"newest")
    with open_log(disk) as log:
        assert log.newest(STICKY) == b"newest"
        assert [t for _, t, _ in read_all(log, 1, 310)] == [1] * 289 + [2] * 21
        append(log, 305, 400, 3)
        log.sync()
        assert [t for _, t, _ in read_all(log, 1, 400)] == [1] * 289 + [2] * 15 + [3] * 96
        assert log.newest(STICKY) == b"newest"
        assert log.newest(STICKY + 1) is None


def test_a_replay_leaves_out_old_segments(disk):
    with open_log(disk) as log:
        log.append(STICKY, 0, 0, b"first")
        append(log, 1, 300, 1)
        log.append(STICKY, 0, 0, b"second")
        append(log, 301, 600, 1)
    with open_log(disk) as log:
        everything = list(log.replay())
        part = list(log.replay(500))
        assert part == everything[-len(part) :]
        indexes = [index for kind, index, _, _ in part if kind == ENTRY]
        assert indexes[-1] == 600
        assert 400 < indexes[0] <= 500
        assert (STICKY, 0, 0, b"second") in part
        assert list(log.replay(10_000))


def test_a_flipped_bit_is_damage_and_never_another_entry(disk):
    with open_log(disk) as log:
        append(log, 1, 200, 1)
        log.sync()
        good = read_all(log, 1, 200)
        name = "/d/log/000002.wal"
        content = disk.read_file(name)
        inside = [index for index, _, _ in good if _offset(content, index)]
        assert len(inside) > 5
        rng = random.Random(1)
        for _ in range(300):
            place = rng.randrange(len(content))
            disk.write(name, place, bytes((content[place] ^ 1 << rng.randrange(8),)))
            try:
                found = read_all(log, 1, 200)
            except CorruptionError as error:
                assert error.path == name
            else:
                assert found == good
            disk.write(name, place, content[place : place + 1])
        # Zeros are the end of a fresh segment, and here they are damage.
        disk.write(name, 2048, bytes(1024))
        with pytest.raises(CorruptionError):
            read_all(log, 1, 200)


def _offset(content: bytes, index: int) -> bool:
    return payload(index, 1) in content


def test_damage_in_a_segment_with_replaced_entries_is_found_up_to_its_end(disk):
    with open_log(disk) as log:
        append(log, 1, 20, 1)
        append(log, 15, 30, 2)
        log.sync()
        name = "/d/log/000001.wal"
        end = disk.read_file(name).index(payload(30, 2))
        assert [e[2] for e in log.read_entries(15, 15, 0)] == [2]
        disk.write(name, end, b"?")
        # It might have been the record that replaces what was asked for.
        with pytest.raises(CorruptionError):
            log.read_entries(1, 1, 0)


def test_a_file_that_is_gone_is_an_error_of_the_disk(disk):
    with open_log(disk) as log:
        append(log, 1, 200, 1)
        log.sync()
        disk.remove_file("/d/log/000001.wal")
        with pytest.raises(StorageError):
            log.read_entries(1, MOST, MOST)


def test_what_makes_no_sense_is_refused(disk):
    log = open_log(disk)
    for first, last in ((0, 5), (5, 4)):
        with pytest.raises(InvalidArgumentError):
            log.read_entries(first, last, 1)
    assert log.read_entries(1, 1, 1) is None
    assert log.first_index == 0
    log.close()
    with pytest.raises(ClosedError):
        log.read_entries(1, 1, 1)


@pytest.mark.parametrize("seed", range(12))
def test_a_raft_log_is_read_as_a_model_says(disk, seed):
    """Appends, replaced ends, hard states, syncs, removals and restarts in any order."""
    rng = random.Random(seed)
    log = open_log(disk)
    entries: dict[int, tuple[int, bytes]] = {}
    committed = last = removed = 0
    term = 1
    for _ in range(300):
        action = rng.random()
        if action < 0.45:
            for _ in range(rng.choice((1, 5, 40))):
                last += 1
                entries[last] = (term, rng.randbytes(rng.choice((0, 10, 300))))
                log.append(ENTRY, last, *entries[last])
        elif action < 0.6 and last > committed:
            term += 1
            last = rng.randint(committed, last - 1)
            entries = {index: entry for index, entry in entries.items() if index <= last}
        elif action < 0.7:
            log.append(STICKY, 0, 0, rng.randbytes(rng.choice((5, 700))))
        elif action < 0.8:
            log.sync()
            committed = rng.randint(committed, last)
        elif action < 0.85:
            log.remove_before(rng.randint(removed, committed + 1))
            removed = max(removed, log.first_index)
        elif action < 0.88:
            log.close()
            log = open_log(disk)
        else:
            lowest = log.first_index or 1
            assert lowest <= committed + 1
            if lowest <= committed:
                first = rng.randint(lowest, committed)
                upto = rng.randint(first, committed)
                for index, its_term, data in read_all(log, first, upto, rng.choice((0, 100, 5000))):
                    assert entries[index] == (its_term, data)
    log.close()


def test_reading_beside_a_writer_and_removals(tmp_path):
    """Threads read while segments are written, removed and recycled: right, or not there."""
    log = Log(tmp_path / "log", segment_bytes=SEGMENT)
    durable = [0]
    ended = threading.Event()

    def read(seed: int) -> int:
        rng = random.Random(seed)
        reads = 0
        while not ended.is_set():
            if not durable[0]:
                continue
            first = rng.randint(max(1, durable[0] - 400), durable[0])
            for _, index, term, data in log.read_entries(first, durable[0], 3000) or ():
                assert data == payload(index, term)
                reads += 1
        return reads

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, seed) for seed in range(3)]
        try:
            write_and_remove(log, durable)
        finally:
            ended.set()
        assert sum(reader.result() for reader in readers) > 100
    log.close()


def write_and_remove(log: Log, durable: list[int]) -> None:
    for start in range(1, 2001, 40):
        append(log, start, start + 39, 1)
        log.sync()
        durable[0] = start + 39
        log.remove_before(start - 200 if start > 200 else 1)
