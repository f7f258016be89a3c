"""kvstore.compat.plyvel: what the recorded conversations (tests/unit/engine) can't hold."""

import errno
import importlib.util
import inspect
import os
import re
import warnings

import pytest

import kvstore
from kvstore.compat import plyvel

CLASSES = ("DB", "PrefixedDB", "WriteBatch", "Iterator", "RawIterator", "Snapshot")


@pytest.fixture
def db(tmp_path):
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as db:
        yield db


@pytest.fixture
def no_snappy(monkeypatch):
    whole = plyvel.engine.DB

    def without(name, **settings):
        if settings["compression"] == "snappy":
            raise kvstore.errors.ConfigurationError("compression 'snappy' needs libsnappy")
        return whole(name, **settings)

    monkeypatch.setattr(plyvel.engine, "DB", without)


# --- errors -----------------------------------------------------------------------------------


def test_the_errors_are_related_as_plyvels_are():
    assert plyvel.Error.__bases__ == (Exception,)
    assert plyvel.IOError.__bases__ == (plyvel.Error, OSError)
    assert plyvel.CorruptionError.__bases__ == (plyvel.Error,)
    assert plyvel.IteratorInvalidError.__bases__ == (plyvel.Error,)
    assert not issubclass(plyvel.Error, kvstore.Error)


def damaged(path):
    """A database with one bad byte in its only table."""
    with plyvel.DB(path, create_if_missing=True, compression=None) as db:
        for number in range(1000):
            db.put(b"%04d" % number, bytes(100))
        db.compact_range()
    (table,) = (name for name in os.listdir(path) if name.endswith(".sst"))
    with open(os.path.join(path, table), "r+b") as file:
        file.seek(50_000)
        byte = file.read(1)[0]
        file.seek(50_000)
        file.write(bytes([byte ^ 1]))


def test_damage_is_a_corruption_error_and_no_io_error_whoever_meets_it(tmp_path):
    path = str(tmp_path / "db")
    damaged(path)
    with plyvel.DB(path) as db:
        raw = db.raw_iterator()
        meetings = [
            lambda: list(db),
            lambda: list(db.iterator(reverse=True)),
            lambda: list(db.snapshot()),
            lambda: [db.get(b"%04d" % number) for number in range(1000)],
            lambda: [db.snapshot().get(b"%04d" % number) for number in range(1000)],
            lambda: [raw.seek(b"%04d" % number) for number in range(1000)],
            lambda: list(db.prefixed_db(b"0")),
        ]
        for meet in meetings:
            with pytest.raises(plyvel.CorruptionError, match="CHECKSUM_MISMATCH") as caught:
                meet()
            assert not isinstance(caught.value, OSError | kvstore.Error)
            assert isinstance(caught.value.__cause__, kvstore.CorruptionError)
    with pytest.raises(plyvel.CorruptionError):
        plyvel.DB(path, paranoid_checks=True)
    assert plyvel.repair_db(path) is None
    with plyvel.DB(path) as db:
        db.put(b"on", b"")


def test_a_closed_database_is_a_runtime_error_and_no_error_of_plyvel(db):
    it = db.iterator()
    db.close()
    for use in (lambda: db.get(b"k"), lambda: next(it), it.prev, it.seek_to_start):
        with pytest.raises(RuntimeError) as caught:
            use()
        assert not isinstance(caught.value, plyvel.Error)


def test_a_database_that_is_open_is_an_io_error(db):
    for use in (plyvel.DB, plyvel.destroy_db, plyvel.repair_db):
        with pytest.raises(plyvel.IOError, match="open already"):
            use(db.name)


def test_an_io_error_has_the_systems_number(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(plyvel.IOError) as caught:
        plyvel.DB(str(tmp_path / "file" / "db"), create_if_missing=True)
    assert caught.value.errno == errno.ENOTDIR
    assert str(tmp_path / "file" / "db") in str(caught.value)


def test_a_directory_that_cannot_be_written_is_an_io_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(plyvel.IOError, match="permission denied"):
        plyvel.DB(str(tmp_path))
    with pytest.raises(plyvel.Error) as caught:
        plyvel.DB(str(tmp_path / "absent"))
    assert not isinstance(caught.value, OSError)


def test_what_is_too_large_is_an_error_and_no_value_error(db):
    batch = db.write_batch()
    for put in (db.put, db.prefixed_db(b"p").put, batch.put):
        with pytest.raises(plyvel.Error, match="a key of") as caught:
            put(bytes(2 << 20), b"")
        assert not isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (kvstore.errors.OutOfMemoryError("none left"), MemoryError),
        (kvstore.errors.InternalError("a defect"), plyvel.Error),
        (kvstore.errors.StorageError("gone", errno=errno.ENOENT), plyvel.Error),
        (kvstore.errors.StorageError("full", errno=errno.ENOSPC), plyvel.IOError),
    ],
)
def test_each_error_has_its_counterpart(ours, theirs):
    with pytest.raises(theirs, match=re.escape(str(ours))) as caught:
        plyvel._fail(ours)
    assert type(caught.value) is theirs


# --- options ----------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The options that kvstore.DB was given, instead of opening anything."""
    seen = {}

    def keep(name, **settings):
        seen.update(settings)
        return kvstore.Options(**settings)

    monkeypatch.setattr(plyvel.engine, "DB", keep)
    return seen


def test_the_defaults_are_plyvels(opened):
    plyvel.DB("somewhere")
    assert opened == {
        "create_if_missing": False,
        "error_if_exists": False,
        "paranoid_checks": False,
        "compression": "snappy",
        "bloom_filter_bits": 0,
        "write_buffer_size": 4 << 20,
        "max_write_buffers": 2,
        "lru_cache_size": 8 << 20,
        "max_file_size": 2 << 20,
    }


def test_options_are_passed_on_and_kept_within_bounds(opened):
    plyvel.DB("somewhere", block_size=8192, max_open_files=5, lru_cache_size=0, paranoid_checks=1)
    assert opened["block_size"] == 8192
    assert opened["max_open_files"] == 74
    assert opened["lru_cache_size"] == 0
    assert opened["paranoid_checks"] is True
    for least in ({"block_size": 1, "write_buffer_size": 1}, {"max_file_size": 1 << 50}):
        plyvel.DB("somewhere", **least)  # Options refuses what is out of bounds


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"compression": "lzw"}, ValueError),
        ({"compression": 3}, TypeError),
        ({"write_buffer_size": "large"}, TypeError),
        ({"bloom_filter_bits": None}, TypeError),
        ({"block_sise": 4096}, TypeError),
        ({"comparator_name": b"order"}, ValueError),
        ({"comparator": min, "comparator_name": "order"}, TypeError),
        ({"comparator": min, "comparator_name": b"order"}, plyvel.Error),
    ],
)
def test_options_that_are_none_are_refused_before_anything_is_done(tmp_path, given, error):
    path = str(tmp_path / "db")
    with pytest.raises(error):
        plyvel.DB(path, create_if_missing=True, **given)
    with pytest.raises(error):
        plyvel.repair_db(path, **given)
    assert not os.path.exists(path)


# --- snappy -----------------------------------------------------------------------------------


def test_blocks_are_compressed_with_snappy_unless_told(tmp_path):
    sizes = {}
    for name, given in {"default": {}, "asked": {"compression": "snappy"}, "none": None}.items():
        path = str(tmp_path / name)
        settings = {"compression": None} if given is None else given
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            db = plyvel.DB(path, create_if_missing=True, **settings)
        with db:
            db.put(b"k", bytes(100_000))
            db.compact_range()
            assert db.get(b"k") == bytes(100_000)
        sizes[name] = sum(
            os.path.getsize(os.path.join(path, file))
            for file in os.listdir(path)
            if file.endswith(".sst")
        )
    assert sizes["default"] == sizes["asked"] < 20_000 < sizes["none"]


def test_without_the_codec_blocks_are_stored_as_leveldb_does_then(tmp_path, no_snappy):
    path = str(tmp_path / "db")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plyvel.DB(path, create_if_missing=True).close()
    with pytest.warns(RuntimeWarning, match=r"kvstore-raft\[snappy\]") as caught:
        db = plyvel.DB(path, compression="snappy")
    assert caught[0].filename == __file__
    with db:
        db.put(b"k", b"v")
        db.compact_range()
        assert db.get(b"k") == b"v"


# --- names and places -------------------------------------------------------------------------


@pytest.mark.skipif(not importlib.util.find_spec("plyvel"), reason="plyvel is not installed")
def test_every_name_of_plyvel_is_there():
    import plyvel as theirs
    from plyvel import _plyvel

    assert {name for name in dir(theirs) if not name.startswith("_")} <= set(dir(plyvel))
    assert plyvel.__version__ == theirs.__version__
    assert plyvel.__leveldb_version__ == theirs.__leveldb_version__
    for name in CLASSES:
        members = {member for member in dir(getattr(_plyvel, name)) if "cython" not in member}
        assert members - {"__pyx_vtable__", "__setstate__"} <= set(dir(getattr(plyvel, name))), name


def test_iterators_and_databases_may_be_referred_to_weakly(db):
    import weakref

    for value in (db, db.iterator(), db.raw_iterator(), db.snapshot()):
        assert weakref.ref(value)() is value


def test_a_name_may_be_bytes_or_text_and_is_kept(tmp_path):
    path = os.fsencode(tmp_path / "dätenbank")
    with plyvel.DB(path, create_if_missing=True) as db:
        assert db.name == path
        assert repr(db).startswith(f"<kvstore.compat.plyvel.DB with name {path!r} at 0x")
    assert " (closed) at 0x" in repr(db)
    with pytest.raises(TypeError):
        plyvel.DB(tmp_path)


def test_destroying_leaves_what_is_no_database(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("")
    plyvel.destroy_db(str(mine))
    plyvel.destroy_db(str(mine / "precious"))
    assert (mine / "precious").exists()
    plyvel.destroy_db(str(tmp_path / "nothing"))


def test_a_database_of_leveldb_is_refused_and_not_touched(tmp_path):
    theirs = tmp_path / "leveldb"
    theirs.mkdir()
    for name in ("CURRENT", "LOCK", "LOG", "MANIFEST-000002", "000003.log"):
        (theirs / name).write_text(name)
    for use in (plyvel.DB, plyvel.destroy_db, plyvel.repair_db):
        with pytest.raises(plyvel.IOError, match="nothing was touched"):
            use(str(theirs))
    assert {file.name: file.read_text() for file in theirs.iterdir()} == {
        name: name for name in ("CURRENT", "LOCK", "LOG", "MANIFEST-000002", "000003.log")
    }


def test_a_context_ends_what_it_is_of(db):
    db.put(b"k", b"v")
    with db.snapshot() as snapshot, snapshot.iterator() as it, db.raw_iterator() as raw:
        assert next(it) == (b"k", b"v")
        raw.seek_to_last()
        assert (raw.valid(), raw.key(), raw.value()) == (True, b"k", b"v")
        raw.next()
        with pytest.raises(plyvel.IteratorInvalidError):
            raw.prev()
    for use in (lambda: snapshot.get(b"k"), lambda: next(it), raw.valid, raw.seek_to_first):
        with pytest.raises(RuntimeError):
            use()


def test_signatures_are_said(db):
    """Every method has the parameters that plyvel documents, by name."""
    for owner, name, wanted in [
        (plyvel.DB, "get", "key default verify_checksums fill_cache"),
        (plyvel.DB, "put", "key value sync"),
        (plyvel.DB, "write_batch", "transaction sync"),
        (plyvel.PrefixedDB, "delete", "key sync"),
        (plyvel.Snapshot, "raw_iterator", "verify_checksums fill_cache"),
        (plyvel.DB, "compact_range", "start stop"),
    ]:
        assert [*inspect.signature(getattr(owner, name)).parameters][1:] == wanted.split()
    assert set(plyvel.Bounds.__annotations__) == set(
        inspect.signature(kvstore.DB.iterator).parameters
    ) - {"self", "sequence", "include_sequence", "limit", "interrupt"}
    with pytest.raises(TypeError):
        db.iterator(forward=True)
