"""Which levels there are, and how much level 0 gathers before it is merged."""

from __future__ import annotations

import errno
import random
from typing import Any

from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem

BUFFER_BYTES = 64 << 10
SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": BUFFER_BYTES,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "compaction_trigger": 4,
    "bloom_filter_bits": 0,
}


def overwrite(db: DB, keys: int, puts: int, dice: random.Random) -> None:
    for _ in range(puts):
        db.put(b"%08d" % dice.randrange(keys), dice.randbytes(100))


def levels(db: DB) -> list[int]:
    return [level["bytes"] for level in db.stats()["levels"]]


def test_a_database_of_a_few_merges_of_level_0_has_one_level() -> None:
    dice = random.Random(1)
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        # 600 KiB: more than level 1 is to have, and a few times what level 0 brings down.
        overwrite(db, 5000, 40_000, dice)
        found = levels(db)
        assert found[1] > SMALL["level_size_base"]
        assert found[2:] == [0] * 5
        db.compact_range()
        assert sum(count > 0 for count in levels(db)) == 1


def test_what_is_much_larger_than_that_sinks_to_a_second_one() -> None:
    dice = random.Random(2)
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        overwrite(db, 40_000, 60_000, dice)
        found = levels(db)
        assert found[2] > 0
        assert found[1] <= 2 * SMALL["level_size_base"]


def test_the_options_still_say_how_large_level_1_is_where_they_say_more() -> None:
    dice = random.Random(3)
    options = SMALL | {"level_size_base": 64 << 20}
    with DB("/db", filesystem=MemoryFileSystem(), **options) as db:
        overwrite(db, 40_000, 60_000, dice)
        assert levels(db)[2:] == [0] * 5


def test_level_0_gathers_more_where_merging_it_would_drag_much_along() -> None:
    dice = random.Random(4)
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        overwrite(db, 7500, 20_000, dice)
        db.compact_range()
        most = 0
        compactions = db.stats()["compactions"]
        while db.stats()["compactions"] == compactions:
            overwrite(db, 7500, 1, dice)
            most = max(most, db.stats()["levels"][0]["tables"])
        assert most == 2 * SMALL["compaction_trigger"] - 1


def test_it_gathers_no_more_than_it_is_told_where_there_is_little_to_merge_with() -> None:
    dice = random.Random(5)
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        most = 0
        while db.stats()["compactions"] == 0:
            overwrite(db, 5000, 1, dice)
            most = max(most, db.stats()["levels"][0]["tables"])
        assert most == SMALL["compaction_trigger"] - 1


def test_never_so_many_that_writers_are_held_back_for_it() -> None:
    dice = random.Random(6)
    options = SMALL | {"slowdown_files": 5, "stop_files": 6}
    with DB("/db", filesystem=MemoryFileSystem(), **options) as db:
        most = 0
        for _ in range(400):
            overwrite(db, 5000, 100, dice)
            most = max(most, db.stats()["levels"][0]["tables"])
        assert most < 5


def test_tables_that_cannot_be_read_are_no_reason_to_gather_until_writers_are_held_back() -> None:
    dice = random.Random(7)
    disk = MemoryFileSystem()
    lazy = SMALL | {"compaction_trigger": 16, "slowdown_files": 64, "stop_files": 65}
    with DB("/db", filesystem=disk, **lazy) as db:
        overwrite(db, 5000, 10_000, dice)
        db.compact_range()
        lower = dict(db.live_tables())
        for part in (0, 0, 1, 1):
            for number in range(100):
                db.put(b"rotten%d-%04d" % (part, number), dice.randbytes(100))
            db.flush()
        # They overlap in pairs, so that none is only moved.
        rotten = sorted(dict(db.live_tables()).keys() - lower.keys())[::2]
    for number in rotten:
        disk.flip_bit(f"/db/{number:06d}.sst", 3000)
    options = SMALL | {"slowdown_files": 8, "stop_files": 12}
    with DB("/db", filesystem=disk, **options) as db:
        most = 0
        for _ in range(100):
            overwrite(db, 5000, 100, dice)
            most = max(most, db.stats()["levels"][0]["tables"])
        assert db.stats()["damaged_tables"] == rotten
        assert db.stats()["compactions"] > 0
        assert most < options["slowdown_files"]


def test_a_full_disk_amid_a_merge_of_the_only_level_leaves_all_as_it_was() -> None:
    dice = random.Random(8)
    disk = MemoryFileSystem()
    written: list[str] = []

    def run_out(operation: str, path: str) -> None:
        # A flush reads no table; a merge of so many writes several.
        if path.endswith(".sst"):
            if operation == "pread":
                written.append("")
            elif operation == "pwrite" and written:
                written.append(path)
                if len(written) > 20:
                    raise OSError(errno.ENOSPC, "no space", path)
        elif "MANIFEST" in path:
            written.clear()

    with DB("/db", filesystem=disk, **SMALL) as db:
        overwrite(db, 7500, 20_000, dice)
        wanted = dict(db)
        disk.on_operation = run_out
        for number in range(7500):
            wanted[b"%08d" % number] = dice.randbytes(100)
            db.put(b"%08d" % number, wanted[b"%08d" % number])
            if db.stats()["background_error"] is not None:
                break
        assert "space" in db.stats()["background_error"]
        assert db.stats()["failure"] is None
        tables = db.stats()["levels"][0]["tables"]
        assert tables >= SMALL["compaction_trigger"]
        disk.on_operation = None
        assert dict(db) == wanted
        db.sync()
        with DB("/db", filesystem=disk.crash(), **SMALL) as again:
            assert dict(again) == wanted
        db.resume()
        assert db.stats()["background_error"] is None
        assert db.stats()["levels"][0]["tables"] < tables
        assert dict(db) == wanted
        db.verify()
