"""What the state machine remembers of requests with ids of the client's own making.

Part of the replicated state: filled while entries are applied, kept in the engine, carried by
snapshots, and forgotten in the order of the log, so that every member gives the same answer. It is
bounded by a count; what is forgotten leaves behind the time of the newest of it, so that a retry
from before that time is refused and not taken for new (docs/adr/0006).

:class:`kvstore._state.native.RequestMemory` is what runs; :class:`PlainRequestMemory` says what it
does.

What is stored for one entry, little-endian::

    0   u8   version (2)
    1   u64  time of the entry, in milliseconds of the log's clock
    9   24 * for each request: 16 bytes digest of its id, u64 word
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.commands import DIGEST_BYTES

__all__ = [
    "REMEMBERED_REQUESTS",
    "PlainRequestMemory",
    "check_record",
    "encode_record",
    "word_of",
]

REMEMBERED_REQUESTS = 1 << 20
"""How many of the newest requests a cluster remembers: 17 minutes of 1,000 writes a second. Part of
the replicated state's rules: changing it needs a new version of the state. 40 bytes each."""

_VERSION = 2
_HEAD = struct.Struct("<BQ")
_REQUEST = struct.Struct(f"<{DIGEST_BYTES}sQ")
RECORD_HEAD_BYTES = _HEAD.size

STEP_MAX = (1 << 32) - 1
"""Between two slots, in entries and in milliseconds. A larger step takes slots in between."""


def word_of(fingerprint: bytes) -> int:
    """63 bits of what a write was, with room for its result in the lowest bit; never 0."""
    return int.from_bytes(fingerprint, "little") & ~1 or 2


def encode_record(time_ms: int, requests: Sequence[tuple[bytes, int]]) -> bytes:
    """What is stored for an entry: the digests and words of the requests that it applied."""
    pack = _REQUEST.pack
    return _HEAD.pack(_VERSION, time_ms) + b"".join([pack(*request) for request in requests])


def check_record(data: bytes) -> int:
    """The time of a stored entry; raises CorruptionError for what encoding can't give."""
    if data[:1] != bytes([_VERSION]):
        raise CorruptionError(
            "record of applied requests of an unknown version",
            code=IntegrityCode.UNSUPPORTED_VERSION,
        )
    if len(data) < _HEAD.size or (len(data) - _HEAD.size) % _REQUEST.size:
        raise CorruptionError(
            "record of applied requests cut short", code=IntegrityCode.TRUNCATED_RECORD
        )
    time_ms: int = _HEAD.unpack_from(data)[1]
    return time_ms


class PlainRequestMemory:
    """The newest ``capacity`` requests: see the stub of ``kvstore._state.native``."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._words: dict[bytes, int] = {}
        # (digest, entry index, time), oldest first. A filler has no digest: where a step is too
        # large for a slot, the memory holds fewer requests, here as there.
        self._slots: deque[tuple[bytes | None, int, int]] = deque()
        self._gone: list[int] = []
        self.forgotten_ms = 0

    def __len__(self) -> int:
        return len(self._words)

    def find(self, digest: bytes) -> int:
        return self._words.get(digest, 0)

    def add(self, digest: bytes, word: int, index: int, time: int) -> None:
        at_index, at_time = self._slots[-1][1:] if self._slots else (index, time)
        while max(index - at_index, time - at_time) > STEP_MAX:
            at_index = min(index, at_index + STEP_MAX)
            at_time = min(time, at_time + STEP_MAX)
            self._push(None, at_index, at_time)
        self._words[digest] = word
        self._push(digest, index, time)

    def load(self, packed: bytes, offset: int, index: int, time: int) -> None:
        for digest, word in _REQUEST.iter_unpack(packed[offset:]):
            self.add(digest, word, index, time)

    def take_forgotten(self) -> list[int]:
        gone, self._gone = self._gone, []
        return gone

    def _push(self, digest: bytes | None, index: int, time: int) -> None:
        self._slots.append((digest, index, time))
        if len(self._slots) <= self._capacity:
            return
        digest, index, time = self._slots.popleft()
        if digest is None:
            return
        del self._words[digest]
        self.forgotten_ms = time
        if self._slots[0][1] != index:
            self._gone.append(index)
