"""Rows that one state machine lends another one: of the moment that the other one stands at."""

from __future__ import annotations

import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import Options
from kvstore.errors import StorageError
from kvstore.state import (
    StateMachine,
    can_be_lent,
    delete_command,
    encode_commands,
    open_state,
    put_command,
    request_digest,
)
from kvstore.state.invariants import check_rows
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.records import EVENTS, USER
from kvstore.state.mvcc.requests import (
    Compact,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    Range,
    Txn,
)

OPTIONS = Options(
    wal=False, background=False, write_buffer_size=64 << 10, max_file_size=64 << 10, block_size=256
)
STOP = bytes([EVENTS[0] + 1])


def machine_on(disk: MemoryFileSystem) -> StateMachine:
    return StateMachine(open_state("/state", options=OPTIONS, filesystem=disk))


def key(rng: random.Random) -> bytes:
    return b"k%03d" % rng.randrange(150)


class History:
    """Entries for state machines, the same for each."""

    def __init__(self, seed: int, *, model: bool) -> None:
        self.rng = random.Random(seed)
        self.model = model
        self.revisions = 2
        self.entries: list[tuple[int, int, bytes]] = []
        self._add(self._command())
        if model:
            self._add(self._encoded(EnableModel()))

    def _add(self, data: bytes) -> None:
        self.entries.append((len(self.entries) + 1, 1, data))

    def grow(self, count: int, *, compacts: bool = True) -> None:
        for _ in range(count):
            self._add(self._next(compacts=compacts))

    def _command(self) -> bytes:
        request = request_digest(b"%d" % len(self.entries))
        command = put_command(request, key(self.rng), self.rng.randbytes(60))
        if self.rng.random() < 0.2:
            command = delete_command(request, key(self.rng))
        return encode_commands([command])

    def _next(self, *, compacts: bool) -> bytes:
        rng = self.rng
        drawn = rng.random()
        if drawn < 0.05:
            return b""
        if not self.model or drawn < 0.2:
            self.revisions += 1
            return self._command()
        if drawn < 0.22 and compacts:
            return self._encoded(
                Compact(rng.randrange(max(1, self.revisions // 2), self.revisions))
            )
        if drawn < 0.3:
            return self._encoded(LeaseGrant(rng.randrange(1, 9), 60))
        if drawn < 0.33:
            return self._encoded(LeaseRevoke(rng.randrange(1, 9)))
        if drawn < 0.4:
            first = key(rng)
            return self._encoded(DeleteRange(first, first + b"\xff" if drawn < 0.38 else b""))
        put = Put(key(rng), rng.randbytes(60), rng.choice([0, 0, 0, 1, 2]))
        self.revisions += 1
        return self._encoded(put if drawn < 0.8 else Txn(success=(put, Put(b"txn", b"%f" % drawn))))

    def _encoded(self, operation: Operation) -> bytes:
        return encode_operations([Proposal(b"%016d" % len(self.entries), operation)], 0)


def apply(machine: StateMachine, history: History, upto: int, rng: random.Random) -> None:
    """In slices and with flushes at moments of its own."""
    while machine.applied_index < upto:
        first = machine.applied_index
        machine.apply(history.entries[first : min(upto, first + rng.randrange(1, 20))])
        if rng.random() < 0.05:
            machine.flush()
        if rng.random() < 0.02:
            machine.reclaim()


def replace_all(hurt: StateMachine, lender: StateMachine, low: bytes, stop: bytes) -> bool:
    """False where the lender has let go of some of it."""
    hurt.flush()
    export = lender.lend(hurt.moment)
    if export is None:
        return False
    lender.flush()
    replacement = hurt.replace_rows(low, stop)
    at: bytes | None = low
    while at is not None:
        try:
            part, after = export.part(at, stop, 500)
        except StorageError:
            replacement.close()
            return False
        replacement.add(at, after or stop, part)
        at = after
    export.close()
    assert replacement.install()
    return True


def told(machine: StateMachine) -> list[object]:
    """All that anybody can read of it."""
    said: list[object] = [machine.revision, machine.state_hash, machine.compacted]
    db = machine._db
    said.append(list(db.iterator(start=USER, stop=STOP, include_sequence=True)))
    if not machine.model_enabled:
        return said
    moment = machine.moment
    for revision in range(max(moment.keep_from, 1), moment.revision + 1, 7):
        said.append(machine.hash_kv(revision)[1:])
        said.append(machine.read_range(Range(b"\0", b"\0", revision=revision)))
    first = max(moment.compacted, 1)
    said.append(machine.events(first, machine.revision, 1 << 20, previous=True))
    return said


@pytest.mark.parametrize("model", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_rows_of_a_member_that_is_further_are_those_of_the_moment(seed: int, model: bool) -> None:
    rng = random.Random(seed)
    history = History(seed, model=model)
    history.grow(600)
    here = len(history.entries)
    history.grow(rng.choice([0, 1, 5, 80]), compacts=False)
    lender, hurt, twin = (machine_on(MemoryFileSystem()) for _ in range(3))
    apply(hurt, history, here, random.Random(seed + 1))
    apply(twin, history, here, random.Random(seed + 2))
    lender_rng = random.Random(seed + 3)
    apply(lender, history, here, lender_rng)
    for index in range(here, len(history.entries)):  # nothing is merged on the way
        lender.apply([history.entries[index]])
    low, stop = USER, STOP
    if rng.random() < 0.7:
        low = USER + key(rng)
        stop = rng.choice([STOP, USER + key(rng) + b"\xff", EVENTS + b"\0" * 7 + b"\x20"])
    if low >= stop:
        low, stop = USER, STOP
    assert can_be_lent(low, stop)
    if not replace_all(hurt, lender, low, stop):
        # Its memory was full on the way: without history what was replaced is gone then.
        assert not model
        assert len(history.entries) - here == 80
        return
    hurt.verify()
    assert told(hurt) == told(twin)
    assert check_rows(hurt._db) == []
    # Both go on alike.
    history.grow(100)
    for machine in (hurt, twin):
        apply(machine, history, len(history.entries), random.Random(5))
        machine.reclaim()
    assert told(hurt) == told(twin)
    assert check_rows(hurt._db) == []
    for machine in (hurt, twin, lender):
        machine.close()


@pytest.mark.parametrize("seed", range(10))
def test_a_lender_that_has_compacted_since_says_no(seed: int) -> None:
    history = History(seed, model=True)
    history.grow(200)
    hurt, lender = machine_on(MemoryFileSystem()), machine_on(MemoryFileSystem())
    apply(hurt, history, len(history.entries), random.Random(1))
    history._add(history._encoded(Compact(hurt.revision)))
    apply(lender, history, len(history.entries), random.Random(2))
    assert lender.compacted != hurt.compacted
    assert not replace_all(hurt, lender, USER, STOP)


def test_a_lender_that_has_merged_since_says_no_without_the_model() -> None:
    history = History(3, model=False)
    history.grow(200)
    hurt, lender = machine_on(MemoryFileSystem()), machine_on(MemoryFileSystem())
    apply(hurt, history, 200, random.Random(1))
    apply(lender, history, len(history.entries), random.Random(2))
    lender.flush()
    assert lender.lend(hurt.moment) is None
    assert lender.lend(lender.moment) is not None


def test_a_member_that_is_behind_lends_nothing() -> None:
    history = History(4, model=False)
    history.grow(20)
    lender = machine_on(MemoryFileSystem())
    apply(lender, history, 10, random.Random(1))
    moment = lender.moment
    assert lender.lend(moment._replace(applied=11)) is None
    assert lender.lend(moment) is not None


def test_what_can_be_lent() -> None:
    assert can_be_lent(USER, STOP)
    assert can_be_lent(USER + b"a", USER + b"b")
    assert can_be_lent(EVENTS, STOP)
    assert not can_be_lent(b"\0session", USER + b"a")
    assert not can_be_lent(USER + b"a", STOP + b"\0")
