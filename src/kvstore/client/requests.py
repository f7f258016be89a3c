"""From a caller's arguments to messages: what both clients do before anything is sent."""

from __future__ import annotations

from kvstore.api.v1 import kv_pb2

BytesLike = bytes | bytearray | memoryview


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
