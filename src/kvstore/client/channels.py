"""Which gRPC a client talks: the native wire, or grpcio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import grpc
import grpc.aio

from kvstore.addresses import is_unix
from kvstore.client.options import CHANNEL_OPTIONS, TLS
from kvstore.errors import ConfigurationError

__all__ = ["Transport", "dialler"]

Transport = Literal["native", "grpcio"]


def dialler(transport: Transport | None, tls: TLS | None) -> Callable[[str], grpc.aio.Channel]:
    """What makes a channel to an address; unreadable certificates are told now, and then.

    Raises ConfigurationError.
    """
    if transport not in (None, "grpcio"):
        raise ConfigurationError(f"unknown transport {transport!r}; expected native or grpcio")
    if tls is None:
        return _plain
    tls.credentials()
    return lambda address: _plain(address) if is_unix(address) else _secure(address, tls)


def _plain(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def _secure(address: str, tls: TLS) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        address, tls.credentials(), options=CHANNEL_OPTIONS + tls.channel_options()
    )
