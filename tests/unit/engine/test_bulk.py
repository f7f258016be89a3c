"""Columns of keys and values, in and out, agree with single calls."""

import random
import subprocess
import sys
import threading

import numpy
import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine.bulk import Runs


def opened(**options):
    options = {"background": False, "write_buffer_size": 1 << 18} | options
    return kvstore.DB("/db", filesystem=MemoryFileSystem(), **options)


@pytest.fixture
def db():
    with opened() as database:
        yield database


def runs(rows, dtype=numpy.int64):
    offsets = numpy.cumsum([0, *map(len, rows)]).astype(dtype)
    return numpy.frombuffer(b"".join(rows), numpy.uint8), offsets


def fixed(rows):
    return numpy.array([list(row) for row in rows], numpy.uint8).reshape(len(rows), -1)


def random_rows(count, most, seed, least=0):
    chance = random.Random(seed)
    return [chance.randbytes(chance.randint(least, most)) for _ in range(count)]


def joined(columns):
    """The rows of all steps of a scan."""
    return [
        pair for keys, values in columns for pair in zip(listed(keys), listed(values), strict=True)
    ]


def listed(column):
    return column.rows() if isinstance(column, Runs) else [row.tobytes() for row in column]


KEYS = [b"%05d" % number for number in (3, 1, 4, 15, 9, 2, 6)]
VALUES = [b"<%d>" % number for number in range(7)]

COLUMNS = {
    "2-D bytes": (fixed(KEYS), fixed(VALUES)),
    "S": (numpy.array(KEYS), numpy.array(VALUES)),
    "runs": (runs(KEYS), runs(VALUES)),
    "narrow runs": (runs(KEYS, numpy.int32), (b"".join(VALUES), runs(VALUES, numpy.int32)[1])),
    "memoryviews": (memoryview(fixed(KEYS)), memoryview(fixed(VALUES))),
}


@pytest.mark.parametrize(("keys", "values"), COLUMNS.values(), ids=list(COLUMNS))
def test_every_kind_of_column_is_written_and_asked_for(db, keys, values):
    assert db.put_many(keys, values) == 7
    assert list(db) == sorted(zip(KEYS, VALUES, strict=True))
    found, column = db.get_many(keys)
    assert found.dtype == bool
    assert found.all()
    assert column.rows() == VALUES
    assert [column.row(number) for number in range(7)] == VALUES
    found, array = db.get_many(keys, value_width=3)
    assert array.shape == (7, 3)
    assert listed(array) == VALUES


def test_big_endian_integers_are_keys_in_their_order(db):
    numbers = numpy.array([300, 2, 70000, 5], ">u8")
    db.put_many(numbers, numbers)
    ((keys, _),) = db.scan(key_width=8)
    assert keys.view(">u8").ravel().tolist() == [2, 5, 300, 70000]


def test_text_columns_end_before_their_zeros_and_2d_ones_do_not(db):
    db.put_many(numpy.array([b"a", b"abc"]), numpy.array([b"", b"xy"]))
    db.put_many(fixed([b"b\0\0"]), fixed([b"\0"]))
    assert list(db) == [(b"a", b""), (b"abc", b"xy"), (b"b\0\0", b"\0")]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wal", [True, False])
def test_bulk_calls_agree_with_a_dict(seed, wal):
    """Repeated, empty and missing keys; memtables and tables; batches of many sizes."""
    chance = random.Random(seed)
    expected = {}
    with opened(wal=wal, write_buffer_size=1 << 16) as db:
        for step in range(5):
            count = chance.choice([1, 100, 3000])
            keys = random_rows(count, chance.choice([2, 8]), f"{seed}{step}k")
            values = random_rows(count, 40, f"{seed}{step}v")
            db.put_many(runs(keys), runs(values))
            expected |= zip(keys, values, strict=True)
            for key in keys[::5]:
                db.delete(key)
                expected.pop(key, None)
            if chance.random() < 0.3:
                db.flush()
            if chance.random() < 0.2:
                db.compact_range()
            asked = [*keys, *random_rows(count, 3, f"{seed}{step}a"), *list(expected)[:500]]
            chance.shuffle(asked)
            found, column = db.get_many(runs(asked))
            assert found.tolist() == [key in expected for key in asked]
            assert column.rows() == [expected.get(key, b"") for key in asked]
            assert joined(db.scan(rows=chance.choice([1, 7, 5000, 1 << 16]))) == sorted(
                expected.items()
            )
    assert len(expected) > 100


def test_few_keys_among_many_and_many_among_few_are_found():
    """Both ways to look keys up, and going over from one to the other."""
    with opened(write_buffer_size=8 << 20) as db:
        numbers = numpy.arange(0, 60_000, 2, dtype=">u8")
        for where in ("memory", "tables", "both"):
            if where == "both":
                numbers = numpy.arange(1, 60_000, 2, dtype=">u8")
            db.put_many(numbers, numbers)
            if where == "tables":
                db.flush()
            every = numpy.arange(0, 60_000, dtype=">u8")
            # Dense at first, then sparse.
            some = numpy.concatenate([every[:5000], every[5000::37], every[-3:] + 100]).astype(
                ">u8"
            )
            for asked in (every, every[::-1].copy(), some, every[::500].copy(), every[:10]):
                found, values = db.get_many(asked, value_width=8)
                there = (asked < 60_000) & ((asked % 2 == 0) | (where == "both"))
                assert (found == there).all()
                assert (values.view(">u8").ravel() == numpy.where(there, asked, 0)).all()


def test_of_equal_keys_the_last_row_stands(db):
    count = 70_000
    keys = numpy.zeros((count, 4), numpy.uint8)
    keys[:, 3] = numpy.arange(count) % 5
    values = numpy.arange(count, dtype=">u4")
    db.put_many(keys, values)
    assert [int.from_bytes(value) for value in db.values()] == list(range(count - 5, count))


def test_rows_of_two_chunks_are_one_column():
    """A chunk is 2**19 rows; keys descend, so that the later one goes before the earlier."""
    count = (1 << 19) + 1000
    numbers = numpy.arange(count, 0, -1).astype(">u4")
    with opened(wal=False, write_buffer_size=256 << 20) as db:
        assert db.put_many(numbers, numbers) == count
        ((keys, values),) = db.scan(rows=count + 1, key_width=4, value_width=4)
        assert (keys == values).all()
        assert (keys.view(">u4").ravel() == numbers[::-1]).all()
        found, values = db.get_many(numbers, value_width=4)
        assert found.all()
        assert (values.view(">u4").ravel() == numbers).all()


def test_no_rows_are_no_trouble(db):
    assert db.put_many(numpy.empty((0, 5), numpy.uint8), numpy.empty((0, 9), numpy.uint8)) == 0
    assert db.put_many(runs([]), runs([])) == 0
    found, column = db.get_many(runs([]))
    assert (len(found), column.rows()) == (0, [])
    found, array = db.get_many(numpy.empty((0, 5), numpy.uint8), value_width=9)
    assert array.shape == (0, 9)
    assert list(db.scan()) == []
    db.put(b"", b"")
    ((keys, values),) = db.scan()
    assert keys.rows() == values.rows() == [b""]
    ((keys, values),) = db.scan(key_width=0, value_width=0)
    assert keys.shape == values.shape == (1, 0)


def test_missing_rows_are_zeros(db):
    db.put(b"b", b"12")
    found, array = db.get_many(fixed([b"a", b"b", b"c"]), value_width=2)
    assert found.tolist() == [False, True, False]
    assert listed(array) == [b"\0\0", b"12", b"\0\0"]


def test_scans_take_bounds_directions_and_parts(db):
    db.put_many(fixed(KEYS), fixed(VALUES))
    pairs = sorted(zip(KEYS, VALUES, strict=True))
    assert joined(db.scan(reverse=True, rows=2)) == pairs[::-1]
    assert joined(db.scan(start=b"00002", stop=b"00006", include_stop=True)) == pairs[1:5]
    ((keys, values),) = db.scan(prefix=b"0000", key_width=5, include_value=False)
    assert listed(keys) == [key for key, _ in pairs if key < b"0001"]
    assert values is None
    ((keys, values),) = db.scan(include_key=False)
    assert (keys, values.rows()) == (None, [value for _, value in pairs])
    assert [len(keys) for keys, _ in db.scan(rows=3, key_width=5)] == [3, 3, 1]


def test_reads_are_of_one_moment(db):
    db.put_many(fixed(KEYS), fixed(VALUES))
    with db.snapshot() as snapshot:
        scan = db.scan(rows=1)
        first = next(scan)
        db.put_many(fixed(KEYS), fixed([b"new"] * 7))
        db.delete(KEYS[0])
        db.flush()
        db.compact_range()
        assert joined([first, *scan]) == sorted(zip(KEYS, VALUES, strict=True))
        found, column = db.get_many(fixed(KEYS), sequence=snapshot.sequence)
        assert found.all()
        assert column.rows() == VALUES
    found, column = db.get_many(fixed(KEYS))
    assert (found.tolist(), column.rows()) == ([False] + [True] * 6, [b""] + [b"new"] * 6)


def test_views_have_them_too(db):
    view = db.prefixed_db(b"p").prefixed_db(b"q")
    db.put_many(fixed([b"p", b"q"]), fixed([b"1", b"2"]))
    view.put_many(fixed(KEYS), fixed(VALUES), sync=True)
    assert db.get(b"pq" + KEYS[0]) == VALUES[0]
    found, column = view.get_many(fixed([*KEYS, b"99999"]))
    assert (found.tolist(), column.rows()) == ([True] * 7 + [False], [*VALUES, b""])
    assert joined(view.scan(key_width=5)) == sorted(zip(KEYS, VALUES, strict=True))
    assert len(list(db)) == 9


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (numpy.zeros(4, numpy.uint8), "not 1-D of 'B'"),
        (numpy.zeros((2, 2, 2), numpy.uint8), "not 3-D of 'B'"),
        (numpy.zeros((2, 2), numpy.int32), "not 2-D of 'i'"),
        (numpy.array(["a", "b"]), "not 1-D of '1w'"),
        (numpy.array([b"a", None], object), "keys: an array of Python objects"),
        (numpy.zeros(2, [("a", "O"), ("b", "i4")]), "keys: an array of Python objects"),
        (numpy.zeros(2, [("a", "i4"), ("b", [("c", "O")])]), "keys: an array of Python objects"),
        (numpy.zeros((4, 4), numpy.uint8)[:, ::2], "keys can't be read as one run of bytes"),
        ([b"a"], "keys must be an array, not list"),
        (None, "keys must be an array, not NoneType"),
        ((b"", b"", b""), "keys must be an array or a pair"),
        ((b"ab", [0, 1]), "keys' offsets must be an array, not list"),
        ((b"ab", numpy.array([0.0, 1.0])), "keys' offsets must be a 1-D array of int64 or int32"),
        ((b"ab", numpy.array([[0, 1]])), "keys' offsets must be a 1-D array of int64 or int32"),
        ((b"ab", numpy.array([0, 1], ">i8")), "keys' offsets must be a 1-D array of int64"),
        ((b"ab", numpy.array([0, 1], "u8")), "keys' offsets must be a 1-D array of int64"),
        (("ab", numpy.array([0, 1])), "keys' data must be an array, not str"),
    ],
)
def test_what_is_no_column_is_refused(db, keys, match):
    for call in (lambda: db.put_many(keys, fixed([b"1"])), lambda: db.get_many(keys)):
        with pytest.raises(TypeError, match=match):
            call()


def test_fields_may_have_the_letter_of_an_object_in_their_names(db):
    keys = numpy.zeros(2, [("O", ">u4"), ("No", ">u4")])
    keys["O"] = [1, 2]
    db.put_many(keys, fixed([b"1", b"2"]))
    assert db.get(b"\0\0\0\2\0\0\0\0") == b"2"


@pytest.mark.parametrize(
    ("offsets", "match"),
    [
        ([0, 3, 2], "offsets 1 and 2 are 3 and 2: not ascending within the data's 4 bytes"),
        ([0, 1, 5], "offsets 1 and 2 are 1 and 5"),
        ([-1, 1, 2], "offsets 0 and 1 are -1 and 1"),
        ([0, 1 << 62, 1 << 63 - 1], "offsets 0 and 1"),
        ([], "one more than the rows"),
    ],
)
def test_offsets_that_say_nonsense_are_refused_before_anything_is_written(db, offsets, match):
    column = (b"abcd", numpy.array(offsets, numpy.int64))
    values = numpy.zeros((2, 1), numpy.uint8)
    for call in (
        lambda: db.put_many(column, values),
        lambda: db.put_many(values, column),
        lambda: db.get_many(column),
    ):
        with pytest.raises(kvstore.InvalidArgumentError, match=match):
            call()
    assert list(db) == []


def test_other_misfits_are_refused_by_name(db):
    with pytest.raises(kvstore.InvalidArgumentError, match="7 keys and 6 values"):
        db.put_many(fixed(KEYS), fixed(VALUES[:6]))
    long = numpy.zeros((1, (1 << 20) + 1), numpy.uint8)
    with pytest.raises(kvstore.InvalidArgumentError, match="row 0 of keys is over 1048576 bytes"):
        db.put_many(long, long)
    with pytest.raises(kvstore.InvalidArgumentError, match="row 0 of keys is over 1048576 bytes"):
        db.prefixed_db(b"p").put_many(long[:, 1:].copy(), long)
    with pytest.raises(kvstore.InvalidArgumentError, match="row 1 of keys is over"):
        db.put_many((long, numpy.array([0, 0, long.size])), fixed([b"a", b"b"]))
    assert list(db) == []
    db.put_many(fixed(KEYS), runs([*VALUES[:6], b"longer"]))
    with pytest.raises(kvstore.InvalidArgumentError, match="value of row 6 has 6 bytes"):
        db.get_many(fixed(KEYS), value_width=3)
    with pytest.raises(kvstore.InvalidArgumentError, match="the key of row 0 has 5 bytes"):
        list(db.scan(key_width=4))
    with pytest.raises(kvstore.InvalidArgumentError, match="the value of row 4 has 6 bytes"):
        list(db.scan(key_width=5, value_width=3))
    for wrong in (lambda: db.get_many(fixed(KEYS), value_width=-1), lambda: list(db.scan(rows=0))):
        with pytest.raises(kvstore.InvalidArgumentError, match="is outside"):
            wrong()
    with pytest.raises(TypeError, match="nothing"):
        db.scan(nothing=1)


def test_a_closed_database_refuses_them(db):
    db.put_many(fixed(KEYS), fixed(VALUES))
    scan = db.scan(rows=1)
    next(scan)
    db.close()
    for call in (
        lambda: db.put_many(fixed(KEYS), fixed(VALUES)),
        lambda: db.get_many(fixed(KEYS)),
        lambda: db.scan(),
        lambda: next(scan),
    ):
        with pytest.raises(kvstore.ClosedError):
            call()


def test_synced_rows_survive_a_crash():
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, background=False)
    db.put_many(fixed(KEYS), fixed(VALUES), sync=True)
    with kvstore.DB("/db", filesystem=disk.crash(), background=False) as again:
        assert list(again) == sorted(zip(KEYS, VALUES, strict=True))


def test_a_disk_that_is_full_between_batches_ends_the_call_alone():
    """The batch that is made meanwhile is let go of; what was written before stands."""
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, background=False, write_buffer_size=128 << 20)
    db.put(b"kept", b"1", sync=True)
    disk.capacity_bytes = disk.used_bytes
    keys = numpy.arange(40_000, dtype=">u8")
    with pytest.raises(kvstore.StorageError, match="No space left"):
        db.put_many(keys, numpy.zeros((40_000, 2000), numpy.uint8))
    assert db.last_sequence > 1
    written = db.last_sequence - 1
    disk.capacity_bytes = None
    db.put_many(keys[:1], keys[:1])
    with kvstore.DB("/db", filesystem=disk.crash(keep="all"), background=False) as again:
        assert again[b"kept"] == b"1"
        assert len(list(again)) == 1 + written
        assert again[keys[:1].tobytes()] == keys[:1].tobytes()


@pytest.mark.parametrize("rows", [1000, 1 << 18])
def test_closing_while_another_thread_scans_is_safe(tmp_path, rows):
    """In the midst of it: the scan ends or is told that the database is closed."""
    numbers = numpy.arange(200_000, dtype=">u8")
    for _ in range(3):
        db = kvstore.DB(tmp_path / "db")
        db.put_many(numbers, numbers)
        db.flush()
        began = threading.Event()
        outcomes = []

        def scan(db=db, began=began, outcomes=outcomes):
            seen = 0
            steps = db.scan(rows=rows, key_width=8, value_width=8)
            try:
                while True:
                    began.set()  # before the only step where there is one
                    keys, _ = next(steps)
                    seen += len(keys)
            except StopIteration:
                outcomes.append(seen)
            except kvstore.ClosedError:
                outcomes.append("closed")

        thread = threading.Thread(target=scan)
        thread.start()
        assert began.wait(30)
        db.close()
        thread.join()
        assert outcomes in ([200_000], ["closed"])


def test_without_numpy_writing_works_and_reading_says_what_to_install():
    program = """
import sys
sys.modules["numpy"] = None
import kvstore
from kvstore._engine.files.native import MemoryFileSystem
with kvstore.DB("/db", filesystem=MemoryFileSystem()) as db:
    pairs = memoryview(b"aabb").cast("B", (2, 2))
    assert db.put_many(pairs, pairs) == 2
    assert db[b"aa"] == b"aa"
    for call in (lambda: db.get_many(pairs), lambda: next(db.scan())):
        try:
            call()
        except ImportError as error:
            assert "kvstore-raft[numpy]" in str(error)
        else:
            raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_columns_are_read_and_written_while_tables_come_and_go(tmp_path):
    """Each read is of one moment, no older than the last write that had ended when it began."""
    keys = numpy.arange(20_000, dtype=">u8")
    ended = [0]
    wrong = []

    def round_of(number):
        return numpy.full((len(keys), 4), number, ">u8").view(numpy.uint8)

    def check(values, least, rows):
        seen = values.view(">u8")
        if not (len(seen) == rows and (seen == seen[:, :1]).all() and seen.min() >= least):
            wrong.append((len(seen), rows, seen.min(), least))

    with kvstore.DB(
        tmp_path / "db",
        write_buffer_size=1 << 16,
        max_file_size=1 << 20,
        level_size_base=1 << 23,
        max_open_files=16,
    ) as db:
        db.put_many(keys, round_of(0))

        def write():
            for number in range(1, 7):
                db.put_many(keys, round_of(number))
                ended[0] = number

        def get(step):
            while ended[0] < 6 and not wrong:
                least = ended[0]
                asked = keys[::step].copy()
                found, values = db.get_many(asked, value_width=32)
                check(values, least, found.sum())
                check(values, least, len(asked))

        def scan(rows):
            while ended[0] < 6 and not wrong:
                least = ended[0]
                steps = db.scan(rows=rows, include_key=False, value_width=32)
                check(numpy.concatenate([values for _, values in steps]), least, len(keys))

        threads = [
            threading.Thread(target=work, args=args)
            for work, *args in ((write,), (get, 1), (get, 7), (scan, 500), (scan, 1 << 16))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        db.verify()
