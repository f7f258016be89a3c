"""One workload of a database, run again and again with another of its allocations refused.

Each step of the workload either does what it says or raises MemoryError and changes nothing that is
seen. A dict says what must be there.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives import native as memory
from kvstore.raft import Bundle, Entry, EntryKind, HardState, Membership
from kvstore.replica.storage import Identity, MemberLog

PATH = "/db"
OPTIONS = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "block_size": 512,
    "lru_cache_size": 1 << 20,
    "max_open_files": 16,
    "compaction_trigger": 2,
}


@dataclass
class Run:
    """One passage through the workload: the database, and what it must hold."""

    disk: MemoryFileSystem = field(default_factory=MemoryFileSystem)
    model: dict[bytes, bytes] = field(default_factory=dict)
    history: list[dict[bytes, bytes]] = field(default_factory=lambda: [{}])
    """The model after each write that was acknowledged."""
    synced: int = 0
    """The last of those that a power loss must not take."""
    refused: list[str] = field(default_factory=list)
    background: bool = False
    db: kvstore.DB | None = None
    on_refusal: Callable[[Run, str], None] = lambda run, step: None

    def open(self) -> kvstore.DB:
        assert self.db is None
        self.db = kvstore.open(
            PATH, filesystem=self.disk, **{**OPTIONS, "background": self.background}
        )
        return self.db

    def attempt(self, step: str, do: Callable[[], object]) -> bool:
        """Whether it was done; if not, MemoryError said so."""
        try:
            do()
        except MemoryError:
            self.refused.append(step)
            self.on_refusal(self, step)
            return False
        return True

    def insist(self, step: str, do: Callable[[], object]) -> None:
        """Until it is done: memory comes back, sooner or later."""
        for _ in range(1000):
            if self.attempt(step, do):
                return
        raise AssertionError(f"{step} never works again")

    # --- steps that change the model ----------------------------------------------------------

    def write(
        self,
        step: str,
        do: Callable[[], object],
        change: dict[bytes, bytes | None],
        sync: bool = False,
    ) -> None:
        if not self.attempt(step, do):
            return
        for key, value in change.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value
        self.history.append(dict(self.model))
        if sync:
            self.synced = len(self.history) - 1

    def put(self, key: bytes, value: bytes, sync: bool = False) -> None:
        self.write("put", lambda: self.db.put(key, value, sync=sync), {key: value}, sync)

    def delete(self, key: bytes, sync: bool = False) -> None:
        self.write("delete", lambda: self.db.delete(key, sync=sync), {key: None}, sync)

    def batch(self, change: dict[bytes, bytes | None], sync: bool = False) -> None:
        def do() -> None:
            batch = kvstore.WriteBatch()
            for key, value in change.items():
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            self.db.write(batch, sync=sync)

        self.write("batch", do, change, sync)

    def put_many(self, rows: dict[bytes, bytes]) -> None:
        # As many rows as one batch of it takes: then it is all or nothing.
        self.write(
            "put_many",
            lambda: self.db.put_many(column(rows.keys()), column(rows.values())),
            dict(rows),
        )

    # --- steps that look ----------------------------------------------------------------------

    def read(self, step: str, do: Callable[[], object], expected: object) -> None:
        def look() -> None:
            got = do()
            assert got == expected, f"{step} is wrong"

        self.attempt(step, look)

    def check(self, db: kvstore.DB) -> None:
        """With all the memory it wants."""
        rows = sorted(self.model.items())
        assert list(db) == rows
        assert list(db.iterator(reverse=True)) == rows[::-1]
        assert db.multi_get(list(self.model)) == list(self.model.values())
        db.verify()

    def check_after_power_loss(self) -> None:
        """What is left is what was there after some write, the last one synced or a later one."""
        with kvstore.open(PATH, filesystem=self.disk.crash(), **OPTIONS) as db:
            assert dict(db) in self.history[self.synced :]


def column(rows: Iterable[bytes]) -> Any:
    """Rows of one length as an array."""
    parts = list(rows)
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), -1)


def key(i: int) -> bytes:
    return b"key%05d" % i


def value(i: int, size: int) -> bytes:
    return (b"%05d" % i) * (size // 5)


def workload(run: Run) -> None:
    """What it takes to pass through all of the engine, in as few allocations as that needs."""
    run.insist("open", run.open)
    db = run.db
    for i in range(8):
        run.put(key(i), value(i, 900), sync=i % 3 == 0)
    run.batch({key(i): value(i, 400) if i % 4 else None for i in range(4, 40)}, sync=True)
    run.put(b"large", value(1, 70_000))
    run.delete(key(5))
    run.attempt("flush", db.flush)
    run.put_many({key(i): value(i, 300) for i in range(20, 60)})
    run.put(key(1), value(100, 900), sync=True)
    walk(run)
    run.attempt("flush", db.flush)
    snapshots(run)
    run.write(
        "delete_range",
        lambda: db.delete_range(key(30), key(36)),
        {key(i): None for i in range(30, 36)},
    )
    walk(run)
    run.attempt("flush", db.flush)
    walk(run)
    run.attempt("compact_range", db.compact_range)
    walk(run)
    run.batch({key(i): value(i + 1, 1500) for i in range(0, 50, 2)})
    run.put(b"large", value(2, 70_000), sync=True)
    checkpoint(run)
    run.put(key(70), value(70, 100))
    run.delete(key(40))
    if run.attempt("sync", db.sync):
        run.synced = len(run.history) - 1
    reopen(run)
    run.put(key(71), value(71, 100), sync=True)
    walk(run)
    run.attempt("compact_range", run.db.compact_range)
    run.put(key(72), value(72, 100))
    reopen(run)


def walk(run: Run) -> None:
    db, rows = run.db, sorted(run.model.items())
    run.read("iterate", lambda: list(db), rows)
    run.read("iterate back", lambda: list(db.iterator(reverse=True)), rows[::-1])
    part = [row for row in rows if key(10) <= row[0] < key(25)]
    run.read("iterate a range", lambda: list(db.iterator(start=key(10), stop=key(25))), part)
    run.read(
        "multi_get",
        lambda: db.multi_get([key(3), b"none", b"large"]),
        [run.model.get(name) for name in (key(3), b"none", b"large")],
    )
    run.read("get", lambda: db.get(key(7)), run.model.get(key(7)))


def snapshots(run: Run) -> None:
    db, before = run.db, sorted(run.model.items())
    taken: list[kvstore.Snapshot] = []
    if not run.attempt("snapshot", lambda: taken.append(db.snapshot())):
        return
    snapshot = taken[0]
    run.put(key(2), b"after the snapshot")
    run.attempt("flush", db.flush)
    run.attempt("compact_range", db.compact_range)
    run.read("read a snapshot", lambda: list(snapshot.iterator()), before)
    run.read("get from a snapshot", lambda: snapshot.get(key(2)), dict(before).get(key(2)))
    snapshot.close()


def checkpoint(run: Run) -> None:
    target = f"/checkpoint{len(run.refused)}"
    if not run.attempt("checkpoint", lambda: run.db.checkpoint(target)):
        return
    copies: list[kvstore.DB] = []
    run.insist(
        "open a checkpoint",
        lambda: copies.append(kvstore.open(target, filesystem=run.disk, **OPTIONS)),
    )
    run.read("read a checkpoint", lambda: dict(copies[0]), run.model)
    run.insist("close a checkpoint", copies[0].close)


def reopen(run: Run) -> None:
    db = run.db
    run.insist("close", db.close)
    run.db = None
    run.insist("reopen", run.open)


# --- the log, as a member of a group uses it ------------------------------------------------------

ME = Identity("cluster", 1)
MEMBERS = Membership(voters=frozenset({1, 2, 3}))


@dataclass
class LogRun(Run):
    """The same of a member's log: the model is its entries and hard state."""

    log: MemberLog | None = None
    entries: list[Entry] = field(default_factory=list)
    hard_state: HardState = field(default_factory=HardState)
    durable_entries: int = 0

    def open_log(self) -> None:
        assert self.log is None
        self.log = MemberLog("/log", ME, filesystem=self.disk, segment_bytes=4096)
        assert self.log.entries == self.entries
        assert self.log.hard_state == self.hard_state

    def save(self, first: int, count: int, size: int, sync: bool) -> None:
        """Entries and a hard state in one bundle: all of it, or nothing."""
        index = len(self.entries) + 1
        new = [
            Entry(self.hard_state.term + 1, index + i, EntryKind.COMMAND, value(first + i, size))
            for i in range(count)
        ]
        state = HardState(self.hard_state.term + 1, vote=2)
        bundle = Bundle(index, must_sync=True, hard_state=state, entries=new)
        assert self.log is not None
        if self.attempt("save", lambda: self.log.save(bundle)):
            self.entries += new
            self.hard_state = state
        if sync and self.attempt("sync", self.log.sync):
            self.durable_entries = len(self.entries)
            self.log.take_durable()

    def check_log_prefix(self, durable: int) -> None:
        """After a power loss: a prefix, with all that was synced."""
        log = MemberLog("/log", ME, filesystem=self.disk, segment_bytes=4096)
        assert len(log.entries) >= durable
        assert log.entries == self.entries[: len(log.entries)]
        log.close()

    def check_log(self) -> None:
        self.open_log()
        self.log.close()
        self.log = None


def log_workload(run: LogRun) -> None:
    run.insist("open", run.open_log)
    for i in range(12):
        run.save(i * 10, count=1 + i % 4, size=100 + 300 * (i % 5), sync=i % 3 == 0)
    run.save(500, count=3, size=9_000, sync=True)  # a segment of its own
    log = run.log
    run.insist("close", log.close)
    run.log = None
    run.insist("reopen", run.open_log)
    run.save(600, count=2, size=100, sync=False)
    run.save(700, count=2, size=5_000, sync=True)


# --- running them ---------------------------------------------------------------------------------


def settle() -> None:
    """Nothing is refused from here on, and what is given back is still counted."""
    memory.watch_allocations()


def assert_all_given_back() -> None:
    if memory.live():
        gc.collect()  # what a traceback still holds
    # Below 0: something that was made before, by another test, was collected meanwhile.
    assert memory.live() <= 0, f"{memory.live()} pieces of memory were not given back"


def allocations(passage: Callable[[int, int], object]) -> int:
    """How many a passage takes until nothing is refused any more: those to be swept."""
    memory.reset()
    passage(0, 0)
    return taken[passage]


taken: dict[object, int] = {}


def pass_threads(n: int, times: int) -> list[str]:
    """The same with flushes and compactions on threads, whose allocations come at any moment."""
    return pass_database(n, times, background=True)


def pass_database(n: int, times: int, background: bool = False) -> list[str]:
    """The workload with allocation ``n`` refused, and ``times - 1`` after it; what was refused.

    Where it is one, the database is compared at once; else at the end. Then it is opened anew, as a
    power loss would have left it and as it was closed.
    """
    run = Run(background=background)

    def look_at_once(run: Run, step: str) -> None:
        if times == 1 and run.db is not None and not run.db.closed:
            run.check(run.db)

    run.on_refusal = look_at_once
    memory.fail_allocation(n, times)
    try:
        workload(run)
        taken[pass_threads if background else pass_database] = memory.count()
        settle()
        run.check(run.db)
        run.check_after_power_loss()
        run.db.close()
        run.db = None
        run.check(run.open())
        run.db.close()
        run.db = None
        assert_all_given_back()
    finally:
        memory.reset()
    return run.refused


def pass_log(n: int, times: int) -> list[str]:
    """The same for the log of a member."""
    run = LogRun()
    memory.fail_allocation(n, times)
    try:
        log_workload(run)
        taken[pass_log] = memory.count()
        settle()
        after = LogRun(disk=run.disk.crash(), entries=run.entries, hard_state=run.hard_state)
        after.check_log_prefix(run.durable_entries)
        run.log.close()
        run.log = None
        run.check_log()
        assert_all_given_back()
    finally:
        memory.reset()
    return run.refused
