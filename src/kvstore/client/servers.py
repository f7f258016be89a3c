"""What a client has to one address: a channel, and what can be called over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

import grpc.aio

from kvstore.api.etcd import etcd_pb2
from kvstore.api.etcd.methods import method_shape
from kvstore.api.v1 import admin_pb2_grpc, kv_pb2_grpc, session_pb2_grpc
from kvstore.wire.errors import Metadata

__all__ = ["EtcdStub", "Method", "Server", "Stream", "StreamMethod"]

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class Method(Protocol[Request, Response]):
    """One request, one answer."""

    def __call__(
        self, request: Request, *, timeout: float | None, metadata: Metadata | None
    ) -> Awaitable[Response]: ...


class Stream(Protocol[Request, Response]):
    """A call with many requests and many answers, under way."""

    async def write(self, request: Request) -> None: ...
    async def done_writing(self) -> None: ...
    async def read(self) -> Response:
        """The next answer, or ``grpc.aio.EOF``."""

    def cancel(self) -> bool: ...


class StreamMethod(Protocol[Request, Response]):
    """Many requests, many answers."""

    def __call__(
        self, *, timeout: float | None, metadata: Metadata | None
    ) -> Stream[Request, Response]: ...


class EtcdStub:
    """etcd's API, as far as clients need it: a method of its services by each name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.range: Method[etcd_pb2.RangeRequest, etcd_pb2.RangeResponse]
        self.range = _unary(channel, "etcdserverpb.KV", "Range")
        self.delete_range: Method[etcd_pb2.DeleteRangeRequest, etcd_pb2.DeleteRangeResponse]
        self.delete_range = _unary(channel, "etcdserverpb.KV", "DeleteRange")
        self.txn: Method[etcd_pb2.TxnRequest, etcd_pb2.TxnResponse]
        self.txn = _unary(channel, "etcdserverpb.KV", "Txn")
        self.compact: Method[etcd_pb2.CompactionRequest, etcd_pb2.CompactionResponse]
        self.compact = _unary(channel, "etcdserverpb.KV", "Compact")
        self.watch: StreamMethod[etcd_pb2.WatchRequest, etcd_pb2.WatchResponse]
        self.watch = _stream(channel, "etcdserverpb.Watch", "Watch")
        self.lease_grant: Method[etcd_pb2.LeaseGrantRequest, etcd_pb2.LeaseGrantResponse]
        self.lease_grant = _unary(channel, "etcdserverpb.Lease", "LeaseGrant")
        self.lease_revoke: Method[etcd_pb2.LeaseRevokeRequest, etcd_pb2.LeaseRevokeResponse]
        self.lease_revoke = _unary(channel, "etcdserverpb.Lease", "LeaseRevoke")
        self.lease_time_to_live: Method[
            etcd_pb2.LeaseTimeToLiveRequest, etcd_pb2.LeaseTimeToLiveResponse
        ]
        self.lease_time_to_live = _unary(channel, "etcdserverpb.Lease", "LeaseTimeToLive")
        self.lease_leases: Method[etcd_pb2.LeaseLeasesRequest, etcd_pb2.LeaseLeasesResponse]
        self.lease_leases = _unary(channel, "etcdserverpb.Lease", "LeaseLeases")
        self.lease_keep_alive: StreamMethod[
            etcd_pb2.LeaseKeepAliveRequest, etcd_pb2.LeaseKeepAliveResponse
        ]
        self.lease_keep_alive = _stream(channel, "etcdserverpb.Lease", "LeaseKeepAlive")
        self.authenticate: Method[etcd_pb2.AuthenticateRequest, etcd_pb2.AuthenticateResponse]
        self.authenticate = _unary(channel, "etcdserverpb.Auth", "Authenticate")

    def auth(self, name: str) -> Method[Any, Any]:
        """A method of Auth, of which most are seldom called."""
        return _unary(self._channel, "etcdserverpb.Auth", name)

    def maintenance(self, name: str) -> Method[Any, Any]:
        """A method of Maintenance: all of them are seldom called."""
        return _unary(self._channel, "etcdserverpb.Maintenance", name)


class Server:
    """The connection to one address."""

    __slots__ = ("admin", "channel", "etcd", "health", "kv", "sessions")

    def __init__(self, address: str, dial: Callable[[str], grpc.aio.Channel]) -> None:
        self.channel = dial(address)
        self.kv = cast("kv_pb2_grpc.KVAsyncStub", kv_pb2_grpc.KVStub(self.channel))
        self.sessions = cast(
            "session_pb2_grpc.SessionsAsyncStub", session_pb2_grpc.SessionsStub(self.channel)
        )
        self.admin = cast("admin_pb2_grpc.AdminAsyncStub", admin_pb2_grpc.AdminStub(self.channel))
        self.etcd = EtcdStub(self.channel)
        # By its bytes: whoever only asks needs no code that is generated for it.
        self.health: Method[bytes, bool] = cast(
            "Method[bytes, bool]",
            self.channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=bytes,
                response_deserializer=_is_serving,
            ),
        )


def _is_serving(response: bytes) -> bool:
    """HealthCheckResponse: its one field is the status, of which 1 is SERVING."""
    return response == b"\x08\x01"


def _unary(channel: grpc.aio.Channel, service: str, name: str) -> Method[Request, Response]:
    shape = method_shape(service, name)
    made = channel.unary_unary(
        shape.path,
        request_serializer=shape.request.SerializeToString,
        response_deserializer=shape.response.FromString,
    )
    return cast("Method[Request, Response]", made)


def _stream(channel: grpc.aio.Channel, service: str, name: str) -> StreamMethod[Request, Response]:
    shape = method_shape(service, name)
    made = channel.stream_stream(
        shape.path,
        request_serializer=shape.request.SerializeToString,
        response_deserializer=shape.response.FromString,
    )
    return cast("StreamMethod[Request, Response]", made)
