"""TLS of the native listener: who gets in, as whom, and with the certificates of which moment."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
import trustme
import uvloop

pytest.importorskip("kvstore._wire.native", reason="built without nghttp2", exc_type=ImportError)

from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.server.tls.server_tls import ServerTls
from kvstore.wire.server import Server, ServerLimits

AUTHORITY = trustme.CA()

# What a handler can know of a caller; the rest (versions, key exchange) is each library's own.
IDENTITY = (
    "transport_security_type",
    "security_level",
    "x509_subject",
    "x509_common_name",
    "x509_subject_alternative_name",
    "x509_pem_cert",
    "peer_dns",
    "peer_ip",
    "peer_email",
    "peer_uri",
)


def write_files(directory: Path, authority: trustme.CA = AUTHORITY) -> dict[str, str]:
    made = authority.issue_cert("localhost", "127.0.0.1")
    files = {"cert": directory / "server.pem", "key": directory / "server.key"}
    made.private_key_pem.write_to_path(files["key"])
    files["key"].chmod(0o600)
    files["cert"].write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    AUTHORITY.cert_pem.write_to_path(directory / "ca.pem")
    return {name: str(path) for name, path in files.items()}


class Whoami(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Notes whom it is called by."""

    def __init__(self) -> None:
        self.callers: list[dict[str, list[bytes]]] = []

    def service(self, details: Any) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            auth = context.auth_context()
            self.callers.append({key: [*auth[key]] for key in IDENTITY if key in auth})
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def serving(files: CertificateFiles) -> AsyncIterator[tuple[Whoami, Server, int]]:
    server, handler = Server(ServerLimits(connections_max=100), tls=ServerTls(files)), Whoami()
    server.add_generic_rpc_handlers((handler,))
    port = server.bind("127.0.0.1", 0)
    await server.start()
    try:
        yield handler, server, port
    finally:
        await server.stop(grace=None)


async def call(port: int, client: trustme.LeafCert | None = None, **options: int) -> bytes:
    chain = None if client is None else b"".join(one.bytes() for one in client.cert_chain_pems)
    key = None if client is None else client.private_key_pem.bytes()
    credentials = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes(), key, chain)
    # Channels of equal options would share a connection.
    address, own = f"localhost:{port}", [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, own) as channel:
        answer: bytes = await channel.unary_unary("/w/whoami")(b"x", timeout=20)
        return answer


def run(main: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


@pytest.mark.parametrize(
    "names",
    [
        ("client.example", "second.example"),
        ("10.0.0.1", "::1", "a@b.example"),
        ("member-1.test.kvstore", "operator.kvstore"),
    ],
)
@pytest.mark.parametrize("common_name", ["alice", None])
def test_a_caller_is_known_as_grpcio_knows_it(
    tmp_path: Path, names: tuple[str, ...], common_name: str | None
) -> None:
    files = CertificateFiles(**write_files(tmp_path), ca=str(tmp_path / "ca.pem"))
    client = AUTHORITY.issue_cert(*names, common_name=common_name)

    async def main() -> None:
        reference = grpc.aio.server()
        expected = Whoami()
        reference.add_generic_rpc_handlers((expected,))
        port = reference.add_secure_port("127.0.0.1:0", files.server_credentials())
        await reference.start()
        await call(port, client)
        await reference.stop(None)
        async with serving(files) as (handler, _, port):
            await call(port, client)
        assert handler.callers == expected.callers
        assert handler.callers[0]["x509_subject_alternative_name"]

    run(main())


def test_without_an_authority_nobody_is_asked_who_it_is(tmp_path: Path) -> None:
    files = CertificateFiles(**write_files(tmp_path))

    async def main() -> None:
        async with serving(files) as (handler, _, port):
            await call(port)
        assert handler.callers == [
            {
                "transport_security_type": [b"ssl"],
                "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
            }
        ]

    run(main())


@pytest.mark.parametrize("stranger", [None, trustme.CA().issue_cert("client.example")])
def test_who_has_no_certificate_of_the_authority_is_refused_counted_and_logged(
    tmp_path: Path, stranger: trustme.LeafCert | None
) -> None:
    files = CertificateFiles(**write_files(tmp_path), ca=str(tmp_path / "ca.pem"))

    async def main() -> None:
        async with serving(files) as (handler, server, port):
            with structlog.testing.capture_logs() as logs:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(port, stranger)
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
                while server.connections:
                    await asyncio.sleep(0.01)
        assert files.handshakes.refused >= 1
        assert files.handshakes.begun >= files.handshakes.refused
        (line,) = [entry for entry in logs if entry["event"] == "handshakes failed"]
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert "certificate" in line["reason"].lower()
        assert not handler.callers

    run(main())


def test_new_files_are_shown_to_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    files = CertificateFiles(**write_files(tmp_path))
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    trust.set_alpn_protocols(["h2"])

    async def shown(port: int) -> bytes:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname="localhost"
        )
        der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return der

    async def main() -> None:
        async with serving(files) as (_, server, port):
            credentials = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes())
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                old = channel.unary_unary("/w/whoami")
                await old(b"x")
                before = await shown(port)
                assert await shown(port) == before
                write_files(tmp_path)
                files.look()
                after = await shown(port)
                assert after != before
                (tmp_path / "server.key").write_text("-----BEGIN nonsense")
                files.look()
                assert await shown(port) == after
                accepted = server.counters.accepted
                assert await old(b"y") == b"y"
                assert server.counters.accepted == accepted

    run(main())


@pytest.mark.parametrize("offered", [None, "http/1.1"])
def test_who_does_not_offer_http2_is_refused_and_counted(
    tmp_path: Path, offered: str | None
) -> None:
    files = CertificateFiles(**write_files(tmp_path))
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    if offered is not None:
        trust.set_alpn_protocols([offered])

    async def main() -> None:
        defects: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, seen: defects.append(seen))
        async with serving(files) as (_, server, port):
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trust, server_hostname="localhost"
                )
                await reader.read()
                writer.close()
            while server.connections:
                await asyncio.sleep(0.01)
        assert (files.handshakes.begun, files.handshakes.refused) == (1, 1)
        assert not defects

    run(main())


def test_who_is_silent_in_a_handshake_is_cut_and_counted(tmp_path: Path) -> None:
    files = CertificateFiles(**write_files(tmp_path))

    async def main() -> None:
        limits = ServerLimits(connections_max=10, half_open_s=0.2)
        server = Server(limits, tls=ServerTls(files))
        port = server.bind("127.0.0.1", 0)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        plain, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await plain.read()
        writer.close()
        await server.stop(grace=None)
        assert (files.handshakes.begun, files.handshakes.refused) == (2, 2)
        assert server.counters.cut == {"half-open": 1}

    run(main())
