"""Clients of etcd's API: one call at a time, of whichever member, and never twice.

As etcd's own clients do they ask any member, and don't repeat a write whose outcome is unknown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvstore.errors import Error
from kvstore.service.etcd.lessor import TimeToLive
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    KeyValue,
    LeaseGrantAnswer,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.requests import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    Txn,
    TxnOperation,
)
from tests.simulator.agenda import SECOND, Agenda
from tests.simulator.etcd_member import EtcdMember
from tests.simulator.ledger import Asked, Ledger
from tests.simulator.plan import Plan
from tests.simulator.process import Process
from tests.simulator.trace import Trace

__all__ = ["SHARED_KEY", "EtcdClient"]

KEYS = [b"etcd-%d" % number for number in range(4)]
SHARED_KEY = b"key-0"
"""Which clients of v1 write, too."""
RANGES = [(b"etcd-", b"etcd."), (b"etcd-1", b"etcd-3"), (b"\0", b"\0"), (b"key-", b"key.")]

LEASES = [7, 1 << 40, -1, -(1 << 63), (1 << 63) - 1]
TTLS_S = (2, 2, 3)
"""The least that members grant, and more: so that leases run out within a run."""

CALM_PATIENCE_US = 20 * SECOND
"""Once the troubles are over the member's own patience ends first."""


@dataclass(frozen=True, slots=True)
class _Renew:
    id: int


@dataclass(frozen=True, slots=True)
class _Look:
    id: int


@dataclass(frozen=True, slots=True)
class _Read:
    operation: Range | Txn
    serializable: bool


Asking = Operation | _Renew | _Look | _Read


@dataclass(slots=True)
class _Call:
    asking: Asking
    asked: Asked
    process: Process


class EtcdClient:
    """One client, until told to stop."""

    def __init__(
        self,
        number: int,
        *,
        plan: Plan,
        agenda: Agenda,
        trace: Trace,
        ledger: Ledger,
        processes: Callable[[], Sequence[Process]],
    ) -> None:
        self.number = number
        self.finished = 0
        """Calls that were answered, with anything but an error."""
        self._plan = plan
        self._agenda = agenda
        self._trace = trace
        self._ledger = ledger
        self._processes = processes
        self._rng = random.Random(f"{plan.seed}/etcd/client/{number}")
        self._keys = [*KEYS, SHARED_KEY] if plan.etcd.writes_shared else KEYS
        self._made = 0
        self._call: _Call | None = None
        self._home: Process | None = None
        self._stopping = False
        self._loss = plan.loss
        self._patience_us = plan.etcd.patience_us
        # What it has seen: of each key, and the newest revision.
        self._known: dict[bytes, KeyValue] = {}
        self._revision = 1
        # Leases that it was granted, as far as it knows.
        self._held: list[int] = []
        self._think()

    @property
    def idle(self) -> bool:
        """It has stopped, and nothing is under way."""
        return self._stopping and self._call is None

    def calm(self) -> None:
        """The troubles are over."""
        self._loss = 0.0
        self._patience_us = (CALM_PATIENCE_US, CALM_PATIENCE_US)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True

    # --- calls -----------------------------------------------------------------------------------

    def _think(self) -> None:
        pause = int(self._rng.expovariate(1.0 / self._plan.etcd.think_us))
        self._agenda.after(pause, self._begin)

    def _begin(self) -> None:
        if self._stopping:
            return
        process = self._whom()
        call = self._call = _Call(self._choose(), self._ledger.asks(), process)
        rng = self._rng
        patience_us = rng.randint(*self._patience_us)
        self._agenda.after(patience_us, lambda: self._give_up(call))
        if rng.random() >= self._loss:
            delay_us = rng.randint(*self._plan.delay_us)
            self._agenda.after(
                delay_us,
                lambda: process.ask_etcd(lambda etcd: self._arrive(etcd, call, patience_us)),
            )

    def _whom(self) -> Process:
        """Mostly the same one as before."""
        running = [process for process in self._processes() if process.etcd is not None]
        if self._home not in running or self._rng.random() < 0.1:
            self._home = self._rng.choice(running or self._processes())
        assert self._home is not None
        return self._home

    def _give_up(self, call: _Call) -> None:
        if self._call is call:
            self._home = None
            self._trace.note(f"etcd {self.number} gives up: {_tell(call.asking)}")
            self._end()

    def _end(self) -> None:
        self._call = None
        self._think()

    def _arrive(self, etcd: EtcdMember, call: _Call, patience_us: int) -> None:
        """The call has reached a member. Its answer may get lost."""
        asking = call.asking
        deadline = etcd.service._now() + patience_us / SECOND

        def answer(told: Callable[[], None]) -> None:
            if not etcd.is_over and self._rng.random() >= self._loss:
                delay_us = self._rng.randint(*self._plan.delay_us)
                self._agenda.after(delay_us, lambda: self._answered(call, told))

        match asking:
            case _Read(operation, serializable):
                applied = etcd.service.header().revision
                etcd.read(
                    operation,
                    serializable,
                    deadline,
                    lambda outcome: answer(lambda: self._read(call, asking, applied, outcome)),
                )
            case _Renew(id):
                etcd.leases.renew(
                    id, deadline, lambda outcome: answer(lambda: self._renewed(call, id, outcome))
                )
            case _Look(id):
                etcd.leases.time_to_live(
                    id, deadline, lambda outcome: answer(lambda: self._looked(call, id, outcome))
                )
            case _:
                etcd.propose(
                    asking,
                    deadline,
                    lambda made, outcome: answer(lambda: self._wrote(call, asking, made, outcome)),
                )

    def _answered(self, call: _Call, told: Callable[[], None]) -> None:
        if self._call is call:
            told()
            self._end()

    # --- answers ---------------------------------------------------------------------------------

    def _note(self, call: _Call, outcome: object) -> None:
        told = _tell(outcome) if isinstance(outcome, tuple) else str(outcome)
        asking = _tell(call.asking)
        self._trace.note(f"etcd {self.number} at {call.process.member}: {asking}: {told}")
        if isinstance(outcome, Error):
            self._home = None
        else:
            self.finished += 1

    def _wrote(self, call: _Call, operation: Operation, made: bytes, outcome: Any) -> None:
        self._note(call, outcome)
        self._ledger.wrote(call.asked, operation, made, outcome)
        if isinstance(outcome, Error):
            return
        self._revision = max(self._revision, outcome.revision)
        match outcome:
            case LeaseGrantAnswer(_, id, _):
                self._held.append(id)
            case PutAnswer(_, KeyValue() as previous):
                self._learn(previous)
            case DeleteRangeAnswer(_, _, previous_kvs):
                for kv in previous_kvs:
                    self._learn(kv)
            case TxnAnswer():
                self._learn_of(outcome)

    def _read(self, call: _Call, asking: _Read, applied: int, outcome: Any) -> None:
        self._note(call, outcome)
        if isinstance(outcome, Error):
            self._ledger.read_refused(call.asked, asking.operation, asking.serializable, outcome)
            return
        self._ledger.read(call.asked, asking.operation, asking.serializable, applied, outcome)
        self._revision = max(self._revision, outcome.revision)
        if isinstance(outcome, RangeAnswer):
            for kv in outcome.kvs:
                self._learn(kv)
        else:
            self._learn_of(outcome)

    def _learn_of(self, answer: TxnAnswer) -> None:
        for each in answer.answers:
            if isinstance(each, RangeAnswer):
                for kv in each.kvs:
                    self._learn(kv)
            elif isinstance(each, TxnAnswer):
                self._learn_of(each)

    def _learn(self, kv: KeyValue) -> None:
        self._known[kv.key] = kv

    def _renewed(self, call: _Call, id: int, outcome: int | Error) -> None:
        self._note(call, outcome)
        if not isinstance(outcome, Error):
            self._ledger.renewed(call.asked, id, outcome)
            if not outcome:
                self._forget(id)

    def _looked(self, call: _Call, id: int, outcome: TimeToLive | Error) -> None:
        self._note(call, outcome)
        if not isinstance(outcome, Error):
            self._ledger.looked(call.asked, id, outcome)

    def _forget(self, id: int) -> None:
        self._held = [held for held in self._held if held != id]

    # --- what it asks for ------------------------------------------------------------------------

    def _choose(self) -> Asking:
        rng = self._rng
        drawn = rng.random()
        if drawn < 0.2:
            return self._put()
        if drawn < 0.45:
            return self._txn()
        if drawn < 0.52:
            return self._delete()
        if drawn < 0.7:
            return _Read(self._range(), rng.random() < 0.2)
        if drawn < 0.74:
            return _Read(Txn(success=(self._range_now(), self._range_now())), rng.random() < 0.2)
        if drawn < 0.81:
            return LeaseGrant(rng.choice(LEASES), rng.choice(TTLS_S))
        if drawn < 0.93:
            return _Renew(self._lease())
        if drawn < 0.95:
            return _Look(self._lease())
        if drawn < 0.975:
            id = self._lease()
            self._forget(id)
            return LeaseRevoke(id)
        return Compact(max(1, self._revision - rng.choice((0, 0, 1, 5, 30))))

    def _lease(self) -> int:
        """Mostly the newest that it holds: several keys are to be on it."""
        if self._held and self._rng.random() < 0.9:
            return self._held[-1] if self._rng.random() < 0.7 else self._rng.choice(self._held)
        return self._rng.choice(LEASES)

    def _key(self) -> bytes:
        return self._rng.choice(self._keys)

    def _put(self, key: bytes = b"") -> Put:
        rng = self._rng
        self._made += 1
        form = rng.random()
        value = b"<e%d/%d>" % (self.number, self._made)
        value += bytes(rng.randrange(self._plan.value_bytes_max))
        return Put(
            key or self._key(),
            b"" if form < 0.05 else value,
            self._lease() if rng.random() < 0.5 and form < 0.9 else 0,
            rng.random() < 0.2,
            ignore_value=form < 0.05,
            ignore_lease=form >= 0.95,
        )

    def _delete(self) -> DeleteRange:
        rng = self._rng
        if rng.random() < 0.3:
            # Not what clients of v1 write.
            return DeleteRange(*rng.choice(RANGES[:2]), prev_kv=rng.random() < 0.5)
        return DeleteRange(self._key(), prev_kv=rng.random() < 0.5)

    def _range(self) -> Range:
        rng = self._rng
        asked = self._range_now()
        if rng.random() < 0.7:
            return asked
        back = rng.choice((0, 0, 1, 3, 20, -1))
        return asked._replace(revision=max(1, self._revision - back))

    def _range_now(self) -> Range:
        rng = self._rng
        if rng.random() < 0.5:
            return Range(self._key())
        limit = rng.choice((0, 0, 1, 2))
        return Range(*rng.choice(RANGES), limit=limit, count_only=rng.random() < 0.1)

    def _txn(self) -> Txn:
        rng = self._rng
        key = self._key()
        compares = tuple(self._compare(key) for _ in range(rng.choice((0, 1, 1, 1, 2))))
        return Txn(compares, self._branch(key), self._branch(key) if rng.random() < 0.5 else ())

    def _branch(self, key: bytes) -> tuple[TxnOperation, ...]:
        """Some of these are refused: they put a key twice."""
        rng = self._rng
        done: list[TxnOperation] = [self._put(key) if rng.random() < 0.8 else self._range_now()]
        for _ in range(rng.choice((0, 0, 1, 2))):
            draw = rng.random()
            if draw < 0.4:
                done.append(self._range())
            elif draw < 0.7:
                done.append(self._put())
            elif draw < 0.85:
                done.append(self._delete())
            else:
                done.append(Txn((self._compare(key),), (self._put(),), (self._range(),)))
        return tuple(done)

    def _compare(self, key: bytes) -> Compare:
        """Mostly what holds, as far as it knows."""
        rng = self._rng
        known = self._known.get(key) or KeyValue(key, 0, 0, 0, b"", 0)
        target = rng.choice((*CompareTarget, CompareTarget.MOD, CompareTarget.CREATE))
        operands: dict[CompareTarget, int | bytes] = {
            CompareTarget.VERSION: known.version,
            CompareTarget.CREATE: known.create_revision,
            CompareTarget.MOD: known.mod_revision,
            CompareTarget.VALUE: known.value,
            CompareTarget.LEASE: known.lease,
        }
        operand = operands[target]
        result = rng.choice((CompareResult.EQUAL, CompareResult.EQUAL, *CompareResult))
        if rng.random() < 0.1:
            return Compare(key, target, result, operand, b"\0")
        return Compare(key, target, result, operand)


def _tell(what: object) -> str:
    """A call or an answer in a few words: values may be large."""
    if isinstance(what, _Read):
        return ("serializable " if what.serializable else "") + _tell(what.operation)
    said = [type(what).__name__.removeprefix("_")]
    for name in ("key", "id", "ttl", "revision", "succeeded"):
        if hasattr(what, name):
            said.append(f"{name} {getattr(what, name)!r}")
    return " ".join(said)
