"""etcd's API as its messages, from a test: no client's own ideas between."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import SERVICES

__all__ = ["EtcdCalls"]

TIMEOUT_S = 30.0

_OF = {method: shape for methods in SERVICES.values() for method, shape in methods.items()}


class EtcdCalls:
    """Calls of one member, by the methods' names: ``calls.Put(key=b"k", value=b"v")``.

    A call that streams gives an iterator of responses; LeaseKeepAlive and Watch take an iterator of
    requests.
    """

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    def __getattr__(self, name: str) -> Any:
        shape = _OF[name]
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        call: Any = kinds[shape.streams_in, shape.streams_out](
            shape.path,
            request_serializer=shape.request.SerializeToString,
            response_deserializer=shape.response.FromString,
        )
        if shape.streams_in:
            return lambda requests, timeout=None, metadata=None: call(
                requests, timeout=timeout, metadata=metadata
            )
        return lambda timeout=TIMEOUT_S, **fields: call(shape.request(**fields), timeout=timeout)

    def begin(
        self, method: str, /, timeout: float = TIMEOUT_S, metadata: Any = None, **fields: Any
    ) -> Any:
        """A unary call under way, as a future."""
        shape = _OF[method]
        call: Any = self.channel.unary_unary(
            shape.path,
            request_serializer=shape.request.SerializeToString,
            response_deserializer=shape.response.FromString,
        )
        return call.future(shape.request(**fields), timeout=timeout, metadata=metadata)

    def keep_alive_once(self, lease: int, timeout: float = TIMEOUT_S) -> int:
        """The TTL that it has again."""
        requests = iter([pb.LeaseKeepAliveRequest(ID=lease)])
        (response,) = self.LeaseKeepAlive(requests, timeout=timeout)
        return int(response.TTL)

    def leader(self) -> int:
        """As this member knows it; 0 for none."""
        return int(self.Status().leader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.channel.close()
