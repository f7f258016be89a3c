"""Which gRPC a client talks: the native wire, or grpcio."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal

import grpc
import grpc.aio

from kvstore.addresses import is_unix
from kvstore.client.options import CHANNEL_OPTIONS, NATIVE_OPTIONS, TLS
from kvstore.errors import ConfigurationError
from kvstore.wire import available
from kvstore.wire.channel_options import ChannelTLS

__all__ = ["Transport", "dialler", "is_native"]

Transport = Literal["native", "grpcio"]


def default_transport() -> Transport:
    """What clients use that weren't told."""
    return "native" if available() else "grpcio"


def is_native(transport: Transport | None) -> bool:
    """Whether channels are of the native wire, where ``transport`` was asked for."""
    return (transport or default_transport()) == "native"


def dialler(transport: Transport | None, tls: TLS | None) -> Callable[[str], grpc.aio.Channel]:
    """What makes a channel to an address; unreadable certificates are told now, and then.

    Raises ConfigurationError.
    """
    if transport not in (None, "native", "grpcio"):
        raise ConfigurationError(f"unknown transport {transport!r}; expected native or grpcio")
    if transport == "native" and not available():
        raise ConfigurationError("this build of kvstore has no native transport; use grpcio")
    native = is_native(transport)
    secure, plain = (_native_secure, _native) if native else (_grpcio_secure, _grpcio)
    if tls is None:
        return plain
    tls.credentials()
    return lambda address: plain(address) if is_unix(address) else secure(address, tls)


def _native(address: str, tls: ChannelTLS | None = None) -> grpc.aio.Channel:
    # Where it isn't built there is nothing to import.
    channel = importlib.import_module("kvstore.wire.channel")
    made: grpc.aio.Channel = channel.Channel(address, NATIVE_OPTIONS, tls)
    return made


def _native_secure(address: str, tls: TLS) -> grpc.aio.Channel:
    return _native(address, tls.for_channel())


def _grpcio(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def _grpcio_secure(address: str, tls: TLS) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        address, tls.credentials(), options=CHANNEL_OPTIONS + tls.channel_options()
    )
