"""Entries of the model's operations: evaluated first, changing nothing, and then applied.

What an evaluation needs may lie on the disk: then it is done once more, by whoever may wait for
that. Nothing else is applied meanwhile, so what it found stays true.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol

from kvstore._engine.primitives.native import crc32c
from kvstore._state.native import Evaluator
from kvstore.engine import DB, WriteBatch
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.alarms import Refused, refused_by
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    KeyValue,
    PutAnswer,
    RangeAnswer,
    RepeatedAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.auth import Auth, load_auth
from kvstore.state.mvcc.evaluate import TimedEntry, evaluate_slice
from kvstore.state.mvcc.numbering import Numbering, OpenSessions
from kvstore.state.mvcc.operations import (
    decode_operations,
    decode_operations_time,
    is_operations,
)
from kvstore.state.mvcc.records import (
    ALARMS,
    LEASES,
    USERS,
    LeaseRecord,
    decode_alarm_key,
    decode_lease,
    decode_lease_key,
)
from kvstore.state.mvcc.requests import Compact, Proposal, Txn
from kvstore.state.mvcc.source import ColdError, Standing, Store
from kvstore.state.mvcc.view import View
from kvstore.state.results import Applied, OperationResult
from kvstore.state.sessions import Session, encode_session
from kvstore.state.stored import SESSIONS, STATE_KEY, StoredState, encode_state
from kvstore.state.stores import DiskStore, MemoryStore

__all__ = ["OperationsApplying", "PreparedOperations"]

OPERATIONS_AT_ONCE = 1024
"""With more of them entries are evaluated by a worker, whatever memory knows."""

_REVISION = struct.Struct("<BQ")
_COUNT = struct.Struct("<Q")
_REASONS = {reason: place for place, reason in enumerate(Reason, start=1)}

_Entry = tuple[int, int, bytes, Sequence[Proposal]]


class _Standing(Protocol):
    """What v1's commands are applied by: it knows how far the state is."""

    applied_index: int
    applied_term: int
    revision: int
    state_hash: int
    clock_ms: int
    model_from: int
    compacted: int
    guard: int
    level: int

    def advance(
        self,
        applied_index: int,
        applied_term: int,
        revision: int,
        state_hash: int,
        clock_ms: int,
        model_from: int,
        compacted: int,
        level: int,
    ) -> None: ...

    def refuse(self, refused: Refused) -> None: ...


class _Sessions(OpenSessions, Protocol):
    """Those of the state."""

    def restore(
        self,
        name: bytes,
        floor: int,
        used_ms: int,
        index: int,
        place: int,
        words: bytes,
        answers: bytes,
    ) -> None:
        """Take up a session, in the place of the one that there is."""


class Evaluated(NamedTuple):
    """What entries came to, and all that applying them changes: ``batch`` is to be written,
    ``leases`` are those that changed, None where one is gone; ``sessions`` those that were used,
    in the order of their last use."""

    applied: list[Applied]
    batch: WriteBatch
    standing: Standing
    leases: Mapping[int, LeaseRecord | None]
    alarms: frozenset[tuple[int, int]]
    auth: Auth
    state_hash: int
    clock_ms: int
    level: int
    sessions: Mapping[bytes, Session]


class PreparedOperations:
    """Entries that are about to be applied.

    ``cold``: keys of the engine of which only the disk knows, the first that were met. Once it was
    asked, and :meth:`learn` told, the entries can be applied, if nothing else was meanwhile.
    """

    __slots__ = ("cold", "entries", "evaluated")

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.entries = entries
        self.cold: list[bytes] = []
        self.evaluated: Evaluated | None = None

    def __len__(self) -> int:
        """How many there are: fewer once it is known that they write too much for one slice."""
        return len(self.entries)

    def learn(self, found: Evaluated) -> None:
        """What the entries come to, or the first of them."""
        self.evaluated = found
        self.entries = self.entries[: len(found.applied)]
        self.cold.clear()


class OperationsApplying:
    """Applies entries of operations, in turns with what applies v1's commands.

    ``leases``, ``alarms`` and ``auth`` are those of the state; others may look at them.
    """

    def __init__(
        self,
        db: DB,
        standing: _Standing,
        sessions: _Sessions,
        forgotten_ms: Callable[[], int],
        *,
        plain: bool = False,
    ) -> None:
        """``forgotten_ms``: as in the state's record. ``plain``: nothing is evaluated natively.

        Raises CorruptionError.
        """
        self._db = db
        types = (Applied, PutAnswer, DeleteRangeAnswer, RangeAnswer, TxnAnswer, KeyValue)
        self._evaluator = None if plain else Evaluator(db, *types)
        self._standing = standing
        self._sessions = sessions
        self._forgotten_ms = forgotten_ms
        self.leases: dict[int, LeaseRecord] = {
            decode_lease_key(key): decode_lease(record)
            for key, record in db.iterator(prefix=LEASES)
        }
        self.alarms = frozenset(
            map(decode_alarm_key, db.iterator(prefix=ALARMS, include_value=False))
        )
        standing.refuse(refused_by(self.alarms))
        self.auth = load_auth(db.iterator(prefix=USERS))
        standing.guard = self.auth.guard
        # Compactions that no table knows of yet: by which entry, and up to where.
        self._compactions: deque[tuple[int, int]] = deque()
        self._letting_go = threading.Lock()

    def prepare(self, entries: Sequence[tuple[int, int, bytes]]) -> PreparedOperations:
        """Evaluate the leading entries that carry operations, or nothing, from memory.

        One with a Compact comes alone: what is to be forgotten was seen by all who look at each
        slice. Changes nothing. Raises CorruptionError, StorageError.
        """
        natively = self._prepare_natively(entries)
        if natively is not None:
            return natively
        taken: list[_Entry] = []
        for index, term, data in entries:
            if data and not is_operations(data):
                break
            proposals = decode_operations(data) if data else []
            compacts = any(isinstance(proposal.operation, Compact) for proposal in proposals)
            if compacts and taken:
                break
            taken.append((index, term, data, proposals))
            if compacts:
                break
        prepared = PreparedOperations(taken)
        if _count_operations(taken) > OPERATIONS_AT_ONCE:
            prepared.cold.append(STATE_KEY)
            return prepared
        try:
            evaluated = self._evaluate(taken, MemoryStore(self._db))
        except ColdError as cold:
            prepared.cold.append(cold.key)
            return prepared
        if self._must_retain(evaluated):
            prepared.cold.append(STATE_KEY)
        else:
            prepared.learn(evaluated)
        return prepared

    def _takes_native(self) -> bool:
        """Nothing stands under which a Put or a Txn of single keys is refused, or does more."""
        is_on = self._standing.model_from and self._db.retained_sequence is not None
        refused = refused_by(self.alarms) is not Refused.NOTHING
        return bool(is_on) and not refused and not self.auth.enabled

    def _prepare_natively(
        self, entries: Sequence[tuple[int, int, bytes]]
    ) -> PreparedOperations | None:
        """The same where all that is done is Puts and Txns of single keys, which memory knows."""
        if self._evaluator is None or not self._takes_native():
            return None
        taken = [*takewhile(lambda entry: not entry[2] or is_operations(entry[2]), entries)]
        now = self._standing
        came_to = self._evaluator.evaluate(
            taken, now.revision, now.model_from, now.state_hash, now.clock_ms, self.leases
        )
        if came_to is None:
            return None
        applied, batch, revision, state_hash, clock_ms = came_to
        standing = Standing(revision, now.model_from, now.compacted)
        prepared = PreparedOperations([(index, term, data, ()) for index, term, data in taken])
        prepared.learn(
            Evaluated(
                applied,
                batch,
                standing,
                {},
                self.alarms,
                self.auth,
                state_hash,
                clock_ms,
                now.level,
                {},
            )
        )
        return prepared

    def look_up(self, prepared: PreparedOperations, step: Callable[[], None]) -> Evaluated:
        """What ``prepared`` comes to. May ask the disk; any thread; ``step`` after each answer."""
        evaluated = self._evaluate(prepared.entries, DiskStore(self._db, step))
        if self._must_retain(evaluated):
            # Durable before there is history to keep.
            retain_history(self._db, evaluated.standing.compacted)
        return evaluated

    def _must_retain(self, evaluated: Evaluated) -> bool:
        """The model is enabled by it: that is written to the disk at once, this first time."""
        return bool(evaluated.standing.model_from) and self._db.retained_sequence is None

    def _evaluate(self, entries: Sequence[_Entry], store: Store) -> Evaluated:
        now = self._standing
        before = Standing(now.revision, now.model_from, now.compacted)
        clock_ms = now.clock_ms
        timed: list[TimedEntry] = []
        for index, term, data, proposals in entries:
            if data:
                clock_ms = max(clock_ms, decode_operations_time(data))
            timed.append((index, term, clock_ms, proposals))
        view, answers = evaluate_slice(
            timed,
            lambda: View(
                store,
                before,
                self.leases,
                self.alarms,
                self.auth,
                level=now.level,
                numbering=Numbering(self._sessions),
            ),
        )
        state_hash = now.state_hash
        applied = []
        for (index, term, data, proposals), results in zip(entries, answers, strict=False):
            outcome = bytearray()
            for result in results:
                _append_outcome(outcome, result)
            state_hash = crc32c(data, crc32c(bytes(outcome), state_hash))
            ids = [proposal.id for proposal in proposals]
            applied.append(Applied(index, term, b"", tuple(zip(ids, results, strict=True))))
        return Evaluated(
            applied,
            view.batch,
            view.standing,
            view.leases,
            view.alarms,
            view.auth,
            state_hash,
            timed[len(applied) - 1][2],
            view.level,
            view.numbering.used,
        )

    def apply(self, prepared: PreparedOperations) -> list[Applied]:
        """Apply what was prepared, in memory. What was applied since then makes it wrong."""
        evaluated = prepared.evaluated
        if evaluated is None:
            raise ValueError("what only the disk knows was not looked up")
        now = self._standing
        first, compacted = now.revision, now.compacted
        standing = evaluated.standing
        index, term, _, _ = evaluated.applied[-1]
        stored = StoredState(
            index,
            term,
            standing.revision,
            evaluated.state_hash,
            evaluated.clock_ms,
            self._forgotten_ms(),
            standing.model_from,
            standing.compacted,
            evaluated.level,
        )
        batch = evaluated.batch
        for name, session in evaluated.sessions.items():
            batch.put(SESSIONS + name, encode_session(session), sequence=standing.revision)
        batch.put(STATE_KEY, encode_state(stored), sequence=standing.revision)
        # Before it is written: whoever reads a record with a header knows by then that it has one.
        now.advance(*stored[:5], standing.model_from, standing.compacted, evaluated.level)
        self._db.write(batch, sequence=first, applied_index=index)
        _take_over(self.leases, evaluated.leases)
        for name, session in evaluated.sessions.items():
            self._sessions.restore(name, *session.parts())
        self.alarms = evaluated.alarms
        now.refuse(refused_by(evaluated.alarms))
        self.auth = evaluated.auth
        now.guard = self.auth.guard
        if standing.compacted != compacted:
            self._compactions.append((index, standing.compacted))
        return evaluated.applied

    def let_go(self) -> None:
        """Let go of the history that was given up by compactions which tables know of. Any thread.

        Not before: after a crash the log is applied from there on, and its entries, and whoever
        reads meanwhile, may ask for what a compaction that is still to come gives up.
        """
        if not self._compactions:
            return
        with self._letting_go:
            while self._compactions and self._compactions[0][0] <= self._db.flushed_index:
                retain_history(self._db, self._compactions[0][1])
                self._compactions.popleft()


def _count_operations(entries: Sequence[_Entry]) -> int:
    proposals = [proposal for _, _, _, proposals in entries for proposal in proposals]
    txns = [proposal.operation for proposal in proposals if isinstance(proposal.operation, Txn)]
    return len(proposals) + sum(map(_operations_in, txns))


def _operations_in(txn: Txn) -> int:
    branches = (*txn.success, *txn.failure)
    nested = [operation for operation in branches if isinstance(operation, Txn)]
    return len(txn.compare) + len(branches) + sum(map(_operations_in, nested))


def retain_history(db: DB, compacted: int) -> None:
    """Keep what is to be read at ``compacted`` and later.

    What a key was before it was deleted or replaced at ``compacted`` itself isn't kept, nor is the
    tombstone: that a key was deleted there is in the index of events.
    """
    db.retain_from(max(compacted, 0))


def _take_over(leases: dict[int, LeaseRecord], changes: Mapping[int, LeaseRecord | None]) -> None:
    for lease, record in changes.items():
        if record is None:
            leases.pop(lease, None)
        else:
            leases[lease] = record


def _append_outcome(outcome: bytearray, result: OperationResult | RangeAnswer) -> None:
    """What all members must agree on, as it goes into the state's hash."""
    if isinstance(result, EtcdError):
        outcome.append(_REASONS[result.reason])
        return
    outcome += _REVISION.pack(0, result.revision)
    match result:
        case TxnAnswer(_, succeeded, answers):
            outcome.append(succeeded)
            for answer in answers:
                _append_outcome(outcome, answer)
        case DeleteRangeAnswer(_, deleted, _):
            outcome += _COUNT.pack(deleted)
        case RepeatedAnswer(_, succeeded, deleted):
            outcome.append(succeeded)
            outcome += _COUNT.pack(deleted)
        case RangeAnswer(_, _, _, count):
            outcome += _COUNT.pack(count)
