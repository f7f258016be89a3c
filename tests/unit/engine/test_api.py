"""What goes beyond plyvel: bytes-like objects, mapping habits, complete views, clear refusals."""

import dataclasses

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine.options import Settings
from kvstore.version import version

FORMS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda data: memoryview(b"<" + data + b">")[1:-1],
    "memoryview of a bytearray": lambda data: memoryview(bytearray(data)),
}


@pytest.fixture
def db():
    with kvstore.DB("/db", filesystem=MemoryFileSystem(), background=False) as opened:
        yield opened


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_every_bytes_like_object_does_where_bytes_do(db, form):
    db.put(form(b"pka"), form(b"1"))
    db[form(b"pkb")] = form(b"2")
    assert db.get(form(b"pka")) == db[form(b"pka")] == b"1"
    assert form(b"pka") in db
    assert db.multi_get([form(b"pka"), form(b"pk")]) == [b"1", None]
    assert list(db.iterator(start=form(b"pkb"), stop=form(b"pkc"))) == [(b"pkb", b"2")]
    assert list(db.iterator(prefix=form(b"pka"), include_value=False)) == [b"pka"]
    it = db.iterator(include_value=False)
    it.seek(form(b"pkb"))
    assert next(it) == b"pkb"
    raw = db.raw_iterator()
    raw.seek(form(b"pkb"))
    assert raw.key() == b"pkb"

    view = db.prefixed_db(form(b"p")).prefixed_db(form(b"k"))
    assert (view.prefix, type(view.prefix)) == (b"pk", bytes)
    view.put(form(b"c"), form(b"3"))
    view[form(b"d")] = form(b"4")
    assert view.get(form(b"c")) == view[form(b"c")] == b"3"
    assert form(b"c") in view
    assert view.multi_get([form(b"a"), form(b"x")], b"") == [b"1", b""]
    assert list(view.iterator(start=form(b"d"), stop=form(b"e"))) == [(b"d", b"4")]
    it = view.iterator(include_value=False)
    it.seek(form(b"c"))
    assert next(it) == b"c"
    with view.write_batch() as batch:
        batch.put(form(b"e"), form(b"5"))
        batch.delete(form(b"d"))
    snapshot = view.snapshot()
    view.delete(form(b"e"))
    assert snapshot.get(form(b"e")) == snapshot[form(b"e")] == b"5"
    assert form(b"e") in snapshot
    assert snapshot.multi_get([form(b"d"), form(b"e")]) == [None, b"5"]
    assert [key for key, _ in snapshot.iterator(prefix=form(b"e"))] == [b"e"]
    del view[form(b"c")]
    assert view.delete_range(form(b"a"), form(b"b")) is None
    assert dict(db.items()) == {b"pkb": b"2"}
    db.flush()
    (size,) = db.approximate_sizes((form(b"a"), form(b"z")))
    assert size > 0
    assert 0 < view.approximate_size(form(b"a"), form(b"z")) <= size
    assert db.approximate_size(form(b"q"), form(b"z")) == 0
    tables = db.stats()["levels"][0]["tables"]
    assert tables > 0
    db.compact_range(start=form(b"q"), stop=form(b"z"))
    assert db.stats()["levels"][0]["tables"] == tables
    view.compact_range(start=form(b"a"), stop=form(b"z"))
    assert db.stats()["levels"][0]["tables"] == 0


@pytest.mark.parametrize("wrong", ["text", None, 5, [b"list"]])
def test_other_types_are_refused_by_name(db, wrong):
    view = db.prefixed_db(b"p")
    snapshot = view.snapshot()
    batch = db.write_batch()
    match = f"must be bytes-like, not {type(wrong).__name__}"
    for call in (
        lambda: db.get(wrong),
        lambda: db.put(wrong, b""),
        lambda: db.put(b"", wrong),
        lambda: db.delete(wrong),
        lambda: db[wrong],
        lambda: db.__setitem__(wrong, b""),
        lambda: db.__delitem__(wrong),
        lambda: db.multi_get([b"", wrong]),
        lambda: db.iterator().seek(wrong),
        lambda: db.raw_iterator().seek(wrong),
        lambda: db.prefixed_db(wrong),
        lambda: db.approximate_sizes((b"", wrong)),
        lambda: view.get(wrong),
        lambda: view.put(wrong, b""),
        lambda: view.put(b"", wrong),
        lambda: view.delete(wrong),
        lambda: view[wrong],
        lambda: view.multi_get([wrong]),
        lambda: view.prefixed_db(wrong),
        lambda: snapshot.get(wrong),
        lambda: snapshot.multi_get([wrong]),
        lambda: batch.put(wrong, b""),
        lambda: batch.delete(wrong),
    ):
        with pytest.raises(TypeError, match=match):
            call()
    assert list(db) == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        *((wrong, TypeError) for wrong in (b"a", b"ab", None, 1)),
        *((wrong, kvstore.InvalidArgumentError) for wrong in ((b"a",), (b"a", b"b", b"c"), [])),
    ],
)
def test_a_range_that_is_no_pair_is_refused(db, wrong, error):
    with pytest.raises(error, match=r"a range must be a pair \(start, stop\), not "):
        db.approximate_sizes((b"a", b"b"), wrong)


def test_scattered_memory_is_refused(db):
    with pytest.raises(TypeError, match="key must be one run of bytes"):
        db.put(memoryview(b"abcdef")[::2], b"")


def test_too_long_is_refused_before_anything_is_written(db):
    long = bytes((1 << 20) + 1)
    for call in (
        lambda: db.put(long, b""),
        lambda: db.write_batch().put(long, b""),
        lambda: db.prefixed_db(b"p").put(long[1:], b""),
        lambda: db.prefixed_db(b"p").write_batch().put(long[1:], b""),
    ):
        with pytest.raises(kvstore.InvalidArgumentError, match=r"a key of 1048577 bytes is over"):
            call()
    with pytest.raises(kvstore.InvalidArgumentError, match="the most that the log takes"):
        db.put(b"k", bytes(1 << 30))
    assert db.last_sequence == 0
    db.put(long[1:], b"")
    assert long[1:] in db


def test_bad_options_are_refused_by_name():
    for error, match, settings in (
        (TypeError, "no option 'write_bufer_size'", {"write_bufer_size": 1 << 20}),
        (TypeError, "write_buffer_size must be an int, not '4M'", {"write_buffer_size": "4M"}),
        (TypeError, "block_size must be an int, not True", {"block_size": True}),
        (TypeError, "wal must be a bool, not 1", {"wal": 1}),
        (TypeError, "compression must be a str", {"compression": 1}),
        (ValueError, r"block_size=1 is outside \[256, 4194304\]", {"block_size": 1}),
        (ValueError, "compression='brotli'; expected None, 'lz4'", {"compression": "brotli"}),
        (ValueError, "stop_files must be larger", {"slowdown_files": 20, "stop_files": 20}),
        (ValueError, "custom comparators are not offered", {"comparator": max}),
        (TypeError, "either options= or single", {"options": kvstore.Options(), "wal": False}),
        (TypeError, "options must be an Options, not a dict", {"options": {"wal": False}}),
        (TypeError, "options must be an Options, not a bool", {"options": False, "wal": False}),
    ):
        with pytest.raises(error, match=match):
            kvstore.DB("/db", filesystem=MemoryFileSystem(), **settings)


def test_a_path_that_is_none_is_refused():
    for error, name in ((TypeError, None), (TypeError, 5), (ValueError, ""), (ValueError, "a\0b")):
        with pytest.raises(error):
            kvstore.DB(name, filesystem=MemoryFileSystem())


def test_a_database_is_used_like_a_dict(db):
    db[b"a"] = b"1"
    db.update({b"b": b"2"})
    db.update([(b"c", b"3")], sync=True)
    assert db[b"a"] == b"1"
    assert b"b" in db
    assert b"x" not in db
    del db[b"b"]
    for missing in (lambda: db[b"b"], lambda: db.__delitem__(b"b")):
        with pytest.raises(KeyError):
            missing()
    assert list(db.keys()) == [b"a", b"c"]
    assert list(db.values()) == [b"1", b"3"]
    assert list(db.items()) == list(db) == [(b"a", b"1"), (b"c", b"3")]
    assert {**db} == dict(db) == {b"a": b"1", b"c": b"3"}
    snapshot = db.snapshot()
    db.delete_range(None, None)
    assert dict(snapshot) == dict(snapshot.items()) == {b"a": b"1", b"c": b"3"}
    assert list(snapshot.values()) == [b"1", b"3"]
    assert not list(db)
    # Counting them would mean reading them all.
    with pytest.raises(TypeError):
        len(db)


def test_an_update_that_fails_midway_writes_nothing(db):
    with pytest.raises(TypeError):
        db.update([(b"a", b"1"), (b"b", 2)])
    assert list(db) == []


def test_a_view_is_a_database_of_its_keys(db):
    for key in (b"o", b"p", b"pa", b"pb", b"pc", b"q"):
        db.put(key, key)
    view = db.prefixed_db(b"p")
    assert list(view.keys()) == [b"", b"a", b"b", b"c"]
    assert list(view.values()) == [b"p", b"pa", b"pb", b"pc"]
    assert dict(view) == dict(view.items()) == dict(zip(view.keys(), view.values(), strict=True))
    view.update({b"d": b"pd"})
    assert db[b"pd"] == b"pd"
    before = db.last_sequence
    with pytest.raises(KeyError, match="zz"):
        del view[b"zz"]
    assert db.last_sequence == before
    left = dict(view)
    for start, stop in ((b"b", b"d"), (None, b"b"), (None, None)):
        view.delete_range(start, stop)
        left = {
            key: left[key]
            for key in left
            if not ((start or b"") <= key and (stop is None or key < stop))
        }
        assert dict(view.items()) == left
    assert left == {}
    assert list(db.keys()) == [b"o", b"q"]
    assert (view.closed, "b'p'" in repr(view)) == (False, True)
    db.close()
    assert view.closed
    with pytest.raises(kvstore.ClosedError):
        view.get(b"a")


def test_a_view_of_the_last_prefix_ends_with_the_keys(db):
    db.put(b"\xff\xff", b"1")
    db.put(b"\xff\xff\xff", b"2")
    db.put(b"\xff", b"3")
    view = db.prefixed_db(b"\xff\xff")
    assert list(view) == [(b"", b"1"), (b"\xff", b"2")]
    view.compact_range()
    view.delete_range()
    assert list(db) == [(b"\xff", b"3")]


def test_what_the_package_offers_is_there():
    for name in kvstore.__all__:
        assert getattr(kvstore, name) is not None
    assert set(kvstore.__all__) <= set(dir(kvstore))
    assert kvstore.__version__ == version()
    with pytest.raises(AttributeError, match="nothing"):
        kvstore.nothing  # noqa: B018
    with kvstore.open("/db", filesystem=MemoryFileSystem()) as db:
        assert isinstance(db, kvstore.DB)
        assert issubclass(kvstore.IteratorInvalidError, kvstore.Error)


def test_the_types_of_keyword_options_are_those_of_options():
    fields = {field.name: field.type for field in dataclasses.fields(kvstore.Options)}
    settings = Settings.__annotations__
    assert {name: kind.__forward_arg__ for name, kind in settings.items()} == {
        name: kind if "None" in kind else f"{kind} | None" for name, kind in fields.items()
    }
