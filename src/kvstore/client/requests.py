"""From a caller's arguments to messages: what both clients do before anything is sent."""

from __future__ import annotations

from typing import Final

from kvstore.api.v1 import kv_pb2
from kvstore.errors import InvalidArgumentError

BytesLike = bytes | bytearray | memoryview

# Of etcd's API: messages have no room for others.
NUMBER_MIN: Final = -(1 << 63)
NUMBER_MAX: Final = (1 << 63) - 1


def put_request(key: BytesLike, value: BytesLike) -> kv_pb2.PutRequest:
    """Build a Put that has no request id yet."""
    return kv_pb2.PutRequest(key=as_bytes(key, "key"), value=as_bytes(value, "value"))


def get_request(key: BytesLike) -> kv_pb2.GetRequest:
    """Build a Get."""
    return kv_pb2.GetRequest(key=as_bytes(key, "key"))


def delete_request(key: BytesLike) -> kv_pb2.DeleteRequest:
    """Build a Delete that has no request id yet."""
    return kv_pb2.DeleteRequest(key=as_bytes(key, "key"))


def as_bytes(data: BytesLike, what: str) -> bytes:
    """Return bytes-like ``data`` as bytes; raises TypeError for anything else, text included."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{what} must be bytes-like, not {type(data).__name__}")


def as_revision(number: int) -> int:
    """Return a revision. Raises InvalidArgumentError for a number that is none."""
    if not 0 <= number <= NUMBER_MAX:
        raise InvalidArgumentError(f"a revision is 0 or more, and below 2**63, not {number}")
    return number


def as_lease(number: int) -> int:
    """Return a lease's id. Raises InvalidArgumentError for a number that is none."""
    if not NUMBER_MIN <= number <= NUMBER_MAX:
        raise InvalidArgumentError(f"a lease's id has 64 bits at most: there is no {number:x}")
    return number
