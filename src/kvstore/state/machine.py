"""The state machine: applies committed entries to the engine, in order, and answers for them.

Deterministic: every member that has applied the same entries holds the same keys, revision, clock,
sessions, request memory and state hash. What one call applies is one atomic engine batch together
with the applied index, so that no crash can part them (etcd 3.5 did).

Keys in the engine:

| key | value |
|---|---|
| 01 + user key | the value, at the sequence that is its revision |
| 00 "state" | version, applied index, its term, revision, state hash, clock, ... (see ``_STATE``) |
| 00 "request" + u64 big-endian entry index | the plain requests of that entry (requests.py) |
| 00 "session" + 16 bytes | a client's session (sessions.py) |
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kvstore._engine.primitives.native import crc32c
from kvstore._state.native import RequestMemory
from kvstore.engine import DB, WriteBatch
from kvstore.errors import (
    CorruptionError,
    Error,
    ForgottenError,
    IntegrityCode,
    InvalidArgumentError,
    Refusal,
    ResourceExhaustedError,
)
from kvstore.state.commands import Command, CommandKind, decode_commands, decode_time
from kvstore.state.requests import (
    RECORD_HEAD_BYTES,
    REMEMBERED_REQUESTS,
    check_record,
    encode_record,
    word_of,
)
from kvstore.state.sessions import SessionBounds, Sessions, decode_session, encode_session

__all__ = [
    "COLD",
    "Applied",
    "Cold",
    "CommandResult",
    "MemoryBounds",
    "Prepared",
    "StateMachine",
    "StoredState",
    "stored_state",
]

_USER = b"\x01"
_STATE_KEY = b"\x00state"
_REQUESTS = b"\x00request"
_SESSIONS = b"\x00session"
_INDEX = struct.Struct(">Q")
_STATE_VERSION = 2
_STATE = struct.Struct("<BQQQIQQ")
_PUT = int(CommandKind.PUT)
_OPEN = int(CommandKind.OPEN_SESSION)


class Cold(enum.Enum):
    """What memory can't tell, and the disk wasn't asked."""

    COLD = enum.auto()


COLD: Final = Cold.COLD

CommandResult = bool | Error
"""Whether the key had a value, or why the command was refused."""

_REUSED = "request_id was used before for another operation, key or value"
_NO_ROOM = "too many sessions are open, none of them idle; requests without one are served"


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """What a cluster remembers of its clients. Rules of the replicated state: the same everywhere.

    ``requests``: the newest requests with ids of the client's own making, 40 bytes each.
    """

    requests: int = REMEMBERED_REQUESTS
    sessions: SessionBounds = field(default_factory=SessionBounds)


class Applied(NamedTuple):
    """The results of one entry's commands, in their order."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    results: Sequence[CommandResult]


class Prepared:
    """Entries that are about to be applied, and what they need to know of the state.

    ``cold``: keys of the engine of which only the disk knows whether they have a value. Once
    :attr:`present` holds all of them the entries can be applied, if nothing else was meanwhile.
    """

    __slots__ = ("cold", "entries", "present")

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, bytes, Sequence[Command]]] = []
        self.present: dict[bytes, bool] = {}
        self.cold: list[bytes] = []


class StoredState(NamedTuple):
    """How far a stored state is, the hash of all that was applied to it, and its memory of time.

    ``clock_ms``: of the log. ``forgotten_ms``: when the newest request was applied that isn't
    remembered any more, 0 if all are.
    """

    applied_index: int = 0
    applied_term: int = 0
    revision: int = 0
    state_hash: int = 0
    clock_ms: int = 1
    forgotten_ms: int = 0


def stored_state(db: DB) -> StoredState | None:
    """What ``db`` says of itself; None where nothing was ever applied. Raises CorruptionError."""
    stored = db.get(_STATE_KEY)
    if stored is None:
        return None
    if len(stored) != _STATE.size or stored[0] != _STATE_VERSION:
        raise CorruptionError(
            f"the state record has format {stored[0] if stored else 'none'}, this program reads "
            f"format {_STATE_VERSION}",
            code=IntegrityCode.UNSUPPORTED_VERSION,
            path=db.path,
        )
    return StoredState(*_STATE.unpack(stored)[1:])


class StateMachine:
    """One member's copy. One thread at a time; owns ``db``."""

    def __init__(self, db: DB, *, memory: MemoryBounds | None = None) -> None:
        """Take up from what ``db`` durably holds: everything up to :attr:`applied_index`.

        Raises CorruptionError when the stored state contradicts itself.
        """
        self._db = db
        self._load(memory or MemoryBounds())

    def _load(self, memory: MemoryBounds) -> None:
        stored = stored_state(self._db) or StoredState()
        self.applied_index = stored.applied_index
        self.applied_term = stored.applied_term
        self.revision = stored.revision
        self.state_hash = stored.state_hash
        self.clock_ms = stored.clock_ms
        """The log's clock: the highest time of any entry applied. Never below 1."""
        if self.applied_index > self._db.flushed_index:
            raise CorruptionError(
                f"the state is of index {self.applied_index} but the manifest says "
                f"{self._db.flushed_index}",
                code=IntegrityCode.INVALID_RECORD,
                path=self._db.path,
            )
        self._requests = RequestMemory(memory.requests)
        for key, value in self._db.iterator(prefix=_REQUESTS):
            (index,) = _INDEX.unpack(key[len(_REQUESTS) :])
            time_ms = check_record(value)
            try:
                self._requests.load(value, RECORD_HEAD_BYTES, index, time_ms)
            except ValueError as error:
                raise CorruptionError(
                    f"requests of entry {index}: {error}",
                    code=IntegrityCode.INVALID_RECORD,
                    path=self._db.path,
                ) from error
        self._requests.take_forgotten()
        self._requests.forgotten_ms = stored.forgotten_ms
        self._sessions = Sessions(
            memory.sessions,
            [
                (key[len(_SESSIONS) :], decode_session(value))
                for key, value in self._db.iterator(prefix=_SESSIONS)
            ],
        )

    def apply(self, entries: Sequence[tuple[int, int, bytes]]) -> list[Applied]:
        """Apply ``(index, term, data)`` entries in ascending order, as one engine batch.

        ``data`` is empty for an entry that is no command (a new leader's, a membership): only the
        applied index moves. Raises CorruptionError for data that isn't a batch of commands, and
        StorageError when the engine can't take it; the machine is then not to be used again.

        This may ask the disk; :meth:`prepare` and :meth:`apply_prepared` are its two parts for
        those who must not.
        """
        prepared = self.prepare(entries)
        prepared.present.update(self.look_up(prepared.cold))
        return self.apply_prepared(prepared)

    def prepare(self, entries: Sequence[tuple[int, int, bytes]]) -> Prepared:
        """Decode entries and find out of the keys that they write which have a value, from memory.

        Changes nothing. Raises CorruptionError, StorageError.
        """
        prepared = Prepared()
        has_value = self._db.contains_cached
        present = prepared.present
        for index, term, data in entries:
            commands = decode_commands(data) if data else ()
            prepared.entries.append((index, term, data, commands))
            for command in commands:
                if command.kind == _OPEN:
                    continue
                stored_key = _USER + command.key
                if stored_key in present:
                    continue
                known = has_value(stored_key)
                if known is None:
                    prepared.cold.append(stored_key)
                else:
                    present[stored_key] = known
        return prepared

    def look_up(self, stored_keys: Iterable[bytes]) -> dict[bytes, bool]:
        """Which keys of the engine have a value. May ask the disk; any thread."""
        return {key: key in self._db for key in stored_keys}

    def apply_prepared(self, prepared: Prepared) -> list[Applied]:
        """Apply what was prepared, in memory. What was applied since then makes it wrong."""
        batch = WriteBatch()
        first = self.revision
        # Of what this very call writes the engine can't tell yet.
        present = prepared.present
        answers = [
            Applied(
                index,
                term,
                self._apply_entry(index, data, commands, batch, present) if data else (),
            )
            for index, term, data, commands in prepared.entries
        ]
        last = answers[-1]
        self.applied_index = last.index
        self.applied_term = last.term
        stored = StoredState(
            last.index,
            last.term,
            self.revision,
            self.state_hash,
            self.clock_ms,
            self._requests.forgotten_ms,
        )
        batch.put(_STATE_KEY, _STATE.pack(_STATE_VERSION, *stored), sequence=self.revision)
        self._db.write(batch, sequence=first, applied_index=last.index)
        return answers

    def _apply_entry(
        self,
        index: int,
        data: bytes,
        commands: Sequence[Command],
        batch: WriteBatch,
        present: dict[bytes, bool],
    ) -> list[CommandResult]:
        now_ms = self.clock_ms = max(self.clock_ms, decode_time(data))
        for name in self._sessions.expire(now_ms):
            batch.delete(_SESSIONS + name, sequence=self.revision)
        results: list[CommandResult] = []
        # Plain requests that are applied, and sessions that are used.
        fresh: list[tuple[bytes, int]] = []
        used: dict[bytes, None] = {}
        for place, command in enumerate(commands):
            if command.sequence:
                result = self._apply_of_session(command, (index, place), used, batch, present)
            elif command.kind != _OPEN:
                result = self._apply_plain(command, index, fresh, batch, present)
            else:
                result = self._open_session(command.request, (index, place), used, batch)
            results.append(result)
        if fresh:
            record = encode_record(now_ms, fresh)
            batch.put(_REQUESTS + _INDEX.pack(index), record, sequence=self.revision)
            for old in self._requests.take_forgotten():
                batch.delete(_REQUESTS + _INDEX.pack(old), sequence=self.revision)
        for name in used:
            session = self._sessions.find(name, now_ms)
            if session is not None:
                batch.put(_SESSIONS + name, encode_session(session), sequence=self.revision)
        self.state_hash = crc32c(data, crc32c(bytes([*map(_hash_byte, results)]), self.state_hash))
        return results

    def _apply_plain(
        self,
        command: Command,
        index: int,
        fresh: list[tuple[bytes, int]],
        batch: WriteBatch,
        present: dict[bytes, bool],
    ) -> CommandResult:
        """A write with an id of the client's own making."""
        word = word_of(command.fingerprint)
        requests = self._requests
        known = requests.find(command.request)
        if known:
            return _first_result(known, word)
        since = command.since
        if since is not None and 0 < requests.forgotten_ms >= since:
            return ForgottenError(Refusal.REQUEST_FORGOTTEN)
        existed = self._write(command, batch, present)
        requests.add(command.request, word | existed, index, self.clock_ms)
        fresh.append((command.request, word | existed))
        return existed

    def _apply_of_session(
        self,
        command: Command,
        used_at: tuple[int, int],
        used: dict[bytes, None],
        batch: WriteBatch,
        present: dict[bytes, bool],
    ) -> CommandResult:
        """A write that a session numbered."""
        session = self._sessions.use(command.request, self.clock_ms, used_at)
        if session is None:
            return ForgottenError(Refusal.SESSION_EXPIRED)
        used[command.request] = None
        session.advance(command.floor)
        sequence = command.sequence
        if sequence < session.floor:
            return ForgottenError(Refusal.SEQUENCE_PASSED)
        word = word_of(command.fingerprint)
        known = session.find(sequence)
        if known:
            return _first_result(known, word)
        existed = self._write(command, batch, present)
        session.remember(sequence, word | existed)
        return existed

    def _open_session(
        self, name: bytes, used_at: tuple[int, int], used: dict[bytes, None], batch: WriteBatch
    ) -> CommandResult:
        gone = self._sessions.make_room(self.clock_ms)
        if gone is None:
            return ResourceExhaustedError(_NO_ROOM)
        if gone:
            batch.delete(_SESSIONS + gone, sequence=self.revision)
        used[name] = None
        return self._sessions.open(name, self.clock_ms, used_at)

    def _write(self, command: Command, batch: WriteBatch, present: dict[bytes, bool]) -> bool:
        """Do it, whatever its id; returns whether the key had a value."""
        stored_key = _USER + command.key
        existed = present[stored_key]
        self.revision += 1
        if command.kind == _PUT:
            batch.put(stored_key, command.value, sequence=self.revision)
            present[stored_key] = True
        elif existed:
            batch.delete(stored_key, sequence=self.revision)
            present[stored_key] = False
        return existed

    def get(self, key: bytes) -> bytes | None:
        """The value of a user key as of :attr:`applied_index`. May ask the disk; any thread."""
        value: bytes | None = self._db.get(_USER + key)
        return value

    def get_cached(self, key: bytes) -> bytes | Cold | None:
        """As :meth:`get`, but :data:`COLD` where that would have to ask the disk."""
        value: bytes | Cold | None = self._db.get_cached(_USER + key, cold=COLD)
        return value

    def first_result(
        self, request: bytes, fingerprint: bytes, sequence: int = 0
    ) -> CommandResult | None:
        """What an applied request got, or why it is refused as another one's.

        None when that isn't remembered: the log is to decide, since what it holds and isn't applied
        yet may open the session or be the request.
        """
        if sequence:
            session = self._sessions.find(request, self.clock_ms)
            known = session.find(sequence) if session and sequence >= session.floor else 0
        else:
            known = self._requests.find(request)
        return _first_result(known, word_of(fingerprint)) if known else None

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

    def verify(self) -> None:
        """Read and check every byte of the tables; raises CorruptionError at the first bad one."""
        self._db.verify()

    def checkpoint(self, path: str) -> None:
        """Make ``path`` a durable copy of this very state (hard links)."""
        self._db.checkpoint(path)

    def statistics(self) -> dict[str, object]:
        """The engine's counters."""
        return dict(self._db.stats())

    @property
    def remembered(self) -> tuple[int, int, int]:
        """Plain requests that are remembered, the bytes that they take, and open sessions."""
        return len(self._requests), self._requests.memory_bytes, len(self._sessions)

    def close(self) -> None:
        """Close the engine; what is not in tables comes back from the log."""
        self._db.close()


def _first_result(known: int, word: int) -> CommandResult:
    return bool(known & 1) if known & ~1 == word else InvalidArgumentError(_REUSED)


_REFUSALS = tuple(Refusal)


def _hash_byte(result: CommandResult) -> int:
    if isinstance(result, bool):
        return int(result)
    if isinstance(result, ForgottenError):
        return 4 + _REFUSALS.index(result.refusal)
    return 2 if isinstance(result, InvalidArgumentError) else 3
