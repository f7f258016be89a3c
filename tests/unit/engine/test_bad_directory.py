"""What opening says of directories that can't be trusted: the error, its code, the file, the place.

And none of it is touched: once mended by hand, the database opens with everything in it.
"""

import errno
import os
import shutil
import subprocess
import sys

import pytest

import kvstore
from kvstore import AlreadyOpenError, CorruptionError, IntegrityCode, StorageError
from kvstore._engine.files import holder
from kvstore._engine.files.native import MemoryFileSystem


@pytest.fixture
def db_path(tmp_path):
    """A closed database of a few tables and a log."""
    path = tmp_path / "db"
    with kvstore.DB(path, write_buffer_size=1 << 16, background=False) as db:
        for number in range(2000):
            db.put(b"%06d" % number, b"%0100d" % number)
        db.flush()
        db.put(b"logged", b"")
    return path


def refusal(path, kind=CorruptionError, **options):
    with pytest.raises(kind) as caught:
        kvstore.DB(path, **options)
    assert type(caught.value) is kind
    assert str(caught.value.path) in str(caught.value)
    return caught.value


def contents(path):
    return {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def a_table(path):
    return sorted(path.glob("*.sst"))[0]


def manifest(path):
    return path / (path / "CURRENT").read_text().split()[0]


def test_a_missing_table_is_named(db_path):
    table = a_table(db_path)
    table.rename(db_path.parent / "kept")
    before = contents(db_path)
    error = refusal(db_path)
    assert (error.code, error.path) == (IntegrityCode.INVALID_RECORD, str(table))
    assert "manifest names a table that is missing" in str(error)
    assert contents(db_path) == before
    (db_path.parent / "kept").rename(table)
    with kvstore.DB(db_path) as db:
        assert len(list(db)) == 2001


@pytest.mark.parametrize("cut", [1, 48, 500, "all"])
def test_a_truncated_table_is_named_with_where_it_ends(db_path, cut):
    table = a_table(db_path)
    size = table.stat().st_size
    left = 0 if cut == "all" else size - cut
    os.truncate(table, left)
    error = refusal(db_path)
    assert (error.code, error.path, error.offset) == (
        IntegrityCode.TRUNCATED_RECORD,
        str(table),
        left,
    )
    assert f"{left} bytes, the manifest says {size}" in str(error)


def test_a_table_that_grew_is_named(db_path):
    table = a_table(db_path)
    size = table.stat().st_size
    with table.open("ab") as file:
        file.write(b"x")
    error = refusal(db_path)
    assert (error.code, error.path, error.offset) == (
        IntegrityCode.INVALID_RECORD,
        str(table),
        size,
    )


def test_a_damaged_block_is_named_when_it_is_read_and_by_verify_and_paranoid_checks(db_path):
    table = a_table(db_path)
    data = bytearray(table.read_bytes())
    data[1000] ^= 1
    table.write_bytes(data)
    with kvstore.DB(db_path) as db:
        for read in (db.verify, lambda: list(db), lambda: db.get(b"000000")):
            with pytest.raises(CorruptionError) as caught:
                read()
            error = caught.value
            assert (error.code, error.path) == (IntegrityCode.CHECKSUM_MISMATCH, str(table))
            assert error.offset is not None
            assert error.offset <= 1000
        # Other tables answer.
        assert db.get(b"logged") == b""
    assert refusal(db_path, paranoid_checks=True).path == str(table)


@pytest.mark.parametrize("name", ["IDENTITY", "CURRENT", "MANIFEST"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_small_file_is_named(db_path, name, damage):
    file = manifest(db_path) if name == "MANIFEST" else db_path / name
    data = file.read_bytes()
    if damage == "flip":
        file.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
    elif damage == "cut":
        file.write_bytes(data[:9])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    foreign = (name, damage) == ("IDENTITY", "gone")
    error = refusal(db_path, StorageError if foreign else CorruptionError)
    assert isinstance(error.code, IntegrityCode)
    assert error.code is not IntegrityCode.IO_ERROR
    assert error.path == str(db_path if foreign else file)
    file.write_bytes(data)
    with kvstore.DB(db_path) as db:
        assert len(list(db)) == 2001


def test_a_current_that_names_a_missing_manifest_is_refused(db_path):
    """Its checksum is right: it is of another moment, of a copy that went wrong."""
    older = (db_path / "CURRENT").read_bytes()
    with kvstore.DB(db_path) as db:
        db.put(b"more", b"")
        db.flush()  # the first change of the tables writes a new one
    assert (db_path / "CURRENT").read_bytes() != older
    (db_path / "CURRENT").write_bytes(older)
    error = refusal(db_path)
    assert (error.code, error.path) == (IntegrityCode.INVALID_RECORD, str(manifest(db_path)))


def test_a_newer_format_is_refused_by_its_number(db_path):
    from kvstore._engine.primitives.native import crc32c

    identity = db_path / "IDENTITY"
    body = identity.read_bytes().rpartition(b"crc ")[0].replace(b"format 2", b"format 3")
    identity.write_bytes(body + b"crc %08x\n" % crc32c(body))
    before = contents(db_path)
    error = refusal(db_path)
    assert (error.code, error.path) == (IntegrityCode.UNSUPPORTED_VERSION, str(identity))
    assert "format 3, this program reads format 2" in str(error)
    assert contents(db_path) == before


def test_format_1_is_refused_with_a_clear_word_and_left_alone(tmp_path):
    from kvstore._engine.primitives.native import crc32c

    body = b"kvstore engine\nformat 1\nid " + b"0" * 32 + b"\n"
    (tmp_path / "IDENTITY").write_bytes(body + b"crc %08x\n" % crc32c(body))
    before = contents(tmp_path)
    for call in (kvstore.DB, kvstore.repair_db, kvstore.destroy_db):
        with pytest.raises(
            CorruptionError, match="format 1, this program reads format 2"
        ) as caught:
            call(tmp_path)
        assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION
    assert contents(tmp_path) == before


def test_a_damaged_log_is_named_with_the_place(db_path):
    segment = sorted((db_path / "wal").iterdir())[0]
    data = bytearray(segment.read_bytes())
    place = data.rindex(b"logged")
    data[place] ^= 1
    segment.write_bytes(data)
    error = refusal(db_path)
    assert (error.code, error.path) == (IntegrityCode.CHECKSUM_MISMATCH, str(segment))
    assert error.offset is not None
    assert error.offset <= place


@pytest.mark.parametrize("name", ["notes.txt", "000001.sst", "CURRENT", "wal"])
def test_a_directory_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    for call in (kvstore.DB, kvstore.destroy_db):
        with pytest.raises(StorageError) as caught:
            call(tmp_path)
        assert caught.value.code is IntegrityCode.INVALID_MAGIC
        assert caught.value.path == str(tmp_path)
    assert contents(tmp_path) == before


def test_a_leveldb_database_is_left_alone(tmp_path):
    (tmp_path / "CURRENT").write_text("MANIFEST-000002\n")
    (tmp_path / "MANIFEST-000002").write_bytes(b"\x56\xf9\xb8\xf8\x1c\x00\x01")
    (tmp_path / "000003.log").write_bytes(b"")
    (tmp_path / "LOCK").write_bytes(b"")
    before = contents(tmp_path)
    error = refusal(tmp_path, StorageError)
    assert error.code is IntegrityCode.INVALID_MAGIC
    assert "holds no kvstore database; nothing was touched" in str(error)
    assert contents(tmp_path) == before


ROCKSDB = {
    "IDENTITY": b"7a2b1c9e-4f7d-4b8e-9f35-3f6f0f8d7e11",
    "CURRENT": b"MANIFEST-000005\n",
    "MANIFEST-000005": b"\x56\xf9\xb8\xf8\x1c\x00\x01" * 40,
    "000008.sst": b"another store's table" * 100,
    "000004.log": b"its log",
    "LOCK": b"",
    "OPTIONS-000007": b"options",
}


def another_store(path, leave_out=()):
    for name, data in ROCKSDB.items():
        if name not in leave_out:
            (path / name).write_bytes(data)


@pytest.mark.parametrize("call", [kvstore.repair_db, kvstore.destroy_db])
@pytest.mark.parametrize(
    "leave_out",
    [(), ("MANIFEST-000005",), ("000008.sst",), ("IDENTITY", "000004.log", "OPTIONS-000007")],
)
def test_repair_and_destroy_leave_another_store_with_names_like_ours_alone(
    tmp_path, call, leave_out
):
    another_store(tmp_path, leave_out)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match="nothing was touched") as caught:
        call(tmp_path)
    assert (caught.value.code, caught.value.path) == (IntegrityCode.INVALID_MAGIC, str(tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("call", ["repair_db", "destroy_db"])
def test_the_drop_in_leaves_another_store_alone_too(tmp_path, call):
    from kvstore.compat import plyvel

    another_store(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(plyvel.IOError):
        getattr(plyvel, call)(str(tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("foreign", ["000009.sst", "MANIFEST-000099", "wal/000099.wal"])
def test_one_foreign_file_among_ours_is_enough_to_leave_all_alone(db_path, foreign):
    (db_path / "IDENTITY").write_bytes(ROCKSDB["IDENTITY"])
    (db_path / foreign).write_bytes(b"something else")
    before = contents(db_path)
    for call in (kvstore.repair_db, kvstore.destroy_db):
        with pytest.raises(StorageError, match="nothing was touched"):
            call(db_path)
    assert contents(db_path) == before


@pytest.mark.parametrize("identity", [b"", bytes(100), b"damaged", None])
@pytest.mark.parametrize("damage", ["zero", "cut"])
def test_ours_without_its_identity_and_the_beginning_of_a_file_is_still_repaired(
    db_path, identity, damage
):
    if identity is None:
        (db_path / "IDENTITY").unlink()
    else:
        (db_path / "IDENTITY").write_bytes(identity)
    file = manifest(db_path)
    data = file.read_bytes()
    file.write_bytes(bytes(96) + data[96:] if damage == "zero" else data[:5])
    assert kvstore.repair_db(db_path)
    with kvstore.DB(db_path) as db:
        assert db.get(b"000000") is not None
    kvstore.destroy_db(db_path)
    assert not (db_path / "IDENTITY").exists()


def test_there_is_nothing_to_repair_in_an_empty_directory(tmp_path):
    for name in (None, "LOCK", "IDENTITY.new"):
        if name:
            (tmp_path / name).write_bytes(b"")
        before = contents(tmp_path)
        with pytest.raises(kvstore.InvalidArgumentError, match="there is no database in"):
            kvstore.repair_db(tmp_path)
        assert contents(tmp_path) == before


SPECIAL = ["IDENTITY", "CURRENT", "MANIFEST", "LOCK", "TABLE", "SEGMENT"]


@pytest.mark.parametrize("name", SPECIAL)
def test_a_fifo_in_the_place_of_a_file_is_refused_and_keeps_nobody_waiting(db_path, name):
    file = {
        "MANIFEST": manifest(db_path),
        "TABLE": a_table(db_path),
        "SEGMENT": sorted((db_path / "wal").glob("*.wal"))[0],
    }.get(name, db_path / name)
    file.unlink()
    os.mkfifo(file)
    # Somebody at its other end, so that a program that would wait fails this test instead.
    end = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    try:
        error = refusal(db_path, StorageError)
    finally:
        os.close(end)
    assert (error.path, error.errno) == (str(file), errno.ENXIO)
    assert "it is not a regular file" in str(error)


@pytest.mark.parametrize("options", [{}, {"read_only": True}])
def test_a_lock_that_is_a_link_is_not_followed(db_path, options):
    elsewhere = db_path.parent / "elsewhere"
    (db_path / "LOCK").unlink()
    (db_path / "LOCK").symlink_to(elsewhere)
    error = refusal(db_path, StorageError, **options)
    assert (error.path, error.errno) == (str(db_path / "LOCK"), errno.ELOOP)
    assert "the lock is a symbolic link" in str(error)
    for call in (kvstore.repair_db, kvstore.destroy_db):
        with pytest.raises(StorageError, match="the lock is a symbolic link"):
            call(db_path)
    assert not elsewhere.exists()
    elsewhere.write_text("mine")
    refusal(db_path, StorageError, **options)
    assert elsewhere.read_text() == "mine"


@pytest.mark.parametrize("log", ["there", "gone"])
def test_a_log_behind_a_link_is_destroyed_and_the_link_with_it(db_path, log):
    elsewhere = db_path.parent / "elsewhere"
    (db_path / "wal").rename(elsewhere)
    (db_path / "wal").symlink_to(elsewhere)
    with kvstore.DB(db_path) as db:
        assert db.get(b"logged") == b""
    if log == "gone":
        shutil.rmtree(elsewhere)
    kvstore.destroy_db(db_path)
    assert not os.path.lexists(db_path)
    assert log == "gone" or list(elsewhere.iterdir()) == []


def test_a_file_where_the_directory_should_be_is_refused(tmp_path):
    (tmp_path / "db").write_text("mine")
    error = refusal(tmp_path / "db", StorageError)
    assert (error.code, error.path) == (IntegrityCode.INVALID_MAGIC, str(tmp_path / "db"))
    assert (tmp_path / "db").read_text() == "mine"


def test_a_directory_whose_parent_is_missing_is_refused(tmp_path):
    error = refusal(tmp_path / "no" / "db", StorageError)
    assert (error.code, error.path) == (IntegrityCode.IO_ERROR, str(tmp_path / "no" / "db"))
    assert isinstance(error.errno, int)


def test_an_open_database_is_refused_with_its_path(db_path):
    with kvstore.DB(db_path):
        error = refusal(db_path, AlreadyOpenError)
        assert error.path == str(db_path / "LOCK")
        with pytest.raises(AlreadyOpenError):
            kvstore.repair_db(db_path)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_directory_that_may_not_be_written_is_refused(error):
    """As root a mode of a file stops nobody, so the disk refuses instead."""
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, background=False) as db:
        db.put(b"a", b"1")
    before = {name: disk.read_file(name) for name in disk.files()}
    disk.fail("open", error, path="LOCK", always=True)
    disk.fail("make_directory", error, always=True)
    for path, file in (("/db", "/db/LOCK"), ("/db/new", "/db/new")):
        with pytest.raises(StorageError) as caught:
            kvstore.DB(path, filesystem=disk)
        found = caught.value
        assert (found.code, found.path, found.errno) == (IntegrityCode.IO_ERROR, file, error)
        assert os.strerror(error) in str(found)
    disk.heal()
    assert {name: disk.read_file(name) for name in disk.files()} == before
    with kvstore.DB("/db", filesystem=disk) as db:
        assert db[b"a"] == b"1"


def test_a_full_copy_of_the_directory_is_a_database(db_path, tmp_path):
    shutil.copytree(db_path, tmp_path / "copy")
    with kvstore.DB(tmp_path / "copy") as db:
        assert len(list(db)) == 2001


def test_the_first_directory_above_that_is_missing_is_named(tmp_path):
    error = refusal(tmp_path / "no" / "such" / "place", StorageError)
    assert f"there is no {tmp_path / 'no'} in " in str(error)
    assert (error.code, error.errno) == (IntegrityCode.IO_ERROR, errno.ENOENT)
    with pytest.raises(StorageError, match="there is no /no "):
        kvstore.DB("/no/such/place", filesystem=MemoryFileSystem())


@pytest.mark.parametrize("name", ["KVSTORE", "LOGEND"])
def test_a_directory_of_a_kvd_is_said_to_be_one(tmp_path, name):
    (tmp_path / name).write_text("kvd 1\n")
    error = refusal(tmp_path, StorageError)
    assert error.code is IntegrityCode.INVALID_MAGIC
    assert "the directory is a kvd's, which alone opens it" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == [name]


HOLD = """
import sys, kvstore
with kvstore.open(sys.argv[1], read_only=sys.argv[2] == "reader") as db:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("who", ["writer", "reader"])
def test_the_process_that_has_it_open_is_named(db_path, who):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(db_path), who],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holding:
        assert holding.stdout.readline() == b"open\n"
        error = refusal(db_path, AlreadyOpenError)
        assert f"the database is open already, in process {holding.pid}; its lock" in str(error)
        holding.stdin.close()
    kvstore.DB(db_path).close()


def test_a_holder_that_the_system_does_not_name_is_another_process(tmp_path, monkeypatch):
    path = tmp_path / "LOCK"
    path.touch()
    assert holder.holder_of(str(path), str(tmp_path / "missing")) == 0
    for said in (b"", b"\xff", b"1: FLOCK\n", b"1: FLOCK  ADVISORY  WRITE x 00:00:0 0 EOF\n"):
        (tmp_path / "locks").write_bytes(said)
        monkeypatch.setattr(holder, "LOCKS", tmp_path / "locks")
        assert holder.holder_of(str(path)) == 0
    monkeypatch.setattr(holder, "LOCKS", tmp_path / "none")
    assert holder.holder_of(str(path)) == 0
