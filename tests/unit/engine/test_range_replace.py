"""A range of keys that a damaged table lost, replaced by what another database holds of it."""

from __future__ import annotations

import contextlib
import errno
import random

import pytest

from kvstore._engine.database.native import RangeExport, RangeReplacement
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import (
    ClosedError,
    CorruptionError,
    InvalidArgumentError,
    StorageError,
)

KEYS = 1200
SMALL = {
    "background": False,
    "wal": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "level_size_multiplier": 2,
    "compaction_trigger": 2,
    "block_size": 256,
}


def opened(disk: MemoryFileSystem, **settings: object) -> DB:
    disk.make_directories("/db")
    return DB("/db", filesystem=disk, **{**SMALL, **settings})  # type: ignore[arg-type]


def key(number: int) -> bytes:
    return b"k%05d" % number


class Twins:
    """Two databases that were written alike, and whose tables came about at other moments."""

    def __init__(self, seed: int, writes: int = 3000, *, history: bool = True) -> None:
        self.rng = random.Random(seed)
        self.disks = MemoryFileSystem(), MemoryFileSystem()
        prefixes = None if history else ()
        self.hurt, self.whole = (opened(disk, history_prefixes=prefixes) for disk in self.disks)
        self.history = history
        self.keep_from = 0
        sequence = 0
        for number in range(writes):
            batch = self._batch(sequence + 1)
            sequence += 1
            for db in (self.hurt, self.whole):
                db.write(batch, sequence=sequence, applied_index=sequence)
                if self.rng.random() < 0.004:
                    db.flush()
            if history and number == writes // 3:
                self.keep_from = sequence - writes // 6
                for db in (self.hurt, self.whole):
                    db.retain_from(self.keep_from)
                    # What is gone already can't be kept.
                    self.keep_from = max(self.keep_from, db.retained_sequence or 0)
        if not history:
            self.keep_from = sequence
        self.keep_from = max(self.keep_from, 1)
        for db in (self.hurt, self.whole):
            db.flush()
        self.sequence = sequence

    def _batch(self, sequence: int) -> WriteBatch:
        batch = WriteBatch()
        at = self.rng.randrange(KEYS)
        drawn = self.rng.random()
        if drawn < 0.1:
            batch.delete(key(at), sequence=sequence)
        elif drawn < 0.13:
            batch.delete_range(key(at), key(at + self.rng.randrange(1, 60)), sequence=sequence)
        else:
            batch.put(key(at), self.rng.randbytes(self.rng.randrange(200)), sequence=sequence)
        return batch

    def moments(self) -> list[int | None]:
        if not self.history:
            return [None]
        steps = range(self.keep_from, self.sequence, max(1, (self.sequence - self.keep_from) // 12))
        return [*steps, None]

    def check_equal(self) -> None:
        self.hurt.verify()
        for moment in self.moments():
            for reverse in (False, True):
                told = [
                    list(db.iterator(sequence=moment, include_sequence=True, reverse=reverse))
                    for db in (self.hurt, self.whole)
                ]
                assert told[0] == told[1]

    def close(self) -> None:
        self.hurt.close()
        self.whole.close()


def fetched(
    twins: Twins, low: bytes, high: bytes, part_bytes: int = 2000
) -> tuple[RangeReplacement, list[tuple[bytes, bytes | None, bytes]]]:
    """A replacement that has all, and what it got."""
    export = twins.whole.export_range(sequence=twins.sequence, keep_from=twins.keep_from)
    assert export is not None
    replacement = twins.hurt.replace_range(low, high, keep_from=twins.keep_from)
    parts = []
    at: bytes | None = low
    while at is not None:
        part, after = export.part(at, high, part_bytes)
        replacement.add(at, after, part)
        parts.append((at, after, part))
        at = after
    export.close()
    return replacement, parts


def damaged_tables(disk: MemoryFileSystem) -> list[str]:
    return sorted(path for path in disk.files("/db") if path.endswith(".sst"))


def number_of(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".sst"))


def damage(twins: Twins, path: str) -> None:
    """In one of the ways of disks."""
    disk = twins.disks[0]
    content = disk.read_file(path)
    how = twins.rng.choice(["bit", "bit", "bit", "run", "cut", "gone"])
    if how == "bit":
        disk.flip_bit(path, twins.rng.randrange(len(content)), twins.rng.randrange(8))
    elif how == "run":
        at = twins.rng.randrange(len(content))
        disk.write_file(
            path, content[:at] + bytes(len(content[at : at + 5000])) + content[at + 5000 :]
        )
    elif how == "cut":
        disk.write_file(path, content[: twins.rng.randrange(len(content))])
    else:
        disk.remove_file(path)


def reopen(twins: Twins) -> None:
    """With nothing in memory of what was whole."""
    twins.hurt.close()
    prefixes = None if twins.history else ()
    twins.hurt = opened(twins.disks[0], history_prefixes=prefixes)


def repair(twins: Twins, number: int) -> bool:
    found = twins.hurt.damage_of_table(number)
    if found is None:
        return False
    low, high, lost, total = found
    assert low < high
    assert 0 <= lost <= total
    replacement, _ = fetched(twins, low, high)
    assert replacement.install()
    replacement.close()
    assert number not in dict(twins.hurt.live_tables())
    return True


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_each_damaged_table_is_replaced(seed: int, history: bool) -> None:
    twins = Twins(seed, history=history)
    try:
        repaired = 0
        for path in damaged_tables(twins.disks[0]):
            if not twins.disks[0].exists(path):
                continue  # an earlier repair made it anew
            damage(twins, path)
            repaired += repair(twins, number_of(path))
            twins.check_equal()
        assert repaired
        reopen(twins)
        twins.check_equal()
        twins.hurt.compact_range()
        twins.check_equal()
        for number in range(300):
            for db in (twins.hurt, twins.whole):
                db.put(key(number * 7 % KEYS), b"later %d" % number)
        twins.keep_from = twins.sequence = twins.hurt.last_sequence
        twins.history = False
        twins.check_equal()
    finally:
        twins.close()


@pytest.mark.parametrize("seed", range(30))
def test_a_single_bit_costs_few_bytes(seed: int) -> None:
    twins = Twins(seed, 1500)
    try:
        path = twins.rng.choice(damaged_tables(twins.disks[0]))
        content = twins.disks[0].read_file(path)
        # Among the data, which begins behind the header.
        twins.disks[0].flip_bit(path, 100 + twins.rng.randrange(len(content) // 2), 3)
        found = twins.hurt.damage_of_table(number_of(path))
        assert found is not None
        low, high, lost, total = found
        assert lost < total / 2
        replacement, parts = fetched(twins, low, high, 1 << 20)
        assert sum(len(part) for _, _, part in parts) < total / 2
        assert replacement.install()
        twins.check_equal()
    finally:
        twins.close()


@pytest.mark.parametrize("part", [0.002, 0.93])
def test_the_first_block_and_the_last_are_replaced_as_any_other(part: float) -> None:
    twins = Twins(2)
    try:
        repaired = 0
        for path in damaged_tables(twins.disks[0]):
            if not twins.disks[0].exists(path):
                continue
            twins.disks[0].flip_bit(path, int(len(twins.disks[0].read_file(path)) * part), 1)
            reopen(twins)
            repaired += repair(twins, number_of(path))
            twins.check_equal()
        assert repaired > 2
    finally:
        twins.close()


def test_what_can_be_read_is_all_that_the_table_covers() -> None:
    """The damage isn't among its entries then, or was never there."""
    twins = Twins(1)
    try:
        (number, *_) = (number for number, _ in twins.hurt.live_tables())
        found = twins.hurt.damage_of_table(number)
        assert found is not None
        assert found[2] > 0
        assert repair(twins, number)
        twins.check_equal()
        assert twins.hurt.damage_of_table(number) is None
    finally:
        twins.close()


def test_another_table_that_cannot_be_read_is_named() -> None:
    twins = Twins(3)
    try:
        tables = damaged_tables(twins.disks[0])
        for path in tables:
            twins.disks[0].flip_bit(path, len(twins.disks[0].read_file(path)) // 3, 1)
        reopen(twins)
        found = twins.hurt.damage_of_table(number_of(tables[-1]))
        assert found is not None
        before = twins.hurt.live_tables()
        # Wide enough that the others reach into it.
        replacement, _ = fetched(twins, key(100), key(900))
        with pytest.raises(CorruptionError) as met:
            replacement.install()
        assert met.value.path in tables
        assert twins.hurt.live_tables() == before
        replacement.close()
        assert {number_of(path) for path in damaged_tables(twins.disks[0])} == {
            n for n, _ in before
        }
    finally:
        twins.close()


def with_a_damaged_table(seed: int) -> tuple[Twins, int]:
    twins = Twins(seed, 900)
    disk = twins.disks[0]
    path = damaged_tables(disk)[0]
    disk.flip_bit(path, len(disk.read_file(path)) // 3, 1)
    return twins, number_of(path)


def after_a_crash(twins: Twins, rest: MemoryFileSystem) -> None:
    """The edit was durable or not; what was half done is gone."""
    twins.hurt = opened(rest, history_prefixes=None)
    twins.disks = rest, twins.disks[1]
    live = {number for number, _ in twins.hurt.live_tables()}
    assert {number_of(path) for path in damaged_tables(rest)} == live
    try:
        twins.hurt.verify()
    except CorruptionError as error:
        assert repair(twins, number_of(str(error.path)))
    twins.check_equal()
    twins.hurt.close()


@pytest.mark.parametrize("seed", range(3))
def test_power_lost_at_any_moment_leaves_the_old_tables_or_the_new(seed: int) -> None:
    twins, number = with_a_damaged_table(seed)
    twins.hurt.close()
    damaged, whole = twins.disks
    states = stop = 0
    ended = False
    while not ended:
        stop += 1
        disk = MemoryFileSystem()
        for path in damaged.files("/db"):
            disk.write_file(path, damaged.read_file(path))
        twins.hurt = opened(disk, history_prefixes=None)
        twins.disks = disk, whole
        disk.stop_at(disk.operations + stop)
        with contextlib.suppress(StorageError, OSError):
            repair(twins, number)
        ended = not disk.stopped
        for keep in ("none", "prefix", "random"):
            after_a_crash(twins, disk.crash(random.Random(stop), keep))  # type: ignore[arg-type]
            states += 1
    assert states > 30
    twins.whole.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("operation", ["open", "pwrite", "datasync", "sync_directory", "pread"])
def test_each_call_of_the_disk_may_fail(operation: str, code: int) -> None:
    """Nothing is half done by it, and what isn't done can be done by the next one."""
    twins, number = with_a_damaged_table(1)
    twins.hurt.close()
    damaged, whole = twins.disks
    at = calls = 0
    while at <= calls:
        at += 1
        disk = MemoryFileSystem()
        for path in damaged.files("/db"):
            disk.write_file(path, damaged.read_file(path))
        twins.hurt = opened(disk, history_prefixes=None)
        twins.disks = disk, whole
        before = disk.counts.get(operation, 0)
        disk.fail(operation, code, at=at)
        with contextlib.suppress(StorageError):
            repair(twins, number)
        calls = disk.counts.get(operation, 0) - before
        disk.heal()
        assert twins.hurt.get(key(1)) == twins.whole.get(key(1))
        reopen(twins)
        live = {number for number, _ in twins.hurt.live_tables()}
        assert {number_of(path) for path in damaged_tables(disk)} == live
        if number in live:
            assert repair(twins, number)
        twins.check_equal()
        twins.hurt.close()
    assert at > 1
    twins.whole.close()


def test_what_is_no_part_of_the_range_is_refused() -> None:
    twins = Twins(3, 900)
    try:
        low, high = key(100), key(400)
        replacement, parts = fetched(twins, low, high, 1 << 20)
        replacement.close()
        ((start, after, part),) = parts
        assert after is None
        for bad in (b"", part[:-1], part + b"x", part[:200], bytes(8) + part[8:]):
            again = twins.hurt.replace_range(low, high, keep_from=twins.keep_from)
            with pytest.raises(CorruptionError, match="a part of a range"):
                again.add(start, after, bad)
            again.close()
        narrow = twins.hurt.replace_range(key(150), high, keep_from=twins.keep_from)
        with pytest.raises(CorruptionError, match="outside"):
            narrow.add(key(150), None, part)
        with pytest.raises(InvalidArgumentError, match="doesn't begin"):
            narrow.add(key(160), None, part)
        with pytest.raises(CorruptionError, match="ends outside"):
            narrow.add(key(150), key(401), part)
        with pytest.raises(InvalidArgumentError, match="hasn't come"):
            narrow.install()
        narrow.close()
        with pytest.raises(InvalidArgumentError, match="over"):
            narrow.install()
        for empty in ((high, low), (low, low)):
            with pytest.raises(InvalidArgumentError):
                twins.hurt.replace_range(*empty, keep_from=0)
        twins.check_equal()
    finally:
        twins.close()


@pytest.mark.parametrize("seed", range(60))
def test_a_part_with_a_bit_turned_is_refused_or_still_within_its_bounds(seed: int) -> None:
    """Whoever carries parts has checksums; what decodes one trusts nothing all the same."""
    rng = random.Random(seed)
    twins = Twins(3, 300)
    try:
        replacement, parts = fetched(twins, key(100), key(400), 1 << 20)
        replacement.close()
        ((start, after, part),) = parts
        turned = bytearray(part)
        turned[rng.randrange(len(turned))] ^= 1 << rng.randrange(8)
        again = twins.hurt.replace_range(key(100), key(400), keep_from=twins.keep_from)
        with contextlib.suppress(CorruptionError):
            again.add(start, after, bytes(turned))
        again.close()
        twins.check_equal()
    finally:
        twins.close()


def test_it_waits_for_older_snapshots_and_for_memory() -> None:
    twins = Twins(4, 900, history=False)
    try:
        older = twins.hurt.snapshot()
        batch = WriteBatch()
        batch.put(key(1), b"newer", sequence=twins.sequence + 1)
        twins.sequence = twins.keep_from = twins.sequence + 1
        for db in (twins.hurt, twins.whole):
            db.write(batch, sequence=twins.sequence, applied_index=twins.sequence)
        twins.whole.flush()
        replacement, _ = fetched(twins, key(100), key(400))
        assert not replacement.install(), "memory holds some of it, maybe"
        twins.hurt.flush()
        assert not replacement.install(), "the snapshot would miss what is older"
        older.close()
        assert replacement.install()
        replacement.close()
        twins.check_equal()
    finally:
        twins.close()


def test_a_write_meanwhile_ends_it() -> None:
    twins = Twins(5, 300)
    try:
        replacement, _ = fetched(twins, key(100), key(400))
        twins.hurt.put(key(200), b"written")
        twins.hurt.flush()
        with pytest.raises(InvalidArgumentError, match="written since"):
            replacement.install()
        replacement.close()
        assert twins.hurt.get(key(200)) == b"written"
    finally:
        twins.close()


def test_a_full_disk_is_tried_again() -> None:
    twins, number = with_a_damaged_table(6)
    disk = twins.disks[0]
    try:
        found = twins.hurt.damage_of_table(number)
        assert found is not None
        replacement, _ = fetched(twins, found[0], found[1])
        before = twins.hurt.live_tables()
        files = damaged_tables(disk)
        disk.capacity_bytes = disk.used_bytes
        with pytest.raises(StorageError) as met:
            replacement.install()
        assert met.value.retryable
        assert twins.hurt.live_tables() == before
        assert damaged_tables(disk) == files
        disk.capacity_bytes = None
        assert replacement.install()
        twins.check_equal()
    finally:
        twins.close()


def test_what_is_gone_already_is_not_handed_on() -> None:
    twins = Twins(7, 600, history=False)
    try:
        assert twins.whole.export_range(sequence=twins.sequence + 1, keep_from=1) is None
        assert twins.whole.export_range(sequence=5, keep_from=5) is None
        export = twins.whole.export_range(sequence=twins.sequence, keep_from=twins.sequence)
        assert export is not None
        before = list(twins.hurt.iterator(include_sequence=True))
        for number in range(KEYS):
            twins.whole.put(key(number), b"newer")
        twins.whole.delete_range(key(0), key(KEYS // 2))
        twins.whole.flush()
        twins.whole.compact_range()
        part, after = export.part(key(0), key(KEYS), 1 << 20)
        assert after is None
        replacement = twins.hurt.replace_range(key(0), key(KEYS), keep_from=twins.keep_from)
        replacement.add(key(0), None, part)
        assert replacement.install()
        assert list(twins.hurt.iterator(include_sequence=True)) == before
        export.close()
        export.close()
        with pytest.raises(InvalidArgumentError, match="closed"):
            export.part(key(0), key(KEYS), 1 << 20)
    finally:
        twins.close()


def test_history_that_goes_meanwhile_ends_an_export() -> None:
    twins = Twins(8, 600)
    try:
        export = twins.whole.export_range(sequence=twins.sequence, keep_from=twins.keep_from)
        assert export is not None
        export.part(key(0), key(KEYS), 1 << 20)
        twins.whole.retain_from(twins.sequence)
        twins.whole.compact_range()
        with pytest.raises(StorageError, match="isn't kept any more"):
            export.part(key(0), key(KEYS), 1 << 20)
    finally:
        twins.close()


def test_memory_is_not_exported() -> None:
    with opened(MemoryFileSystem()) as db:
        db.put(b"k", b"v")
        export = db.export_range(sequence=1, keep_from=1)
        assert export is not None
        with pytest.raises(InvalidArgumentError, match="flush"):
            export.part(b"a", b"z", 100)
        db.flush()
        part, after = export.part(b"a", b"z", 100)
        assert part
        assert after is None


def test_the_versions_of_one_key_must_fit_into_a_part() -> None:
    with opened(MemoryFileSystem(), write_buffer_size=64 << 20) as db:
        db.retain_from(0)
        for _ in range(9):
            db.put(b"k", bytes(1 << 20))
        db.flush()
        export = db.export_range(sequence=9, keep_from=0)
        assert export is not None
        with pytest.raises(StorageError, match="more than a part"):
            export.part(b"a", b"z", 100)


def test_closing_the_database_ends_both() -> None:
    twins = Twins(9, 300)
    export = twins.whole.export_range(sequence=twins.sequence, keep_from=twins.keep_from)
    assert export is not None
    replacement, _ = fetched(twins, key(100), key(400))
    twins.close()
    with pytest.raises(ClosedError):
        export.part(key(0), key(KEYS), 100)
    with pytest.raises(ClosedError):
        replacement.install()
    export.close()
    replacement.close()


@pytest.mark.parametrize("made", [RangeExport, RangeReplacement])
def test_neither_is_made_by_hand(made: type) -> None:
    with pytest.raises(TypeError):
        made()
