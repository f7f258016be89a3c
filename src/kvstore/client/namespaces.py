"""Namespaces: a client that sees, and writes, only keys with a prefix, and never sees the prefix.

Keys get it as a request is sent and lose it as an answer comes, so that all that is built on calls
(transactions, watches, locks, elections) knows nothing of it, as with etcd's clientv3/namespace.
Users, members, alarms, revisions, compaction and the ids of leases are the whole store's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar, cast

import grpc.aio

from kvstore.api.etcd import etcd_pb2
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.client.keys import KeyRange, with_prefix
from kvstore.client.requests import BytesLike, as_bytes
from kvstore.client.servers import Method, Server, Stream, StreamMethod
from kvstore.errors import ConfigurationError, InvalidArgumentError
from kvstore.wire.errors import Metadata

__all__ = ["Namespace", "enter", "namespace_of"]

Request = TypeVar("Request")
Response = TypeVar("Response")

# Of a key in the store (docs/wire-protocol.md).
KEY_BYTES_MAX: Final = 1024


class Namespace:
    """Keys as a caller says them, and as the store has them."""

    __slots__ = ("_end", "prefix")

    def __init__(self, prefix: bytes) -> None:
        """``prefix`` isn't empty. Raises ConfigurationError if it leaves no room for keys."""
        if len(prefix) >= KEY_BYTES_MAX:
            raise ConfigurationError(
                f"a namespace of {len(prefix)} bytes leaves no room for keys: the two together "
                f"have {KEY_BYTES_MAX} bytes at most"
            )
        self.prefix = prefix
        self._end = with_prefix(prefix).end

    def key(self, key: bytes) -> bytes:
        """The store's. Raises InvalidArgumentError for one that is empty, or too long in here."""
        most = KEY_BYTES_MAX - len(self.prefix)
        if not 0 < len(key) <= most:
            what = f"key has {len(key)} bytes" if key else "key is empty"
            raise InvalidArgumentError(
                f"{what}; expected 1 to {most} bytes in a namespace of {len(self.prefix)}"
            )
        return self.prefix + key

    def range(self, keys: KeyRange) -> KeyRange:
        """The store's. Raises InvalidArgumentError as for a single key."""
        if keys.single:
            return KeyRange(self.key(keys.key))
        end = self._end if keys.end == b"\0" else self.prefix + keys.end
        return KeyRange(self.prefix + keys.key, end)

    def stripped(self, key: bytes) -> bytes:
        """The caller's, of one of the store's in here."""
        return key[len(self.prefix) :]

    def holds(self, key: bytes) -> bool:
        """Whether one of the store's is in here."""
        return key.startswith(self.prefix) and len(key) > len(self.prefix)


def namespace_of(prefix: BytesLike | None) -> Namespace | None:
    """None where there is none, or an empty one. Raises ConfigurationError, TypeError."""
    return Namespace(as_bytes(prefix, "namespace")) if prefix else None


def enter(server: Server, namespace: Namespace) -> Server:
    """Have all calls over ``server``, which is returned, be of the namespace."""
    etcd = server.etcd
    server.kv = cast("kv_pb2_grpc.KVAsyncStub", _KV(server.kv, namespace))
    etcd.range = _Rewritten(etcd.range, namespace, _range, _range_answer)
    etcd.delete_range = _Rewritten(etcd.delete_range, namespace, _deletion, _deletion_answer)
    etcd.txn = _Rewritten(etcd.txn, namespace, _txn, _txn_answer)
    etcd.lease_time_to_live = _Rewritten(
        etcd.lease_time_to_live, namespace, _unchanged, _lease_answer
    )
    etcd.watch = _Watching(etcd.watch, namespace)
    return server


class _Rewritten(Generic[Request, Response]):
    """A method whose requests and answers are put into other words."""

    def __init__(
        self,
        method: Method[Request, Response],
        namespace: Namespace,
        outward: Callable[[Namespace, Request], Request],
        inward: Callable[[Namespace, Response], None],
    ) -> None:
        self._method = method
        self._namespace = namespace
        self._outward = outward
        self._inward = inward

    async def __call__(
        self, request: Request, *, timeout: float | None, metadata: Metadata | None
    ) -> Response:
        # A copy: the request may have to be sent again.
        sent = self._outward(self._namespace, request)
        answer = await self._method(sent, timeout=timeout, metadata=metadata)
        self._inward(self._namespace, answer)
        return answer


class _KV:
    """kvstore.v1.KV, whose answers have no keys."""

    def __init__(self, stub: kv_pb2_grpc.KVAsyncStub, namespace: Namespace) -> None:
        self._stub = stub
        self._key = namespace.key

    def Put(
        self, request: kv_pb2.PutRequest, *, timeout: float | None, metadata: Metadata | None
    ) -> Awaitable[kv_pb2.PutResponse]:
        sent = kv_pb2.PutRequest(
            key=self._key(request.key), value=request.value, request_id=request.request_id
        )
        return self._stub.Put(sent, timeout=timeout, metadata=metadata)

    def Get(
        self, request: kv_pb2.GetRequest, *, timeout: float | None, metadata: Metadata | None
    ) -> Awaitable[kv_pb2.GetResponse]:
        sent = kv_pb2.GetRequest(key=self._key(request.key))
        return self._stub.Get(sent, timeout=timeout, metadata=metadata)

    def Delete(
        self, request: kv_pb2.DeleteRequest, *, timeout: float | None, metadata: Metadata | None
    ) -> Awaitable[kv_pb2.DeleteResponse]:
        sent = kv_pb2.DeleteRequest(key=self._key(request.key), request_id=request.request_id)
        return self._stub.Delete(sent, timeout=timeout, metadata=metadata)


class _Watching:
    """Watches, whose stream is put into other words message by message."""

    def __init__(
        self,
        method: StreamMethod[etcd_pb2.WatchRequest, etcd_pb2.WatchResponse],
        namespace: Namespace,
    ) -> None:
        self._method = method
        self._namespace = namespace

    def __call__(
        self, *, timeout: float | None, metadata: Metadata | None
    ) -> Stream[etcd_pb2.WatchRequest, etcd_pb2.WatchResponse]:
        return _Watches(self._method(timeout=timeout, metadata=metadata), self._namespace)


class _Watches:
    def __init__(
        self,
        stream: Stream[etcd_pb2.WatchRequest, etcd_pb2.WatchResponse],
        namespace: Namespace,
    ) -> None:
        self._stream = stream
        self._namespace = namespace

    async def write(self, request: etcd_pb2.WatchRequest) -> None:
        if request.HasField("create_request"):
            sent = etcd_pb2.WatchRequest()
            sent.CopyFrom(request)
            _put_range(self._namespace, sent.create_request)
            request = sent
        await self._stream.write(request)

    async def done_writing(self) -> None:
        await self._stream.done_writing()

    async def read(self) -> etcd_pb2.WatchResponse:
        response = await self._stream.read()
        if response is not grpc.aio.EOF:  # type: ignore[attr-defined]
            for event in response.events:
                _strip(self._namespace, (event.kv,))
                if event.HasField("prev_kv"):
                    _strip(self._namespace, (event.prev_kv,))
        return response

    def cancel(self) -> bool:
        return self._stream.cancel()


_Ranged = TypeVar(
    "_Ranged",
    etcd_pb2.RangeRequest,
    etcd_pb2.DeleteRangeRequest,
    etcd_pb2.Compare,
    etcd_pb2.WatchCreateRequest,
)


def _put_range(namespace: Namespace, message: _Ranged) -> None:
    """Have a message be of the store's keys."""
    keys = namespace.range(KeyRange(message.key, message.range_end))
    message.key, message.range_end = keys.key, keys.end


def _strip(namespace: Namespace, entries: Iterable[etcd_pb2.KeyValue]) -> None:
    for entry in entries:
        entry.key = namespace.stripped(entry.key)


def _unchanged(namespace: Namespace, request: Request) -> Request:
    return request


def _range(namespace: Namespace, request: etcd_pb2.RangeRequest) -> etcd_pb2.RangeRequest:
    sent = etcd_pb2.RangeRequest()
    sent.CopyFrom(request)
    _put_range(namespace, sent)
    return sent


def _range_answer(namespace: Namespace, answer: etcd_pb2.RangeResponse) -> None:
    _strip(namespace, answer.kvs)


def _deletion(
    namespace: Namespace, request: etcd_pb2.DeleteRangeRequest
) -> etcd_pb2.DeleteRangeRequest:
    sent = etcd_pb2.DeleteRangeRequest()
    sent.CopyFrom(request)
    _put_range(namespace, sent)
    return sent


def _deletion_answer(namespace: Namespace, answer: etcd_pb2.DeleteRangeResponse) -> None:
    _strip(namespace, answer.prev_kvs)


def _txn(namespace: Namespace, request: etcd_pb2.TxnRequest) -> etcd_pb2.TxnRequest:
    sent = etcd_pb2.TxnRequest()
    sent.CopyFrom(request)
    _put_txn(namespace, sent)
    return sent


def _put_txn(namespace: Namespace, message: etcd_pb2.TxnRequest) -> None:
    for compare in message.compare:
        _put_range(namespace, compare)
    for operation in (*message.success, *message.failure):
        match operation.WhichOneof("request"):
            case "request_put":
                operation.request_put.key = namespace.key(operation.request_put.key)
            case "request_range":
                _put_range(namespace, operation.request_range)
            case "request_delete_range":
                _put_range(namespace, operation.request_delete_range)
            case "request_txn":
                _put_txn(namespace, operation.request_txn)


def _txn_answer(namespace: Namespace, answer: etcd_pb2.TxnResponse) -> None:
    for response in answer.responses:
        match response.WhichOneof("response"):
            case "response_put":
                if response.response_put.HasField("prev_kv"):
                    _strip(namespace, (response.response_put.prev_kv,))
            case "response_range":
                _range_answer(namespace, response.response_range)
            case "response_delete_range":
                _deletion_answer(namespace, response.response_delete_range)
            case "response_txn":
                _txn_answer(namespace, response.response_txn)


def _lease_answer(namespace: Namespace, answer: etcd_pb2.LeaseTimeToLiveResponse) -> None:
    """Keys of other namespaces, which may be on the same lease, are none of the caller's."""
    keys = [namespace.stripped(key) for key in answer.keys if namespace.holds(key)]
    del answer.keys[:]
    answer.keys.extend(keys)
