"""What the state machine remembers of requests, so that a retry gets the first result.

The memory is part of the replicated state: filled while entries are applied, kept in the engine,
carried by snapshots, and forgotten in the order of the log, so that every member gives the same
answer. It is bounded by a count that all members share.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.commands import DIGEST_BYTES

__all__ = ["REMEMBERED_REQUESTS", "Remembered", "RequestMemory", "decode_record", "encode_record"]

REMEMBERED_REQUESTS = 65_536
"""How many of the newest writes a cluster remembers. Part of the replicated state's rules: changing
it needs a new version of the state. About 250 bytes each, so 16 MiB a member."""

_RECORD = struct.Struct(f"<{DIGEST_BYTES}s{DIGEST_BYTES}s?")
_VERSION = b"\x01"


class Remembered(NamedTuple):
    """One applied write: the digest of its request id, what it was, and its result."""

    request: bytes
    fingerprint: bytes
    result: bool


def encode_record(writes: Sequence[Remembered]) -> bytes:
    """What is stored for one entry: version 1, then 33 bytes for each write."""
    return _VERSION + b"".join([_RECORD.pack(*write) for write in writes])


def decode_record(data: bytes) -> list[Remembered]:
    """The writes of one entry; raises CorruptionError for anything else."""
    if data[:1] != _VERSION:
        raise CorruptionError(
            "record of applied requests of an unknown version",
            code=IntegrityCode.UNSUPPORTED_VERSION,
        )
    if (len(data) - 1) % _RECORD.size:
        raise CorruptionError(
            "record of applied requests cut short", code=IntegrityCode.TRUNCATED_RECORD
        )
    return [Remembered(*fields) for fields in _RECORD.iter_unpack(data[1:])]


class RequestMemory:
    """The newest ``bound`` writes, or a few more: whole entries are forgotten, oldest first."""

    def __init__(self, bound: int = REMEMBERED_REQUESTS) -> None:
        self._bound = bound
        # Request digest -> (fingerprint, result).
        self._known: dict[bytes, tuple[bytes, bool]] = {}
        # (entry index, request digests), oldest first.
        self._entries: deque[tuple[int, tuple[bytes, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, request: bytes) -> tuple[bytes, bool] | None:
        """The fingerprint and result of a remembered request."""
        return self._known.get(request)

    def add(self, index: int, writes: Sequence[Remembered]) -> list[int]:
        """Remember the writes of entry ``index``; returns the entries forgotten for it."""
        known = self._known
        for request, fingerprint, result in writes:
            known[request] = (fingerprint, result)
        self._entries.append((index, tuple([write.request for write in writes])))
        forgotten = []
        # The newest entry always stays, or a retry of a very large one could be applied twice.
        while len(known) > self._bound and len(self._entries) > 1:
            old, requests = self._entries.popleft()
            for request in requests:
                del known[request]
            forgotten.append(old)
        return forgotten
