"""The state machine: applies committed entries to the engine, in order, and answers for them.

Deterministic: every member that has applied the same entries holds the same keys, revision, request
memory and state hash. What one call applies is one atomic engine batch together with the applied
index, so that no crash can part them (etcd 3.5 did).

Keys in the engine:

| key | value |
|---|---|
| 01 + user key | the value, at the sequence that is its revision |
| 00 "state" | version, applied index, its term, revision, state hash (see ``_STATE``) |
| 00 "request" + u64 big-endian entry index | the writes of that entry (requests.py) |
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from kvstore._engine.primitives.native import crc32c
from kvstore.engine import DB, WriteBatch
from kvstore.errors import CorruptionError, IntegrityCode, InvalidArgumentError
from kvstore.state.commands import CommandKind, decode_commands
from kvstore.state.requests import (
    REMEMBERED_REQUESTS,
    Remembered,
    RequestMemory,
    decode_record,
    encode_record,
)

__all__ = ["Applied", "CommandResult", "StateMachine", "StoredState", "stored_state"]

_USER = b"\x01"
_STATE_KEY = b"\x00state"
_REQUESTS = b"\x00request"
_INDEX = struct.Struct(">Q")
_STATE_VERSION = 1
_STATE = struct.Struct("<BQQQI")
_PUT = int(CommandKind.PUT)

CommandResult = bool | InvalidArgumentError
"""Whether the key had a value, or why the command was refused."""

_REUSED = "request_id was used before for another operation, key or value"


class Applied(NamedTuple):
    """The results of one entry's commands, in their order."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    results: Sequence[CommandResult]


class StoredState(NamedTuple):
    """How far a stored state is, and the hash of all that was applied to it."""

    applied_index: int
    applied_term: int
    revision: int
    state_hash: int


def stored_state(db: DB) -> StoredState | None:
    """What ``db`` says of itself; None where nothing was ever applied. Raises CorruptionError."""
    stored = db.get(_STATE_KEY)
    if stored is None:
        return None
    if len(stored) != _STATE.size or stored[0] != _STATE_VERSION:
        raise CorruptionError(
            "the state record has another format",
            code=IntegrityCode.UNSUPPORTED_VERSION,
            path=db.path,
        )
    return StoredState(*_STATE.unpack(stored)[1:])


class StateMachine:
    """One member's copy. One thread at a time; owns ``db``."""

    def __init__(self, db: DB, *, remembered_requests: int = REMEMBERED_REQUESTS) -> None:
        """Take up from what ``db`` durably holds: everything up to :attr:`applied_index`.

        Raises CorruptionError when the stored state contradicts itself.
        """
        self._db = db
        self._bound = remembered_requests
        self._load()

    def _load(self) -> None:
        self._requests = RequestMemory(self._bound)
        self.applied_index = 0
        self.applied_term = 0
        self.revision = 0
        self.state_hash = 0
        stored = stored_state(self._db)
        if stored is not None:
            self.applied_index, self.applied_term, self.revision, self.state_hash = stored
        if self.applied_index > self._db.flushed_index:
            raise CorruptionError(
                f"the state is of index {self.applied_index} but the manifest says "
                f"{self._db.flushed_index}",
                code=IntegrityCode.INVALID_RECORD,
                path=self._db.path,
            )
        for key, value in self._db.iterator(prefix=_REQUESTS):
            (index,) = _INDEX.unpack(key[len(_REQUESTS) :])
            self._requests.add(index, decode_record(value))

    def apply(self, entries: Sequence[tuple[int, int, bytes]]) -> list[Applied]:
        """Apply ``(index, term, data)`` entries in ascending order, as one engine batch.

        ``data`` is empty for an entry that is no command (a new leader's, a membership): only the
        applied index moves. Raises CorruptionError for data that isn't a batch of commands, and
        StorageError when the engine can't take it; the machine is then not to be used again.
        """
        batch = WriteBatch()
        first = self.revision
        # What this very call writes, before the engine can tell: key -> has a value now.
        present: dict[bytes, bool] = {}
        answers = [
            Applied(index, term, self._apply_entry(index, data, batch, present) if data else ())
            for index, term, data in entries
        ]
        last = answers[-1]
        self.applied_index = last.index
        self.applied_term = last.term
        batch.put(
            _STATE_KEY,
            _STATE.pack(_STATE_VERSION, last.index, last.term, self.revision, self.state_hash),
            sequence=self.revision,
        )
        self._db.write(batch, sequence=first, applied_index=last.index)
        return answers

    def _apply_entry(
        self, index: int, data: bytes, batch: WriteBatch, present: dict[bytes, bool]
    ) -> list[CommandResult]:
        db = self._db
        find = self._requests.find
        revision = self.revision
        results: list[CommandResult] = []
        # By request, so that an id twice in one entry meets itself.
        fresh: dict[bytes, Remembered] = {}
        for kind, request, fingerprint, key, value in decode_commands(data):
            before: tuple[bytes, bool] | None = find(request)
            if before is None and request in fresh:
                before = fresh[request][1:]
            if before is not None:
                known, result = before
                results.append(result if known == fingerprint else InvalidArgumentError(_REUSED))
                continue
            stored_key = _USER + key
            existed = present.get(stored_key)
            if existed is None:
                existed = stored_key in db
            revision += 1
            if kind == _PUT:
                batch.put(stored_key, value, sequence=revision)
                present[stored_key] = True
            elif existed:
                batch.delete(stored_key, sequence=revision)
                present[stored_key] = False
            fresh[request] = Remembered(request, fingerprint, existed)
            results.append(existed)
        self.revision = revision
        if fresh:
            writes = list(fresh.values())
            batch.put(_REQUESTS + _INDEX.pack(index), encode_record(writes), sequence=revision)
            for old in self._requests.add(index, writes):
                batch.delete(_REQUESTS + _INDEX.pack(old), sequence=revision)
        self.state_hash = crc32c(data, crc32c(bytes([*map(_hash_byte, results)]), self.state_hash))
        return results

    def get(self, key: bytes) -> bytes | None:
        """The value of a user key as of :attr:`applied_index`."""
        value: bytes | None = self._db.get(_USER + key)
        return value

    def first_result(self, request: bytes, fingerprint: bytes) -> CommandResult | None:
        """What an applied request got, or its refusal; None when it isn't remembered."""
        before = self._requests.find(request)
        if before is None:
            return None
        return before[1] if before[0] == fingerprint else InvalidArgumentError(_REUSED)

    @property
    def durable_index(self) -> int:
        """Up to here the engine's tables hold everything: the log may forget it."""
        return self._db.flushed_index

    def make_room(self) -> None:
        """See to it that the next batch can be applied; may wait for a flush.

        Raises StorageError, ``retryable``, while the engine lacks room for it.
        """
        self._db.make_room()

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

    def close(self) -> None:
        """Close the engine; what is not in tables comes back from the log."""
        self._db.close()


def _hash_byte(result: CommandResult) -> int:
    return int(result) if isinstance(result, bool) else 2
