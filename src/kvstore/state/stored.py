"""What the state's own records are called in the engine, and the one that says how far it is.

| key | value |
|---|---|
| 01 + user key | the value, at the sequence that is its revision; under the model a header first |
| 00 "state" | version, applied index, its term, revision, state hash, clock, ... (see ``_STATE``) |
| 00 "request" + u64 big-endian entry index | the plain requests of that entry (requests.py) |
| 00 "session" + 16 bytes | a client's session (sessions.py) |
| 02 ... to 07 ... | the model's own (:mod:`kvstore.state.mvcc.records`) |
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final, NamedTuple

from kvstore._engine.files.native import FileSystem
from kvstore.engine import DB, Options, WriteBatch
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.mvcc.requests import LEVEL_ACCUSES

__all__ = [
    "NOTHING_COMPACTED",
    "REQUESTS",
    "SESSIONS",
    "STATE_KEY",
    "USER",
    "StoredState",
    "encode_state",
    "open_state",
    "stand_in",
    "stored_state",
]

USER = b"\x01"
STATE_KEY = b"\x00state"
REQUESTS = b"\x00request"
SESSIONS = b"\x00session"

NOTHING_COMPACTED: Final = -1
"""As what was compacted: all that ever was is still known."""

# Its version is as much higher as the state's level is.
_STATE_VERSION = 2
_STATE = struct.Struct("<BQQQIQQ")
# Where the model is on: of level 1 and higher.
_MODEL_STATE = struct.Struct("<BQQQIQQQq")
_VERSION_MAX = _STATE_VERSION + LEVEL_ACCUSES


class StoredState(NamedTuple):
    """How far a stored state is, the hash of all that was applied to it, and its memory of time.

    ``clock_ms``: of the log. ``forgotten_ms``: when the newest request was applied that isn't
    remembered any more, 0 if all are. ``model_from``: the revision at which the model was enabled,
    0 while it is off; no record at or below it has a header. ``compacted``: below this revision no
    history is kept. ``level``: 0 while the model is off, else see
    :mod:`kvstore.state.mvcc.requests`.
    """

    applied_index: int = 0
    applied_term: int = 0
    revision: int = 0
    state_hash: int = 0
    clock_ms: int = 1
    forgotten_ms: int = 0
    model_from: int = 0
    compacted: int = NOTHING_COMPACTED
    level: int = 0


def encode_state(state: StoredState) -> bytes:
    """The record of ``state``: as it ever was while the model is off."""
    if state.level:
        return _MODEL_STATE.pack(_STATE_VERSION + state.level, *state[:8])
    return _STATE.pack(_STATE_VERSION, *state[:6])


def stored_state(db: DB) -> StoredState | None:
    """What ``db`` says of itself; None where nothing was ever applied. Raises CorruptionError."""
    stored = db.get(STATE_KEY)
    if stored is None:
        return None
    version = stored[0] if stored else 0
    shape = _STATE if version == _STATE_VERSION else _MODEL_STATE
    if not _STATE_VERSION <= version <= _VERSION_MAX or len(stored) != shape.size:
        raise CorruptionError(
            f"the state record has format {version or 'none'} and {len(stored)} bytes; this "
            f"program reads formats {_STATE_VERSION} to {_VERSION_MAX}",
            code=IntegrityCode.UNSUPPORTED_VERSION,
            path=db.path,
        )
    state = StoredState(*shape.unpack(stored)[1:])
    return state._replace(level=version - _STATE_VERSION)


def open_state(path: str, *, options: Options, filesystem: FileSystem) -> DB:
    """Open the engine of a state: it keeps history of what users stored alone."""
    return DB(path, options=replace(options, history_prefixes=(USER,)), filesystem=filesystem)


def stand_in(db: DB, index: int, term: int) -> None:
    """Have the empty ``db`` be of entry ``index``, durably, in the place of what was damaged."""
    batch = WriteBatch()
    batch.put(STATE_KEY, encode_state(StoredState(applied_index=index, applied_term=term)))
    db.write(batch, sequence=1, applied_index=index)
    db.flush()
