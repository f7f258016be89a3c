"""What the state's own records are called in the engine, and the one that says how far it is.

| key | value |
|---|---|
| 01 + user key | the value, at the sequence that is its revision |
| 00 "state" | version, applied index, its term, revision, state hash, clock, ... (see ``_STATE``) |
| 00 "request" + u64 big-endian entry index | the plain requests of that entry (requests.py) |
| 00 "session" + 16 bytes | a client's session (sessions.py) |
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kvstore.engine import DB
from kvstore.errors import CorruptionError, IntegrityCode

__all__ = [
    "REQUESTS",
    "SESSIONS",
    "STATE_KEY",
    "USER",
    "StoredState",
    "encode_state",
    "stored_state",
]

USER = b"\x01"
STATE_KEY = b"\x00state"
REQUESTS = b"\x00request"
SESSIONS = b"\x00session"

_STATE_VERSION = 2
_STATE = struct.Struct("<BQQQIQQ")


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


def encode_state(state: StoredState) -> bytes:
    """The record of ``state``."""
    return _STATE.pack(_STATE_VERSION, *state)


def stored_state(db: DB) -> StoredState | None:
    """What ``db`` says of itself; None where nothing was ever applied. Raises CorruptionError."""
    stored = db.get(STATE_KEY)
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
