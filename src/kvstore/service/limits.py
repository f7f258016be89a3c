"""The limits of the v1 contract, and the words that say which one was broken."""

from __future__ import annotations

from kvstore.errors import InvalidArgumentError
from kvstore.service.operations import Get, OpenSession, Operation, Put
from kvstore.state import KEY_BYTES_MAX, SESSION_WINDOW, VALUE_BYTES_MAX, SessionBounds

__all__ = [
    "KEY_BYTES_MAX",
    "REQUEST_ID_BYTES_MAX",
    "SESSION_IDLE_MS",
    "SESSION_WINDOW",
    "VALUE_BYTES_MAX",
    "breach",
]

REQUEST_ID_BYTES_MAX = 4096
SESSION_IDLE_MS = SessionBounds().idle_ms


def breach(operation: Operation) -> InvalidArgumentError | None:
    """Return what is wrong with an operation, None if nothing is."""
    if isinstance(operation, OpenSession):
        return None
    key_bytes = len(operation.key)
    if not 0 < key_bytes <= KEY_BYTES_MAX:
        return _outside("key", key_bytes, 1, KEY_BYTES_MAX)
    if isinstance(operation, Get):
        return None
    id_bytes = len(operation.request_id)
    if not 0 < id_bytes <= REQUEST_ID_BYTES_MAX:
        return _outside("request_id", id_bytes, 1, REQUEST_ID_BYTES_MAX)
    if isinstance(operation, Put) and len(operation.value) > VALUE_BYTES_MAX:
        return _outside("value", len(operation.value), 0, VALUE_BYTES_MAX)
    return None


def _outside(field: str, size: int, least: int, most: int) -> InvalidArgumentError:
    what = f"{field} is empty" if size == 0 else f"{field} has {size} bytes"
    return InvalidArgumentError(f"{what}; expected {least} to {most} bytes")
