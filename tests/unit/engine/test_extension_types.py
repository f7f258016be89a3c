"""No type of the engine can be made, copied or pickled into a crash."""

import copy
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.files.native import FileSystem, MemoryFileSystem, PosixFileSystem
from kvstore._engine.log.native import Log
from tests.unit.engine import unmade_objects

SCRIPT = Path(__file__).with_name("unmade_objects.py")


@pytest.fixture
def db():
    with kvstore.DB("/db", filesystem=MemoryFileSystem()) as db:
        db.put(b"a", b"1")
        db.put(b"b", b"2")
        yield db


def test_objects_that_were_never_initialised_raise_and_kill_nobody():
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout == f"{len(unmade_objects.extension_types())} types\n", done.stderr


def test_the_walk_finds_the_types_that_users_hold():
    assert {cls.__name__ for cls in unmade_objects.extension_types().values()} >= {
        *("Database", "Iterator", "RawIterator", "Snapshot", "WriteBatch", "Log"),
        *("MemoryFileSystem", "PosixFileSystem", "Column", "CursorFace"),
    }


@pytest.mark.parametrize("make", ["copy", "deepcopy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_no_object_of_the_engine_is_copied(db, make):
    fork = {"copy": copy.copy, "deepcopy": copy.deepcopy}.get(
        make, lambda value: pickle.loads(pickle.dumps(value, make))
    )
    with db.snapshot() as snapshot, db.iterator() as iterator, db.raw_iterator() as raw:
        held = [db, snapshot, iterator, raw, db.write_batch(), PosixFileSystem()]
        held += [MemoryFileSystem(), Log("/log", filesystem=MemoryFileSystem())]
        for value in held:
            with pytest.raises(TypeError, match=r"can't be copied or pickled"):
                fork(value)


def test_a_snapshot_keeps_its_moment_whatever_is_tried_with_copies(db):
    snapshot = db.snapshot()
    with pytest.raises(TypeError):
        copy.copy(snapshot).close()
    db.put(b"a", b"later")
    db.flush()
    db.compact_range()
    assert snapshot.get(b"a") == b"1"
    snapshot.close()


def test_a_class_of_ones_own_may_say_how_it_is_pickled(tmp_path):
    with OpenAgain(tmp_path / "db") as db:
        made = db.__reduce_ex__(2)
    assert made == (OpenAgain, (str(tmp_path / "db"),))


class OpenAgain(kvstore.DB):
    def __reduce__(self):
        return OpenAgain, (self.name,)


def test_a_disk_is_one_of_those_that_have_functions():
    class Mine(FileSystem):
        def __init__(self):
            pass

    for kind in (FileSystem, Mine):
        with pytest.raises(TypeError, match="abstract"):
            kind()

    class Faulty(MemoryFileSystem):
        def __init__(self):
            super().__init__(capacity_bytes=8 << 20)

    with kvstore.DB("/db", filesystem=Faulty(), write_buffer_size=1 << 20) as db:
        db.put(b"k", b"v")


def test_a_database_shows_no_workings():
    shown = {name for name in dir(kvstore.DB) if not name.startswith("_")}
    assert not shown & {"step", "must_stop", "shut_quietly", "background_step", "new_iterator"}


@pytest.mark.parametrize("flushed", [False, True])
def test_asking_whether_a_key_is_there_copies_no_value(db, flushed):
    db.put(b"large", bytes(8 << 20))
    if flushed:
        db.flush()
    db.put(b"other", b"")  # begins a segment of the log, which takes this disk memory
    prefixed = db.prefixed_db(b"lar")
    with db.snapshot() as snapshot:
        tracemalloc.start()
        assert b"large" in db
        assert b"ge" in prefixed
        assert b"large" in snapshot
        assert b"larger" not in db
        assert b"larger" not in snapshot
        del db[b"large"]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 20
        assert b"large" in snapshot
        assert b"large" not in db
        with pytest.raises(KeyError):
            del db[b"large"]


def test_pairs_that_are_let_go_of_hash_as_their_own(db):
    """3.14 and later keep a tuple's hash in it, so one that was hashed can't be filled again."""
    assert [*map(hash, db)] == [hash((b"a", b"1")), hash((b"b", b"2"))]
    assert {(b"b", b"2")}.intersection(db) == {(b"b", b"2")}


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
number = interpreters.create()
program = '''
try:
    import kvstore._engine.primitives.native
except ImportError as error:
    print("refused")
else:
    print("imported")
'''
getattr(interpreters, "exec", None) and interpreters.exec(number, program) or (
    hasattr(interpreters, "exec") or interpreters.run_string(number, program)
)
"""


def test_a_subinterpreter_is_refused():
    program = "import kvstore._engine.primitives.native\n" + SUBINTERPRETER
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "refused\n", done.stderr
