"""TLS contexts of the native wire, and a server's side of TLS in memory."""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trustme

from kvstore.wire.tls import BOTH, HTTP1, HTTP2, server_context
from kvstore.wire.tls_layer import TlsLayer


class Client:
    """The other side of a handshake, in memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def talk(self, server: TlsLayer) -> list[bytes]:
        """Carry bytes both ways until neither has any; what the server understood."""
        said: list[bytes] = []
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.object.do_handshake()
            data = self.outgoing.read()
            if not data:
                return said
            said += server.receive(memoryview(data))
            self.incoming.write(server.pending())


AUTHORITY = trustme.CA()


def server(*, asks: bool = False, protocols: tuple[str, ...] = (HTTP2,)) -> TlsLayer:
    made = AUTHORITY.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    ca = AUTHORITY.cert_pem.bytes() if asks else None
    context = server_context(chain, made.private_key_pem.bytes(), ca, protocols)
    return TlsLayer(context, protocols)


def client_context(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def test_both_sides_understand_each_other() -> None:
    layer, client = server(), Client(client_context("h2"))
    client.talk(layer)
    assert layer.ready
    client.object.write(b"question" * 10_000)
    assert b"".join(client.talk(layer)) == b"question" * 10_000
    client.incoming.write(layer.encrypt(b"answer"))
    assert client.object.read(100) == b"answer"


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_who_does_not_offer_http2_is_refused(protocols: tuple[str, ...]) -> None:
    layer, client = server(), Client(client_context(*protocols))
    with pytest.raises(ssl.SSLError, match=r"^the client doesn't offer HTTP/2 by ALPN"):
        client.talk(layer)
    assert not layer.ready


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [
        (("h2",), HTTP2),
        (("http/1.1",), HTTP1),
        (("h2", "http/1.1"), HTTP1),
        (("spdy/3",), HTTP1),
        ((), HTTP1),
    ],
)
def test_where_both_are_spoken_only_clients_of_grpc_get_http2(
    offered: tuple[str, ...], spoken: str
) -> None:
    layer, client = server(protocols=BOTH), Client(client_context(*offered))
    client.talk(layer)
    assert layer.ready
    assert layer.protocol == spoken


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_before_1_2_is_refused() -> None:
    context = client_context("h2")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        Client(context).talk(server())


def test_who_has_no_certificate_is_refused_where_one_is_asked_for() -> None:
    layer, client = server(asks=True), Client(client_context("h2"))
    with pytest.raises(ssl.SSLError, match=r"(?i)peer.did.not.return.a.certificate"):
        client.talk(layer)
    assert not layer.ready


def test_who_has_a_certificate_of_the_authority_gets_in() -> None:
    context = client_context("h2")
    AUTHORITY.issue_cert("client.example").configure_cert(context)
    layer, client = server(asks=True), Client(context)
    client.talk(layer)
    assert layer.ready


def test_the_end_is_told() -> None:
    layer, client = server(), Client(client_context("h2"))
    client.talk(layer)
    client.object.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.object.unwrap()
    assert layer.receive(memoryview(client.outgoing.read())) == [b"last", b""]
