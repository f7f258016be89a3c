"""What a request id says: ``kvs1/<session>/<sequence>/<floor>``, or whatever a client made up."""

from __future__ import annotations

import re
from typing import NamedTuple

from kvstore.errors import InvalidArgumentError
from kvstore.service.limits import Limits, outside_window
from kvstore.state import SEQUENCE_MAX, SESSION_WINDOW, request_digest
from kvstore.state.mvcc.requests import Numbered

__all__ = ["Named", "understand", "understand_number"]

_PREFIX = b"kvs1/"
_OF_SESSION = re.compile(rb"kvs1/([0-9a-f]{32})/([1-9][0-9]{0,18})/([1-9][0-9]{0,18})")


class Named(NamedTuple):
    """A request: the digest of its id, or a session with a sequence from 1 on and a floor."""

    request: bytes
    sequence: int = 0
    floor: int = 0


def understand(request_id: bytes, limits: Limits) -> Named | InvalidArgumentError:
    """An id that only looks a little like a session's is a plain one, as all ids are in v1."""
    if not request_id.startswith(_PREFIX):
        return Named(request_digest(request_id))
    parts = _OF_SESSION.fullmatch(request_id)
    if parts is None:
        return Named(request_digest(request_id))
    sequence, floor = int(parts[2]), int(parts[3])
    if not _is_in_window(sequence, floor):
        return limits.outside_window(sequence, floor)
    return Named(bytes.fromhex(parts[1].decode()), sequence, floor)


def understand_number(request_id: bytes) -> Numbered | InvalidArgumentError:
    """The id of an operation of etcd's API, which only a session gives."""
    parts = _OF_SESSION.fullmatch(request_id)
    if parts is None:
        return InvalidArgumentError("a request id of kvs1/<session>/<sequence>/<floor> is expected")
    sequence, floor = int(parts[2]), int(parts[3])
    if not _is_in_window(sequence, floor):
        return outside_window(sequence, floor)
    return Numbered(bytes.fromhex(parts[1].decode()), sequence, floor)


def _is_in_window(sequence: int, floor: int) -> bool:
    return floor <= sequence < floor + SESSION_WINDOW and sequence <= SEQUENCE_MAX
