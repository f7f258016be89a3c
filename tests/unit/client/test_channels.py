"""Which gRPC clients talk, and what is wrong with what they were told."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import pytest

from kvstore.client import TLS, AsyncClient, Client, channels
from kvstore.client.channels import dialler
from kvstore.errors import ConfigurationError
from kvstore.wire import available


def test_without_the_native_wire_clients_use_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "available", lambda: False)
    assert channels.default_transport() == "grpcio"
    with pytest.raises(ConfigurationError, match="no native transport"):
        AsyncClient(transport="native")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_transport_that_there_is_not_is_refused(kind: type[Client | AsyncClient]) -> None:
    with pytest.raises(ConfigurationError, match="unknown transport 'carrier pigeon'"):
        kind(transport="carrier pigeon")  # type: ignore[arg-type]


@pytest.mark.skipif(not available(), reason="built without the native wire")
def test_certificates_that_tls_cannot_use_are_told_when_the_client_is_made(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigurationError, match=f"TLS can't use {ca}: "):
        Client(tls=TLS(ca=ca), transport="native")


@pytest.mark.skipif(not available(), reason="built without the native wire")
def test_the_native_wire_is_the_default_where_it_was_built() -> None:
    assert channels.default_transport() == "native"
    native = dialler(None, None)("127.0.0.1:1")
    assert type(native).__module__ == "kvstore.wire.channel"
    assert not isinstance(native, grpc.aio.Channel)
