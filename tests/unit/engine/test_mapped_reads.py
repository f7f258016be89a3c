"""Lookups in maps of tables: the same answers, and an error where the disk has none."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import CorruptionError, IntegrityCode, StorageError

COLD = object()
SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "block_size": 1024,
    "lru_cache_size": 0,
}


def maps_of(path: Path) -> int:
    """How many of the tables in a directory this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(str(path) in line and ".sst" in line for line in lines)


def fill(path: Path, count: int = 3000) -> dict[bytes, bytes]:
    rows = {b"%06d" % number: b"value %d" % number * 4 for number in range(count)}
    with DB(path, **SMALL) as db:
        for key, value in rows.items():
            db.put(key, value)
        db.compact_range()
    return rows


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_it_answers_as_a_dict_does(tmp_path: Path, compression: str | None) -> None:
    chance = random.Random(5)
    keys = [b"%04d" % number for number in range(1500)]
    model: dict[bytes, bytes] = {}
    settings = SMALL | {"compression": compression, "mmap_reads": True}
    for _ in range(2):
        with DB(tmp_path / "db", **settings) as db:
            for step in range(8000):
                key = chance.choice(keys)
                draw = chance.random()
                if draw < 0.5:
                    model[key] = key * chance.randint(1, 60)
                    db.put(key, model[key])
                elif draw < 0.6:
                    db.delete(key)
                    model.pop(key, None)
                elif draw < 0.603:
                    stop = b"%04d" % (int(key) + 20)
                    db.delete_range(key, stop)
                    model = {k: v for k, v in model.items() if not key <= k < stop}
                else:
                    assert db.get(key) == model.get(key)
                    assert (key in db) is (key in model)
                if step % 2000 == 0:
                    db.flush()
            assert db.multi_get(keys) == [model.get(key) for key in keys]
            assert dict(db) == model
            db.verify()


def test_tables_are_mapped_and_given_back(tmp_path: Path) -> None:
    rows = fill(tmp_path / "db")
    with DB(tmp_path / "db", **SMALL) as db:
        assert db.get(b"000100") == rows[b"000100"]
        assert maps_of(tmp_path) == 0
    with DB(tmp_path / "db", **SMALL, mmap_reads=True) as db:
        for key, value in rows.items():
            assert db.get(key) == value
        assert maps_of(tmp_path) == db.stats()["open_tables"] > 1
        assert db.stats()["mapped_tables"] == db.stats()["open_tables"]
        assert db.stats()["cache"]["index_used_bytes"] == 0
    assert maps_of(tmp_path) == 0


def test_it_can_be_only_read(tmp_path: Path) -> None:
    rows = fill(tmp_path / "db")
    with DB(tmp_path / "db", **SMALL, mmap_reads=True, read_only=True) as db:
        assert db.get(b"000100") == rows[b"000100"]
        assert maps_of(tmp_path) == 1


def test_a_disk_that_has_no_maps_is_read_by_calls() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL, mmap_reads=True) as db:
        db.put(b"a", b"1")
        db.flush()
        assert db.get(b"a") == b"1"
        assert db.stats()["mapped_tables"] == 0
        disk.fail("pread", errno.EIO, always=True)
        with pytest.raises(StorageError, match="read table"):
            db.get(b"a")
        disk.heal()


def test_what_nobody_has_read_is_cold(tmp_path: Path) -> None:
    rows = fill(tmp_path / "db")
    with DB(tmp_path / "db", **SMALL, mmap_reads=True) as db:
        assert db.get_cached(b"000100", cold=COLD) is COLD
        assert db.get(b"000100") == rows[b"000100"]
        assert db.get_cached(b"000100", cold=COLD) == rows[b"000100"]
        assert db.get_cached(b"000100x", cold=COLD) is None


def test_the_first_reading_of_each_block_checks_it(tmp_path: Path) -> None:
    rows = fill(tmp_path / "db", count=1000)
    table = min((tmp_path / "db").glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[5000] ^= 0x10
    table.write_bytes(content)
    with DB(tmp_path / "db", **SMALL, mmap_reads=True) as db:
        damaged = 0
        for _ in range(2):
            for key, value in rows.items():
                try:
                    assert db.get(key) == value
                except CorruptionError as error:
                    assert error.code is IntegrityCode.CHECKSUM_MISMATCH
                    assert error.path == str(table)
                    assert error.offset is not None
                    assert error.offset <= 5000
                    damaged += 1
        assert 0 < damaged < 100


def test_what_is_to_be_checked_is_read_by_calls(tmp_path: Path) -> None:
    rows = fill(tmp_path / "db", count=1000)
    key = b"000500"
    with DB(tmp_path / "db", **SMALL, mmap_reads=True) as db:
        assert all(db.get(each) == value for each, value in rows.items())
        (table,) = (
            path for path in (tmp_path / "db").glob("*.sst") if rows[key] in path.read_bytes()
        )
        with table.open("r+b") as file:
            file.seek(table.read_bytes().index(rows[key]))
            file.write(b"V")
        wrong = b"V" + rows[key][1:]
        assert db.get(key) == wrong  # read when it was sound
        batch = db.write_batch()
        batch.expect(key, wrong)
        batch.put(key, b"")
        with db.snapshot() as snapshot:
            for call in (
                lambda: db.get(key, verify_checksums=True),
                lambda: snapshot.get(key, verify_checksums=True),
                lambda: db.prefixed_db(b"000").get(b"500", verify_checksums=True),
                batch.write,
                lambda: list(db),
            ):
                with pytest.raises(CorruptionError):
                    call()


CUT_SCRIPT = """
    import faulthandler, os, signal, sys
    from pathlib import Path
    from kvstore.engine import DB
    from kvstore.errors import CorruptionError, IntegrityCode

    path, how = Path(sys.argv[1]), sys.argv[2]
    if how in ("before", "taken back"):
        faulthandler.enable()
    settings = {"background": False, "lru_cache_size": 0, "mmap_reads": True}
    db = DB(path, **settings)
    keys = [b"%06d" % number for number in range(30_000)]
    assert None not in [db.get(key) for key in keys]
    (table,) = path.glob("*.sst")
    assert str(table) in Path("/proc/self/maps").read_text()
    if how == "after":
        faulthandler.enable()
    if how == "taken back":
        faulthandler.disable()
    if how == "replaced":
        signal.signal(signal.SIGBUS, lambda *_: None)
    if how in ("taken back", "replaced"):
        # It is noticed within so many.
        assert None not in [db.get(key) for key in keys[:100]]
    os.truncate(table, 1 << 20)
    found = cut = 0
    for key in reversed(keys):
        try:
            assert db.get(key) is not None
            found += 1
        except CorruptionError as error:
            assert error.code is IntegrityCode.TRUNCATED_RECORD, error
            assert error.path == str(table)
            cut += 1
    assert found > 5000 and cut > 5000, (found, cut)
    try:
        db.multi_get(keys)
    except CorruptionError:
        print("told")
    assert db.get(keys[0]) is not None
    db.close()
"""


@pytest.mark.parametrize("how", ["alone", "before", "after", "taken back", "replaced"])
def test_a_page_that_cant_be_had_is_an_error(tmp_path: Path, how: str) -> None:
    """A file that was cut stands for a disk that fails: the kernel says both with SIGBUS."""
    with DB(tmp_path / "db", background=False) as db:
        for number in range(30_000):
            db.put(b"%06d" % number, b"v" * 60)
        db.compact_range()
    done = run(CUT_SCRIPT, tmp_path / "db", how)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
    assert ("Fatal Python error" in done.stderr) is (how == "after")


FOREIGN_SCRIPT = """
    import mmap, os, signal, sys
    from pathlib import Path
    from kvstore.engine import DB

    path, how = Path(sys.argv[1]), sys.argv[2]
    told = []
    if how == "sent":
        signal.signal(signal.SIGBUS, lambda *_: told.append(1))
    db = DB(path, mmap_reads=True, lru_cache_size=0)
    assert db.get(b"000100") is not None
    assert ".sst" in Path("/proc/self/maps").read_text()
    if how == "sent":
        os.kill(os.getpid(), signal.SIGBUS)
        assert told == [1]
        print("told")
        sys.exit()
    if how == "default":
        os.kill(os.getpid(), signal.SIGBUS)
    other = path / "other"
    other.write_bytes(bytes(8192))
    with other.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 8192)
        os.truncate(other, 0)
        mapped[5000]
"""


def test_what_is_not_ours_goes_to_whoever_was_there_before(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    done = run(FOREIGN_SCRIPT, tmp_path / "db", "sent")
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
    for how in ("default", "fault"):
        done = run(FOREIGN_SCRIPT, tmp_path / "db", how)
        assert done.returncode == -signal.SIGBUS, (how, done.stderr)


def test_where_another_handler_stands_tables_are_read_by_calls(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    done = run(
        """
        import signal, sys
        from pathlib import Path
        from kvstore.engine import DB

        settings = {"mmap_reads": True, "lru_cache_size": 0}
        with DB(sys.argv[1], **settings) as db:
            assert db.get(b"000100") is not None
            assert ".sst" in Path("/proc/self/maps").read_text()
        signal.signal(signal.SIGBUS, lambda *_: None)
        with DB(sys.argv[1], **settings) as db:
            assert db.get(b"000100") is not None
            assert ".sst" not in Path("/proc/self/maps").read_text()
        """,
        tmp_path / "db",
    )
    assert done.returncode == 0, done.stderr


def test_a_table_that_is_removed_is_read_as_long_as_a_reader_has_it(tmp_path: Path) -> None:
    rows = fill(tmp_path / "db")
    with DB(tmp_path / "db", **SMALL, mmap_reads=True) as db:
        assert db.get(b"000100") == rows[b"000100"]
        with db.iterator() as iterator:
            before = next(iterator)
            for key in rows:
                db.put(key, b"new")
            db.compact_range()
            assert before == (b"000000", rows[b"000000"])
            assert dict([before, *iterator]) == rows
        assert all(db.get(key) == b"new" for key in rows)
        assert 0 < maps_of(tmp_path) <= db.stats()["open_tables"]


def test_a_child_has_nothing_and_its_parent_goes_on(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    done = run(
        """
        import os, sys
        from kvstore.engine import DB
        from kvstore.errors import ClosedError

        db = DB(sys.argv[1], mmap_reads=True, lru_cache_size=0)
        assert db.get(b"000100") is not None
        child = os.fork()
        if child == 0:
            try:
                db.get(b"000100")
            except ClosedError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert db.get(b"000100") is not None
        db.close()
        """,
        tmp_path / "db",
    )
    assert done.returncode == 0, done.stderr


def test_threads_read_while_tables_come_and_go(tmp_path: Path) -> None:
    keys = [b"%04d" % number for number in range(800)]
    settings = SMALL | {"mmap_reads": True, "max_open_files": 16, "background": True}
    with DB(tmp_path / "db", **settings) as db:
        for key in keys:
            db.put(key, key * 20)
        db.flush()
        ended = threading.Event()
        wrong: list[bytes] = []

        def read(seed: int) -> None:
            chance = random.Random(seed)
            while not ended.is_set():
                asked = chance.sample(keys, 50)
                found = db.multi_get(asked)
                found += [db.get(key) for key in asked]
                for key, value in zip(asked * 2, found, strict=True):
                    if value is None or not value.startswith(key * 20):
                        wrong.append(key)

        readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
        for reader in readers:
            reader.start()
        for turn in range(6):
            for key in keys:
                db.put(key, key * (20 + turn))
            db.compact_range()
        ended.set()
        for reader in readers:
            reader.join()
        assert wrong == []
    assert maps_of(tmp_path) == 0


def test_no_descriptor_more_is_open(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    opened = {}
    for mapped in (False, True):
        with DB(tmp_path / "db", **SMALL, mmap_reads=mapped) as db:
            assert db.get(b"000100") is not None
            opened[mapped] = len(os.listdir("/proc/self/fd"))
    assert opened[True] == opened[False]
