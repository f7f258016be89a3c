"""Closing, forking and the end of the interpreter, with iterators open and threads at work."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import kvstore
from kvstore._engine.log.native import Log

SMALL = {"write_buffer_size": 1 << 16, "max_file_size": 1 << 16, "level_size_base": 1 << 18}


# From 3.12 on a fork beside threads warns; that it does no harm is what these tests show.
WARNINGS = ["-W", "error::ResourceWarning", "-W", "ignore:This process:DeprecationWarning"]


def run(program, path, expected=0):
    """Run a program of its own; `PATH` in it is the database's."""
    done = subprocess.run(
        [sys.executable, *WARNINGS, "-c", program.replace("PATH", repr(path))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (expected, "")
    return done.stdout


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


def test_closing_closes_what_is_open_on_it(path):
    db = kvstore.DB(path)
    db.put(b"a", b"1")
    db.put(b"b", b"2")
    iterator, raw, snapshot = db.iterator(), db.raw_iterator(), db.snapshot()
    of_snapshot = snapshot.iterator()
    next(iterator)
    raw.seek_to_first()
    db.close()
    for call in (
        lambda: next(iterator),
        iterator.prev,
        iterator.seek_to_start,
        raw.key,
        raw.valid,
        lambda: next(of_snapshot),
        lambda: snapshot.get(b"a"),
        snapshot.iterator,
        lambda: db.get(b"a"),
        lambda: db.sync(),
        lambda: db.flush(),
        lambda: db.verify(),
        lambda: db.stats(),
        lambda: db.checkpoint(path + "-copy"),
        lambda: db.delete_range(b"a", b"b"),
        lambda: db.retain_from(1),
        lambda: db.last_sequence,
        lambda: db.flushed_index,
        lambda: db.retained_sequence,
        lambda: db.write_delay,
        db.__enter__,
    ):
        with pytest.raises(kvstore.ClosedError):
            call()
    for each in (iterator, raw, of_snapshot, snapshot, db):
        each.close()
    assert db.closed


def test_a_database_that_is_let_go_of_is_closed(path):
    db = kvstore.DB(path)
    db.put(b"a", b"1")
    iterator = db.iterator()
    del db
    # The iterator still holds it.
    assert next(iterator) == (b"a", b"1")
    del iterator
    with opened_soon(path) as db:
        assert db[b"a"] == b"1"


def opened_soon(path):
    """What is done in the background may hold the one before for a moment longer."""
    until = time.monotonic() + 60
    while True:
        try:
            return kvstore.DB(path)
        except kvstore.AlreadyOpenError:
            if time.monotonic() > until:
                raise


def test_threads_are_told_when_it_is_closed_under_them(path):
    """Each call works or raises ClosedError, and each write that returned is there."""
    db = kvstore.DB(path, **SMALL)
    warm = threading.Barrier(7)
    written = [0] * 4
    failures = []

    def work(number):
        for count in range(1, 1 << 30):
            try:
                if number < 2:
                    db.put(b"%d:%08d" % (number, count), bytes(200), sync=number == 0)
                    written[number] = count
                elif number < 4:
                    db.update({b"%d:%08d" % (number, count): b""})
                    written[number] = count
                elif number < 5:
                    db.get(b"0:%08d" % count)
                else:
                    for _ in db.iterator(include_value=False):
                        pass
            except kvstore.ClosedError:
                return
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
                return
            finally:
                if count == 50:
                    warm.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    warm.wait()
    db.close()
    for thread in threads:
        thread.join()
    assert failures == []
    with kvstore.DB(path) as db:
        for number in range(4):
            assert written[number] >= 50
            assert b"%d:%08d" % (number, written[number]) in db


def test_closing_waits_for_no_timeout(path):
    """Background threads that are idle are woken at once; each would sleep half a second."""
    program = """
import time
import kvstore
began = time.monotonic()
for _ in range(20):
    kvstore.DB(PATH, compaction_threads=4).close()
print(time.monotonic() - began < 5)
"""
    assert run(program, path) == "True\n"


FORK = """
import os
import kvstore
db = kvstore.DB(PATH, write_buffer_size=1 << 16)
for number in range(3000):
    db.put(b"%06d" % number, bytes(100))
iterator, raw, snapshot, batch = db.iterator(), db.raw_iterator(), db.snapshot(), db.write_batch()
next(iterator)
raw.seek_to_first()
view = db.prefixed_db(b"0")
child = os.fork()
if child == 0:
    refused = []
    for call in (
        lambda: db.get(b"000001"),
        lambda: db.put(b"a", b""),
        lambda: db.multi_get([b"a"]),
        lambda: next(iterator),
        lambda: raw.key(),
        lambda: snapshot.get(b"000001"),
        lambda: view.get(b"000001"),
        lambda: batch.put(b"a", b""),
        lambda: db.flush(),
        lambda: db.iterator(),
    ):
        try:
            call()
        except kvstore.ClosedError as error:
            refused.append(str(error))
    assert len(refused) == 10, refused
    assert "before this process forked" in refused[0], refused[0]
    try:
        kvstore.DB(PATH)
    except kvstore.AlreadyOpenError:
        pass
    else:
        raise AssertionError("opened twice")
    with kvstore.DB(PATH + "-other") as other:
        other.put(b"a", b"")
    iterator.close()
    snapshot.close()
    db.close()
    del iterator, raw, snapshot, view, db
    raise SystemExit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_forked_child_is_refused_and_harms_nothing(path):
    """The child ends as any interpreter does, with everything freed; the parent goes on."""
    program = (
        FORK
        + """
assert len(list(iterator)) == 2999
db.put(b"later", b"")
db.compact_range()
db.verify()
db.close()
with kvstore.DB(PATH) as db:
    assert len(list(db)) == 3001
"""
    )
    run(program, path)


def test_a_fork_in_the_middle_of_a_bulk_put_ends_the_childs_copy_of_it(path):
    """As a signal's handler may: where Python code runs, with the thread beside at work."""
    program = """
import os
import sys
import kvstore
rows = memoryview(b"".join(b"%016d" % number for number in range(100_000))).cast("B", (100_000, 16))
db = kvstore.DB(PATH, write_buffer_size=1 << 18)
child = None
def fork(frame, event, _):
    global child
    if child is None and frame.f_code.co_name == "start_threads":
        child = os.fork()
sys.setprofile(fork)
try:
    db.put_many(rows, rows)
except kvstore.ClosedError as error:
    assert child == 0 and "before this process forked" in str(error), error
    raise SystemExit(7)
sys.setprofile(None)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(list(db)) == 100_000
db.verify()
"""
    run(program, path)


def test_a_child_that_outlives_its_parent_does_not_keep_the_directory(path):
    program = """
import os
import sys
import kvstore
db = kvstore.DB(PATH)
db.put(b"a", b"1", sync=True)
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.close(write_end)
    sys.stdout.write("forked\\n")
    sys.stdout.flush()
    os.read(0, 1)
    os._exit(0)
os.read(read_end, 1)
"""
    opener = subprocess.Popen(
        [sys.executable, "-c", program.replace("PATH", repr(path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with opener:
        assert opener.stdout.readline() == b"forked\n"
        opener.send_signal(signal.SIGKILL)
        opener.wait(timeout=30)
        # The child still waits for its standard input to end.
        with kvstore.DB(path) as db:
            assert db[b"a"] == b"1"


@pytest.mark.parametrize("how", ["", "sys.exit(0)", "del db", "db = None; gc.collect()"])
def test_the_interpreter_ends_with_a_database_open_and_its_threads_busy(path, how):
    program = f"""
import gc
import sys
import kvstore
db = kvstore.DB(PATH, write_buffer_size=1 << 16, max_file_size=1 << 16, level_size_base=1 << 18)
for number in range(8000):
    db.put(b"%06d" % (number * 7919 % 8000), bytes(100))
db.snapshot(), db.iterator(), db.raw_iterator()
iterator = db.iterator()
next(iterator)
print(db.stats()["flushes"] > 0)
{how}
"""
    assert run(program, path) == "True\n"
    with kvstore.DB(path) as db:
        assert len(list(db)) == 8000
        db.verify()


def test_the_interpreter_ends_while_daemon_threads_write_and_read(path):
    program = """
import threading
import kvstore
db = kvstore.DB(PATH, write_buffer_size=1 << 16)
ready = threading.Barrier(5)
def work(number):
    for count in range(1 << 30):
        try:
            db.put(b"%d%08d" % (number, count), bytes(100), sync=number == 0)
            db.get(b"%d%08d" % (number, count // 2))
            next(db.iterator(start=b"1"), None)
        except kvstore.ClosedError:
            return
        if count == 100:
            ready.wait()
for number in range(4):
    threading.Thread(target=work, args=(number,), daemon=True).start()
ready.wait()
"""
    run(program, path)
    with kvstore.DB(path) as db:
        assert len(list(db)) >= 400
        db.verify()


WRITER = """
import os
import signal
import sys
import kvstore
db = kvstore.DB(PATH, write_buffer_size=1 << 20, write_through=THROUGH)
for number in range(5000):
    db.put(b"%06d" % number, bytes(number % 4096))
    if number % 500 == 0:
        db.put(b"large %06d" % number, bytes((1 << 20) - 1000 + number))
        db.put(b"synced %06d" % number, b"", sync=True)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
WAIT = "print(flush=True); sys.stdin.read()"


def written(number):
    """What the writer put before the one with this number."""
    found = {b"%06d" % n: bytes(n % 4096) for n in range(number)}
    for n in range(0, number, 500):
        found[b"large %06d" % n] = bytes((1 << 20) - 1000 + n)
        found[b"synced %06d" % n] = b""
    return found


def test_a_killed_process_leaves_a_prefix_of_what_it_wrote_with_all_that_was_synced(path):
    run(WRITER.replace("THROUGH", "False") + KILL, path, -signal.SIGKILL)
    with kvstore.DB(path) as db:
        found = dict(db)
        assert found == written(sum(key.isdigit() for key in found))
        assert b"synced 004500" in found
        db.verify()


def test_with_writing_through_a_killed_process_leaves_all_that_it_wrote(path):
    run(WRITER.replace("THROUGH", "True") + KILL, path, -signal.SIGKILL)
    with kvstore.DB(path) as db:
        assert dict(db) == written(5000)


def test_what_was_written_is_with_the_operating_system_soon_though_nothing_more_is_done(path):
    # No flush: it would remove segments while they are read.
    program = (WRITER + WAIT).replace("1 << 20, w", "64 << 20, w")
    program = program.replace("PATH", repr(path)).replace("THROUGH", "False")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        last = 0
        until = time.monotonic() + 20
        while last < len(written(5000)) and time.monotonic() < until:
            with Log(f"{path}/wal", read_only=True) as log:
                last = max(index for _, index, _, _ in log.replay())
        process.kill()
    with kvstore.DB(path) as db:
        assert dict(db) == written(5000)


@pytest.mark.parametrize("started", range(3))
def test_a_database_that_gets_no_thread_does_their_work_in_its_writes(path, started, monkeypatch):
    """As under RLIMIT_NPROC: the log's writer, the flushing or the compacting thread."""
    left = iter(range(started))
    start = threading.Thread.start

    def refuse(thread):
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with kvstore.DB(path, **SMALL) as db:
        for number in range(2000):
            db.put(b"%d" % number, bytes(300))
        assert db.stats()["flushes"] > 3
        db.compact_range()
    monkeypatch.undo()
    with kvstore.DB(path, **SMALL) as db:
        assert len(list(db)) == 2000


@pytest.mark.parametrize("started", range(3))
def test_an_error_of_a_signals_handler_is_no_lack_of_threads(path, started, monkeypatch):
    """Raised while one of the same three threads is started; it is for whoever writes."""
    left = iter(range(started))
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        if next(left, None) is None:
            monkeypatch.undo()
            raise RuntimeError("timed out")

    def put_all():
        for number in range(2000):
            db.put(b"%d" % number, bytes(300))

    with kvstore.DB(path, **SMALL) as db:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(RuntimeError, match="timed out"):
            put_all()
        put_all()
        db.compact_range()
    with kvstore.DB(path, **SMALL) as db:
        assert len(list(db)) == 2000


def test_an_error_of_a_signals_handler_while_threads_are_waited_for_is_told(path, monkeypatch):
    join = threading.Thread.join

    def interrupted(thread, timeout=None):
        monkeypatch.undo()
        join(thread, timeout)
        raise RuntimeError("timed out")

    db = kvstore.DB(path, **SMALL)
    for number in range(1000):
        db.put(b"%d" % number, bytes(300))
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(RuntimeError, match="timed out"):
        db.close()
    assert db.closed
    with kvstore.DB(path) as again:
        assert len(list(again)) == 1000


def test_threads_start_when_there_is_work_for_them(path):
    before = threading.active_count()
    with kvstore.DB(path, **SMALL) as db:
        for number in range(50):
            db.put(b"%d" % number, b"v", sync=number % 2 == 0)
        db.flush()
        assert len(list(db)) == 50
        assert threading.active_count() == before
        for number in range(1000):
            db.put(b"%d" % number, bytes(300))
        assert threading.active_count() == before + 3
    assert threading.active_count() == before
    with kvstore.DB(path, **SMALL) as db:
        assert db[b"999"] == bytes(300)


def test_a_log_that_gets_no_thread_is_as_it_was(path, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with Log(path) as log:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(kvstore.StorageError):
            log.start_writer()
        monkeypatch.undo()
        assert log.start_writer() >= 0


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("place", range(4))
def test_an_interrupted_close_is_finished(path, times, place, monkeypatch):
    """Ctrl-C, `times` in a row, while each of the threads is waited for."""
    join = threading.Thread.join
    interrupts = iter(range(times))
    calls = iter(range(1 << 20))

    def interrupted(thread, timeout=None):
        if next(calls) >= place and next(interrupts, None) is not None:
            raise KeyboardInterrupt
        join(thread, timeout)

    db = kvstore.DB(path, compaction_threads=2, **SMALL)
    for _ in range(1000):
        db.put(b"a", bytes(300))
    db.put(b"a", b"1")
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        db.close()
    assert db.closed
    db.close()
    monkeypatch.undo()
    with kvstore.DB(path) as again:
        assert again[b"a"] == b"1"


def test_a_closed_object_holds_no_file_open(path):
    def held():
        names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [os.readlink(name) for name in names if os.path.lexists(name)]

    with kvstore.DB(path, **SMALL) as db:
        for number in range(5000):
            db.put(b"%06d" % number, bytes(100))
        db.compact_range()
        assert len(list(db)) == 5000
        iterator = db.iterator()
        next(iterator)
        assert len([name for name in held() if name.endswith(".sst")]) > 2
    assert [name for name in held() if name.startswith(path)] == []
    assert db.closed
