"""From a caller's arguments to messages: what both clients do before anything is sent."""

from __future__ import annotations

import uuid

from kvstore.api.v1 import kv_pb2

BytesLike = bytes | bytearray | memoryview


def put_request(key: BytesLike, value: BytesLike, request_id: str | None) -> kv_pb2.PutRequest:
    """Build a Put; an id is made up where the caller has none."""
    return kv_pb2.PutRequest(
        key=as_bytes(key, "key"),
        value=as_bytes(value, "value"),
        request_id=new_request_id() if request_id is None else request_id,
    )


def get_request(key: BytesLike) -> kv_pb2.GetRequest:
    """Build a Get."""
    return kv_pb2.GetRequest(key=as_bytes(key, "key"))


def delete_request(key: BytesLike, request_id: str | None) -> kv_pb2.DeleteRequest:
    """Build a Delete; an id is made up where the caller has none."""
    return kv_pb2.DeleteRequest(
        key=as_bytes(key, "key"),
        request_id=new_request_id() if request_id is None else request_id,
    )


def new_request_id() -> str:
    """Return an id that no other request has: 122 random bits in 32 characters."""
    return uuid.uuid4().hex


def as_bytes(data: BytesLike, what: str) -> bytes:
    """Return bytes-like ``data`` as bytes; raises TypeError for anything else, text included."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{what} must be bytes-like, not {type(data).__name__}")
