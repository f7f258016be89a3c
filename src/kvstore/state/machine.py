"""The state machine: applies committed entries to the engine, in order, and answers for them.

Deterministic: every member that has applied the same entries holds the same keys, revision, clock,
sessions, request memory, leases and state hash. What is applied in one go, a *slice* of entries, is
one atomic engine batch together with the applied index, so that no crash can part them (etcd 3.5
did).

Entries are of two sorts, and no slice has both: v1's commands, whose work is done natively
(:mod:`kvstore.state.plain` is the readable form of that, which an option chooses), and operations
of the model (:mod:`kvstore.state.operating`). What lies in the engine: :mod:`kvstore.state.stored`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvstore._engine.database.native import RangeExport, RangeReplacement, TableChecking
from kvstore._state import native
from kvstore._state.native import RequestMemory
from kvstore.engine import DB
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.state.captured import Captured
from kvstore.state.cold import COLD, Cold
from kvstore.state.commands import decode_commands
from kvstore.state.lending import Moment
from kvstore.state.mvcc.answers import EventPage, GatheredAnswer, HashAnswer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.operations import is_operations
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.records import LeaseRecord, decode_event, decode_key, event_key
from kvstore.state.mvcc.requests import Range, Txn
from kvstore.state.operating import (
    Evaluated,
    OperationsApplying,
    PreparedOperations,
    retain_history,
)
from kvstore.state.plain import PlainApplying, PlainPrepared
from kvstore.state.reading import Reading
from kvstore.state.requests import RECORD_HEAD_BYTES, REMEMBERED_REQUESTS, check_record
from kvstore.state.results import Applied, CommandResult, result_of
from kvstore.state.sessions import Session, SessionBounds, Sessions, decode_session
from kvstore.state.stored import REQUESTS, SESSIONS, USER, StoredState, stored_state

__all__ = ["Found", "MemoryBounds", "Prepared", "StateMachine"]

_INDEX = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """What a cluster remembers of its clients. Rules of the replicated state: the same everywhere.

    ``requests``: the newest requests with ids of the client's own making, 40 bytes each.
    """

    requests: int = REMEMBERED_REQUESTS
    sessions: SessionBounds = field(default_factory=SessionBounds)


Prepared = native.Prepared | PlainPrepared | PreparedOperations
"""Entries that are about to be applied, and what they need to know of the state.

``cold``: keys of the engine of which only the disk knows. Once it was told, by ``learn``, the
entries can be applied, if nothing else was meanwhile.
"""

Found = Mapping[bytes, tuple[bytes, int] | None] | Evaluated
"""What ``learn`` of what was prepared gets: see :meth:`StateMachine.look_up`."""


class StateMachine:
    """One member's copy. One thread at a time; owns ``db``."""

    def __init__(self, db: DB, *, memory: MemoryBounds | None = None, plain: bool = False) -> None:
        """Take up from what ``db`` durably holds: everything up to :attr:`applied_index`.

        ``plain``: apply entries by :mod:`kvstore.state.plain`. Raises CorruptionError when the
        stored state contradicts itself.
        """
        self._db = db
        bounds = memory or MemoryBounds()
        stored = stored_state(db) or StoredState()
        # Each write has both: where they differ, tables or rows are missing.
        if stored.applied_index != db.flushed_index:
            raise CorruptionError(
                f"the state is of index {stored.applied_index} but the manifest says "
                f"{db.flushed_index}",
                code=IntegrityCode.INVALID_RECORD,
                path=db.path,
            )
        self._requests = self._load_requests(bounds.requests, stored)
        self._applying: native.Applying | PlainApplying
        sessions: native.Sessions | Sessions
        if plain:
            sessions = Sessions(bounds.sessions, self._stored_sessions())
            self._applying = PlainApplying(db, self._requests, sessions, stored)
        else:
            sessions = native.Sessions(
                bounds.sessions.sessions_max, bounds.sessions.idle_ms, bounds.sessions.spared_ms
            )
            for name, session in self._stored_sessions():
                sessions.restore(name, *session.parts())
            self._applying = native.Applying(
                db,
                self._requests,
                sessions,
                *stored[:5],
                stored.model_from,
                stored.compacted,
                stored.level,
            )
        if stored.model_from:
            # Before the first write: a crash may have forgotten how far it was.
            retain_history(db, stored.compacted)
        requests = self._requests
        self._reading = Reading(db, self._applying)
        self._operations = OperationsApplying(
            db, self._applying, sessions, lambda: requests.forgotten_ms, plain=plain
        )

    def _load_requests(self, capacity: int, stored: StoredState) -> RequestMemory:
        requests = RequestMemory(capacity)
        for key, value in self._db.iterator(prefix=REQUESTS):
            (index,) = _INDEX.unpack(key[len(REQUESTS) :])
            time_ms = check_record(value)
            try:
                requests.load(value, RECORD_HEAD_BYTES, index, time_ms)
            except ValueError as error:
                raise CorruptionError(
                    f"requests of entry {index}: {error}",
                    code=IntegrityCode.INVALID_RECORD,
                    path=self._db.path,
                ) from error
        requests.take_forgotten()
        requests.forgotten_ms = stored.forgotten_ms
        return requests

    def _stored_sessions(self) -> list[tuple[bytes, Session]]:
        """The one that was idle longest first."""
        stored = [
            (key[len(SESSIONS) :], decode_session(value))
            for key, value in self._db.iterator(prefix=SESSIONS)
        ]
        return sorted(stored, key=lambda session: session[1].used)

    @property
    def applying(self) -> native.Applying | PlainApplying:
        """What applies entries: for those who ask it a batch at a time."""
        return self._applying

    @property
    def applied_index(self) -> int:
        """The last entry that was applied."""
        return self._applying.applied_index

    @property
    def applied_term(self) -> int:
        """Its term."""
        return self._applying.applied_term

    @property
    def revision(self) -> int:
        """How many writes were applied; under the model, how many changed something."""
        return self._applying.revision

    @property
    def state_hash(self) -> int:
        """Of all that was ever applied."""
        return self._applying.state_hash

    @property
    def clock_ms(self) -> int:
        """The log's clock: the highest time of any entry applied. Never below 1."""
        return self._applying.clock_ms

    @property
    def model_enabled(self) -> bool:
        """Keys have revisions, history and events: :class:`~kvstore.state.mvcc.EnableModel`."""
        return self._applying.model_from != 0

    @property
    def level(self) -> int:
        """What entries may have: 0 while the model is off, else see
        :class:`~kvstore.state.mvcc.requests.RaiseLevel`."""
        return self._applying.level

    @property
    def compacted(self) -> int:
        """Below this revision history was given up; -1 where all of it is there."""
        return self._applying.compacted

    def apply(self, entries: Sequence[tuple[int, int, bytes]]) -> list[Applied]:
        """Apply ``(index, term, data)`` entries in ascending order, a slice after the other.

        ``data`` is empty for an entry that carries nothing (a new leader's, a membership): only the
        applied index moves. Raises CorruptionError for data that is neither a batch of commands nor
        one of operations, and StorageError when the engine can't take it; the machine is then not
        to be used again.

        This may ask the disk; :meth:`prepare` and :meth:`apply_prepared` are its two parts for
        those who must not.
        """
        answers: list[Applied] = []
        while len(answers) < len(entries):
            prepared = self.prepare(entries[len(answers) :])
            if prepared.cold:
                prepared.learn(self.look_up(prepared))  # type: ignore[arg-type]  # it is its own
            answers += self.apply_prepared(prepared)
        return answers

    def prepare(self, entries: Sequence[tuple[int, int, bytes]]) -> Prepared:
        """The next slice of ``entries``: so many of the first of them as are of one sort.

        Decodes them, and finds out from memory what they need to know of the state. Changes
        nothing. Raises CorruptionError, StorageError.
        """
        if is_operations(entries[0][2]):
            return self._operations.prepare(entries)
        try:
            return self._applying.prepare(entries)
        except ValueError:
            for _, _, data in entries:
                if is_operations(data):
                    break
                if data:
                    decode_commands(data)  # says what is wrong with it
            raise

    def look_up(self, prepared: Prepared, step: Callable[[], None] = lambda: None) -> Found:
        """What the disk says of all that is cold. Any thread; ``step`` is called at each answer."""
        if isinstance(prepared, PreparedOperations):
            return self._operations.look_up(prepared, step)
        found = {}
        for key in tuple(prepared.cold):
            found[key] = self._db.get_versioned(key)
            step()
        return found

    def apply_prepared(self, prepared: Prepared) -> list[Applied]:
        """Apply what was prepared, in memory. What was applied since then makes it wrong."""
        self._operations.let_go()
        if isinstance(prepared, PreparedOperations):
            return self._operations.apply(prepared)
        return [Applied(*applied) for applied in self._applying.apply(prepared)]  # type: ignore[arg-type]

    def get(self, key: bytes) -> bytes | None:
        """The value of a user key as of :attr:`applied_index`. May ask the disk; any thread."""
        return self._value(key, self._db.get_versioned(USER + key))

    def get_cached(self, key: bytes) -> bytes | Cold | None:
        """As :meth:`get`, but :data:`COLD` where that would have to ask the disk."""
        version = self._db.get_versioned_cached(USER + key, cold=COLD)
        return COLD if version is COLD else self._value(key, version)

    def _value(self, key: bytes, version: tuple[bytes, int] | None) -> bytes | None:
        # Asked after the record was read: the model may have been enabled meanwhile.
        model_from = self._applying.model_from
        if version is None or not model_from:
            return version and version[0]
        return decode_key(key, *version, model_from).value

    # --- the model -----------------------------------------------------------------------------
    # What asks the disk may be asked on any thread. These raise StorageError and ClosedError, and
    # EtcdError where what is asked for is refused: all but events while the model is off.

    def read_range(self, asked: Range, step: Callable[[], None] = lambda: None) -> RangeAnswer:
        """The answer to a Range. May ask the disk; ``step`` is called now and then, however little
        is found, and ends it by what it raises."""
        return self._reading.range(asked, step)

    def gather_range(
        self, asked: Range, make: MakeGathered, step: Callable[[], None] = lambda: None
    ) -> GatheredAnswer | RangeAnswer:
        """The same, its keys in what ``make`` makes, unless they are filtered or sorted anew."""
        return self._reading.gather(asked, make, step)

    def read_range_cached(self, asked: Range) -> RangeAnswer | Cold:
        """The same from memory; :data:`COLD` where that isn't enough, as for more than one key."""
        return self._reading.range_cached(asked)

    def read_keys_cached(self, keys: list[bytes]) -> list[RangeAnswer | None]:
        """The answers to Ranges of single keys, from memory; None where that isn't enough, and for
        those after the first MiB of values."""
        return self._reading.keys_cached(keys)

    def read_txn(self, asked: Txn, step: Callable[[], None] = lambda: None) -> TxnAnswer:
        """The answer to a Txn that only reads, as :meth:`read_range`."""
        return self._reading.txn(asked, step)

    def events(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool = False,
        wanted: Callable[[bytes], bool] | None = None,
        sub: int = 0,
    ) -> EventPage:
        """What changed from revision ``first`` to ``last``: see
        :func:`kvstore.state.mvcc.reads.read_events`. May ask the disk."""
        return self._reading.events(first, last, bytes_max, previous, wanted, sub)

    def events_cached(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool = False,
        wanted: Callable[[bytes], bool] | None = None,
    ) -> EventPage | Cold:
        """The same of whole revisions, from memory; :data:`COLD` where that isn't enough."""
        return self._reading.events_cached(first, last, bytes_max, previous, wanted)

    def hash_kv(self, revision: int) -> HashAnswer:
        """A hash of all that can be read up to ``revision``, 0 for now: equal on all members."""
        return self._reading.hash(revision)

    def reclaim(self) -> None:
        """Give back the room of what was compacted. Takes long; any thread."""
        self.flush()
        self._reading.reclaim()

    def leases(self) -> Mapping[int, LeaseRecord]:
        """All leases by their ids, as of now and from here on. On the thread that applies."""
        return self._operations.leases

    def lease_keys(self, lease: int, step: Callable[[], None] = lambda: None) -> tuple[bytes, ...]:
        """The keys on a lease, ascending. May ask the disk; ``step`` as of :meth:`read_range`."""
        return self._reading.lease_keys(lease, step)

    @property
    def alarms(self) -> frozenset[tuple[int, int]]:
        """``(member, kind)`` of those that stand."""
        return self._operations.alarms

    @property
    def auth(self) -> Auth:
        """Users, roles and what they may do, as of now. On the thread that applies; what it gives
        is for any."""
        return self._operations.auth

    @property
    def guard(self) -> int:
        """The revision of the users while they are asked for, else 0."""
        return self._applying.guard

    def first_result(
        self, request: bytes, fingerprint: bytes, sequence: int = 0
    ) -> CommandResult | None:
        """What an applied request got, or why it is refused as another one's.

        None when that isn't remembered: the log is to decide, since what it holds and isn't applied
        yet may open the session or be the request.
        """
        code = self._applying.first_result(request, fingerprint, sequence)
        return None if code is None else result_of(code)

    @property
    def durable_index(self) -> int:
        """Up to here the engine's tables hold everything: the log may forget it."""
        return self._db.flushed_index

    def has_room(self) -> bool:
        """The next batch can be applied. If not, :meth:`make_room` waits until it can be.

        Raises StorageError, ``retryable``, while the engine lacks room for it.
        """
        return self._db.make_room(wait=False)

    def make_room(self) -> None:
        """Wait until :meth:`has_room`; any thread."""
        self._db.make_room()

    @property
    def write_delay_s(self) -> float:
        """How long to hold the next entry back, so that compactions can keep up; mostly 0."""
        return self._db.write_delay

    def flush(self) -> None:
        """Bring everything applied into durable tables; :attr:`durable_index` follows."""
        self._db.flush()
        self._operations.let_go()

    def verify(self) -> None:
        """Read and check every byte of the tables; raises CorruptionError at the first bad one."""
        self._db.verify()

    def rewrite_manifest(self) -> None:
        """Write the engine's manifest anew, from memory."""
        self._db.rewrite_manifest()

    @property
    def moment(self) -> Moment:
        """What its rows are of: see :mod:`kvstore.state.lending`."""
        revision, compacted = self.revision, self.compacted
        # Nobody reads what was before.
        keep_from = max(compacted, self._applying.model_from) if self.model_enabled else revision
        return Moment(self.applied_index, revision, compacted, min(keep_from, revision))

    def lend(self, moment: Moment) -> RangeExport | None:
        """Hold the rows of ``moment`` for a member that stands at it; None where they can't be had
        any more. On the thread that applies."""
        if self.applied_index < moment.applied or self.compacted != moment.compacted:
            return None
        return self._db.export_range(sequence=moment.revision, keep_from=moment.keep_from)

    def replace_rows(self, low: bytes, high: bytes) -> RangeReplacement:
        """Begin to replace the rows of [low, high) by another member's of this very moment."""
        return self._db.replace_range(low, high, keep_from=self.moment.keep_from)

    def damage_of_table(self, number: int) -> tuple[bytes, bytes, int, int] | None:
        """What a damaged table of the engine may have lost: keys in [first, second); about how many
        bytes are stored of them, and how many in all. None where it is gone. Takes long; any
        thread."""
        return self._db.damage_of_table(number)

    @property
    def damaged_tables(self) -> tuple[StorageError, ...]:
        """What compactions met, and leave alone."""
        return self._db.damaged_tables_met

    def live_tables(self) -> list[tuple[int, int]]:
        """The number and the bytes of each table of the engine. Any thread, as the next two."""
        return self._db.live_tables()

    def check_table(self, number: int) -> TableChecking | None:
        """A check of one of them, a piece at a time; None where it is gone."""
        return self._db.check_table(number)

    def check_small_files(self) -> int:
        """Check the engine's identity and manifest as they are on the disk; their bytes."""
        return self._db.check_small_files()

    def checkpoint(self, path: str) -> None:
        """Make ``path`` a durable copy of this very state (hard links)."""
        self._db.checkpoint(path)

    def newest_key(self) -> bytes | None:
        """The user key that changed last; None where memory doesn't know, or the model is off."""
        change = self._db.get_versioned_cached(event_key(self.revision, 0), cold=None)
        return None if change is None else decode_event(change[0]).key

    def capture(self) -> Captured:
        """The rows of this very moment, for members to compare. To be closed by whoever asked."""
        return Captured(self._db)

    def statistics(self) -> dict[str, object]:
        """The engine's counters."""
        return dict(self._db.stats())

    @property
    def stored_bytes(self) -> int:
        """What the state takes in tables and in memory."""
        stats = self._db.stats()
        return int(stats["table_bytes"]) + int(stats["memtable_bytes"])

    @property
    def remembered(self) -> tuple[int, int, int]:
        """Plain requests that are remembered, the bytes that they take, and open sessions."""
        return len(self._requests), self._requests.memory_bytes, self._applying.open_sessions

    def close(self) -> None:
        """Close the engine; what is not in tables comes back from the log."""
        self._db.close()
