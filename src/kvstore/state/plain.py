"""Entries applied one command after another: the readable form of what runs natively.

:class:`kvstore._state.native.Applying` does the same, in one call for each slice of entries; tests
and the simulator hold the two against each other. Keys of the engine: see
:mod:`kvstore.state.machine`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from kvstore._engine.primitives.native import crc32c
from kvstore._state.native import RequestMemory
from kvstore.engine import DB, WriteBatch
from kvstore.errors import (
    ForgottenError,
    InvalidArgumentError,
    Refusal,
    ResourceExhaustedError,
    UnavailableError,
)
from kvstore.state.cold import COLD
from kvstore.state.commands import (
    Command,
    CommandKind,
    decode_commands,
    decode_guard,
    decode_time,
)
from kvstore.state.mvcc.alarms import Refused
from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.operations import is_operations
from kvstore.state.mvcc.records import (
    attachment_key,
    decode_key,
    encode_event,
    encode_key,
    event_key,
)
from kvstore.state.requests import encode_record, word_of
from kvstore.state.results import (
    NO_ROOM,
    REUSED,
    USERS_CHANGED,
    CommandResult,
    code_of,
    refused_by_alarm,
)
from kvstore.state.sessions import Sessions, encode_session
from kvstore.state.stored import REQUESTS, SESSIONS, STATE_KEY, USER, StoredState, encode_state

__all__ = ["PlainApplying", "PlainPrepared"]

_INDEX = struct.Struct(">Q")
_PUT = int(CommandKind.PUT)
_OPEN = int(CommandKind.OPEN_SESSION)
_NEVER = 1 << 63
"""As the revision from which on records have headers, where the model is off."""

Present = dict[bytes, KeyValue | None]
"""What keys of the engine hold before the next command. While the model is off only whether they
hold anything means something."""


class PlainPrepared:
    """Entries that are about to be applied, and what they need to know of the state.

    ``cold``: keys of the engine of which only the disk knows whether they have a value. Once it
    was told (:meth:`learn`) the entries can be applied, if nothing else was meanwhile.
    """

    __slots__ = ("_model_from", "cold", "entries", "present")

    def __init__(self, model_from: int) -> None:
        self.entries: list[tuple[int, int, bytes, Sequence[Command]]] = []
        self.present: Present = {}
        self.cold: list[bytes] = []
        self._model_from = model_from or _NEVER

    def __len__(self) -> int:
        return len(self.entries)

    def learn(self, found: Mapping[bytes, tuple[bytes, int] | None]) -> None:
        """What the disk said of all that was cold."""
        for stored_key, version in found.items():
            self.see(stored_key, version)
        self.cold.clear()

    def see(self, stored_key: bytes, version: tuple[bytes, int] | None) -> None:
        """A key has this record of this sequence, or none."""
        self.present[stored_key] = version and decode_key(
            stored_key[len(USER) :], *version, self._model_from
        )


class PlainApplying:
    """See the stub of :class:`kvstore._state.native.Applying`."""

    def __init__(
        self, db: DB, requests: RequestMemory, sessions: Sessions, stored: StoredState
    ) -> None:
        self._db = db
        self._requests = requests
        self._sessions = sessions
        self.applied_index = stored.applied_index
        self.applied_term = stored.applied_term
        self.revision = stored.revision
        self.state_hash = stored.state_hash
        self.clock_ms = stored.clock_ms
        self.model_from = stored.model_from
        self.compacted = stored.compacted
        self._refused = Refused.NOTHING
        self.guard = 0
        self.level = stored.level

    @property
    def open_sessions(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def prepare(self, entries: Sequence[tuple[int, int, bytes]]) -> PlainPrepared:
        """Decode entries and find out of the keys that they write which have a value, from memory.

        Changes nothing. Raises CorruptionError, StorageError.
        """
        prepared = PlainPrepared(self.model_from)
        look = self._db.get_versioned_cached
        for index, term, data in entries:
            if is_operations(data) and prepared.entries:
                break  # they are another slice
            commands = decode_commands(data) if data else ()
            prepared.entries.append((index, term, data, commands))
            for command in commands:
                if command.kind == _OPEN:
                    continue
                stored_key = USER + command.key
                if stored_key in prepared.present or stored_key in prepared.cold:
                    continue
                version = look(stored_key, cold=COLD)
                if version is COLD:
                    prepared.cold.append(stored_key)
                else:
                    prepared.see(stored_key, version)
        return prepared

    def apply(self, prepared: PlainPrepared) -> list[tuple[int, int, bytes]]:
        """Apply what was prepared, in memory. What was applied since then makes it wrong.

        Of each entry its index, its term, and a byte for the result of each of its commands.
        """
        if prepared.cold:
            raise ValueError("what only the disk knows was not looked up")
        batch = WriteBatch()
        first = self.revision
        # Of what this very call writes the engine can't tell yet.
        present = prepared.present
        answers = [
            (
                index,
                term,
                self._apply_entry(index, data, commands, batch, present) if data else b"",
            )
            for index, term, data, commands in prepared.entries
        ]
        self.applied_index, self.applied_term, _ = answers[-1]
        stored = StoredState(
            self.applied_index,
            self.applied_term,
            self.revision,
            self.state_hash,
            self.clock_ms,
            self._requests.forgotten_ms,
            self.model_from,
            self.compacted,
            self.level,
        )
        batch.put(STATE_KEY, encode_state(stored), sequence=self.revision)
        self._db.write(batch, sequence=first, applied_index=self.applied_index)
        return answers

    def _apply_entry(
        self,
        index: int,
        data: bytes,
        commands: Sequence[Command],
        batch: WriteBatch,
        present: Present,
    ) -> bytes:
        now_ms = self.clock_ms = max(self.clock_ms, decode_time(data))
        for name in self._sessions.expire(now_ms):
            batch.delete(SESSIONS + name, sequence=self.revision)
        results: list[CommandResult] = []
        # Plain requests that are applied, and sessions that are used.
        fresh: list[tuple[bytes, int]] = []
        used: dict[bytes, None] = {}
        is_old = self.guard not in (0, decode_guard(data))
        for place, command in enumerate(commands):
            result: CommandResult
            if is_old:
                result = UnavailableError(USERS_CHANGED)
            elif command.sequence:
                result = self._apply_of_session(command, (index, place), used, batch, present)
            elif command.kind != _OPEN:
                result = self._apply_plain(command, index, fresh, batch, present)
            else:
                result = self._open_session(command.request, (index, place), used, batch)
            results.append(result)
        if fresh:
            record = encode_record(now_ms, fresh)
            batch.put(REQUESTS + _INDEX.pack(index), record, sequence=self.revision)
            for old in self._requests.take_forgotten():
                batch.delete(REQUESTS + _INDEX.pack(old), sequence=self.revision)
        for name in used:
            session = self._sessions.find(name, now_ms)
            if session is not None:
                batch.put(SESSIONS + name, encode_session(session), sequence=self.revision)
        codes = bytes(map(code_of, results))
        self.state_hash = crc32c(data, crc32c(codes, self.state_hash))
        return codes

    def _apply_plain(
        self,
        command: Command,
        index: int,
        fresh: list[tuple[bytes, int]],
        batch: WriteBatch,
        present: Present,
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
        if self._refuses(command):
            return refused_by_alarm(self._refused)
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
        present: Present,
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
        if self._refuses(command):
            return refused_by_alarm(self._refused)
        existed = self._write(command, batch, present)
        session.remember(sequence, word | existed)
        return existed

    def _open_session(
        self, name: bytes, used_at: tuple[int, int], used: dict[bytes, None], batch: WriteBatch
    ) -> CommandResult:
        gone = self._sessions.make_room(self.clock_ms)
        if gone is None:
            return ResourceExhaustedError(NO_ROOM)
        if gone:
            batch.delete(SESSIONS + gone, sequence=self.revision)
        used[name] = None
        return self._sessions.open(name, self.clock_ms, used_at)

    def _refuses(self, command: Command) -> bool:
        """An alarm stands. It isn't remembered, so that a retry is done once the alarm is over."""
        return self._refused is Refused.WRITES or (
            self._refused is Refused.PUTS and command.kind == _PUT
        )

    def _write(self, command: Command, batch: WriteBatch, present: Present) -> bool:
        """Do it, whatever its id; returns whether the key had a value."""
        stored_key = USER + command.key
        before = present[stored_key]
        is_put = command.kind == _PUT
        if self.model_from and not (is_put or before):
            return False  # nothing changes: no revision
        revision = self.revision = self.revision + 1
        after = None
        if is_put:
            after = KeyValue(command.key, revision, revision, 1, command.value, 0)
            if before:
                after = after._replace(
                    create_revision=before.create_revision, version=before.version + 1
                )
            record = command.value
            if self.model_from:
                record = encode_key(after.create_revision, after.version, 0, command.value)
            batch.put(stored_key, record, sequence=revision)
        elif before:
            batch.delete(stored_key, sequence=revision)
        if self.model_from:
            changed = before.mod_revision if before else 0
            event = encode_event(not is_put, command.key, changed)
            batch.put(event_key(revision, 0), event, sequence=revision)
            if before and before.lease:
                batch.delete(attachment_key(before.lease, command.key), sequence=revision)
        present[stored_key] = after
        return before is not None

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
    ) -> None:
        """Something else was applied, which brought the state so far."""
        self.applied_index = applied_index
        self.applied_term = applied_term
        self.revision = revision
        self.state_hash = state_hash
        self.clock_ms = clock_ms
        self.model_from = model_from
        self.compacted = compacted
        self.level = level

    def refuse(self, refused: Refused) -> None:
        """What is refused from here on, but for requests that were applied before."""
        self._refused = refused

    def first_result(self, request: bytes, fingerprint: bytes, sequence: int = 0) -> int | None:
        """The byte of :meth:`kvstore.state.StateMachine.first_result`."""
        if sequence:
            session = self._sessions.find(request, self.clock_ms)
            known = session.find(sequence) if session and sequence >= session.floor else 0
        else:
            known = self._requests.find(request)
        return code_of(_first_result(known, word_of(fingerprint))) if known else None


def _first_result(known: int, word: int) -> CommandResult:
    return bool(known & 1) if known & ~1 == word else InvalidArgumentError(REUSED)
