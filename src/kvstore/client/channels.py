"""Which gRPC a client talks: the native wire, or grpcio."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import grpc
import grpc.aio

from kvstore.addresses import is_unix
from kvstore.client.options import CHANNEL_OPTIONS, NATIVE_OPTIONS, TLS
from kvstore.errors import ConfigurationError
from kvstore.wire import available

__all__ = ["Transport", "checked_transport", "dialler", "is_native"]

Transport = Literal["native", "grpcio"]


def checked_transport(text: str) -> Transport:
    """The transport of that name. Raises ConfigurationError."""
    if text == "native":
        return "native"
    if text == "grpcio":
        return "grpcio"
    raise ConfigurationError(f"unknown transport {text!r}; expected native or grpcio")


def default_transport() -> Transport:
    """What clients use that weren't told."""
    return "native" if available() else "grpcio"


def is_native(transport: Transport | None) -> bool:
    """Whether channels are of the native wire, where ``transport`` was asked for."""
    return (transport or default_transport()) == "native"


def dialler(transport: Transport | None, tls: TLS | None) -> Callable[[str], grpc.aio.Channel]:
    """What makes a channel to an address; unreadable certificates are told now, and then.

    All that a call needs is imported here, in the caller's thread: a fork while another thread
    imports would leave the child with a lock that nobody gives back. Raises ConfigurationError.
    """
    if transport is not None:
        checked_transport(transport)
    if transport == "native" and not available():
        raise ConfigurationError("this build of kvstore has no native transport; use grpcio")
    if is_native(transport):
        if tls is not None:
            tls.for_channel()
        # Where it isn't built there is nothing to import.
        channel = importlib.import_module("kvstore.wire.channel").Channel
        return partial(_native, channel, tls=tls)
    if tls is not None:
        tls.credentials()
    return partial(_grpcio, tls=tls)


def _native(channel: Callable[..., Any], address: str, *, tls: TLS | None) -> grpc.aio.Channel:
    secure = None if tls is None or is_unix(address) else tls.for_channel()
    made: grpc.aio.Channel = channel(address, NATIVE_OPTIONS, secure)
    return made


def _grpcio(address: str, *, tls: TLS | None) -> grpc.aio.Channel:
    if tls is None or is_unix(address):
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(
        address, tls.credentials(), options=CHANNEL_OPTIONS + tls.channel_options()
    )
