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
from kvstore.engine import DB, Options
from kvstore.errors import CorruptionError, IntegrityCode

__all__ = [
    "NOTHING_COMPACTED",
    "REQUESTS",
    "SESSIONS",
    "STATE_KEY",
    "USER",
    "StoredState",
    "encode_state",
    "open_state",
    "stored_state",
]

USER = b"\x01"
STATE_KEY = b"\x00state"
REQUESTS = b"\x00request"
SESSIONS = b"\x00session"

NOTHING_COMPACTED: Final = -1
"""As what was compacted: all that ever was is still known."""

_STATE_VERSION = 2
_STATE = struct.Struct("<BQQQIQQ")
# Where the model is on.
_MODEL_VERSION = 3
_MODEL_STATE = struct.Struct("<BQQQIQQQq")


class StoredState(NamedTuple):
    """How far a stored state is, the hash of all that was applied to it, and its memory of time.

    ``clock_ms``: of the log. ``forgotten_ms``: when the newest request was applied that isn't
    remembered any more, 0 if all are. ``model_from``: the revision at which the model was enabled,
    0 while it is off; no record at or below it has a header. ``compacted``: below this revision no
    history is kept.
    """

    applied_index: int = 0
    applied_term: int = 0
    revision: int = 0
    state_hash: int = 0
    clock_ms: int = 1
    forgotten_ms: int = 0
    model_from: int = 0
    compacted: int = NOTHING_COMPACTED


def encode_state(state: StoredState) -> bytes:
    """The record of ``state``: as it ever was while the model is off."""
    if state.model_from:
        return _MODEL_STATE.pack(_MODEL_VERSION, *state)
    return _STATE.pack(_STATE_VERSION, *state[:6])


def stored_state(db: DB) -> StoredState | None:
    """What ``db`` says of itself; None where nothing was ever applied. Raises CorruptionError."""
    stored = db.get(STATE_KEY)
    if stored is None:
        return None
    shape = {_STATE_VERSION: _STATE, _MODEL_VERSION: _MODEL_STATE}.get(stored[0] if stored else 0)
    if shape is None or len(stored) != shape.size:
        raise CorruptionError(
            f"the state record has format {stored[0] if stored else 'none'} and {len(stored)} "
            f"bytes; this program reads formats {_STATE_VERSION} and {_MODEL_VERSION}",
            code=IntegrityCode.UNSUPPORTED_VERSION,
            path=db.path,
        )
    return StoredState(*shape.unpack(stored)[1:])


def open_state(path: str, *, options: Options, filesystem: FileSystem) -> DB:
    """Open the engine of a state: it keeps history of what users stored alone."""
    return DB(path, options=replace(options, history_prefixes=(USER,)), filesystem=filesystem)
