"""Who can't connect is told why, and what to do, in the same words by either wire."""

from __future__ import annotations

import contextlib
import datetime
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from kvstore import Put
from kvstore.client import TLS, Client
from kvstore.client.channels import Transport
from kvstore.errors import DeadlineExceededError, Error, Outcome, UnavailableError
from tests.integration.process import FRONTS, Certificates, Kvd, environment

transports = pytest.mark.parametrize("transport", FRONTS)

UNTRUSTED = "the server's certificate can't be trusted: "
WANTED = "the server asks for a client's certificate, and trusts none that it got"
CLOSED = "Socket closed; does the server talk TLS (--tls-ca), or refuse the certificate?"


def said(address: str, tls: TLS | None, transport: Transport) -> str:
    """What a put says, after the address."""
    with (
        Client(address, tls=tls, timeout=2.5, transport=transport) as client,
        pytest.raises(UnavailableError) as raised,
    ):
        client.put(b"k", b"v")
    assert raised.value.outcome is Outcome.NOT_APPLIED
    assert raised.value.attempts > 1
    _, _, port = address.rpartition(":")
    begun, where, words = str(raised.value).partition(f":{port}: ")
    assert begun.startswith("cannot connect to "), raised.value
    assert where
    return words


def issued(directory: Path, name: str, blob: trustme.LeafCert) -> tuple[Path, Path]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    for number, one in enumerate(blob.cert_chain_pems):
        one.write_to_path(cert, append=number > 0)
    blob.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return cert, key


@transports
def test_what_certificates_are_refused_for(tmp_path: Path, transport: Transport) -> None:
    made = Certificates.make(tmp_path)
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    stranger = issued(tmp_path, "stranger", other.issue_cert("client"))
    with Kvd(tmp_path / "data", certificates=made) as kvd:
        assert said(kvd.address, None, transport) == CLOSED
        words = said(kvd.address, TLS(tmp_path / "other.pem"), transport)
        assert words.startswith(f"{UNTRUSTED}none of the known authorities signed it; give the one")
        assert words == said(kvd.address, TLS(), transport)
        words = said(kvd.address, TLS(made.ca, server_name="db9"), transport)
        assert words.startswith(f"{UNTRUSTED}it is another name's")
    with Kvd(tmp_path / "mutual", f"--tls_client_ca={made.ca}", certificates=made) as kvd:
        assert said(kvd.address, None, transport) == CLOSED
        assert said(kvd.address, TLS(made.ca), transport).startswith(WANTED)
        assert said(kvd.address, TLS(made.ca, *stranger), transport).startswith(WANTED)
    with Kvd(tmp_path / "plain") as kvd:
        words = said(kvd.address, TLS(made.ca), transport)
        assert words.startswith("the server talks no TLS there: leave out tls=")


@transports
def test_a_certificate_that_has_expired(tmp_path: Path, transport: Transport) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    cert, key = issued(tmp_path, "old", authority.issue_cert("127.0.0.1", not_after=yesterday))
    certificates = Certificates(tmp_path / "ca.pem", cert, key)
    with Kvd(tmp_path / "data", certificates=certificates) as kvd:
        words = said(kvd.address, TLS(certificates.ca), transport)
        assert words == f"{UNTRUSTED}it has expired; renew it there (kvctl pki renew)"


@transports
def test_names_and_addresses_that_are_none(transport: Transport) -> None:
    words = said("nosuch.invalid:50051", None, transport)
    assert words == "the name can't be resolved: there is no such host; is it spelt right?"
    assert said("127.0.0.1:1", None, transport) == "Connection refused"


@contextlib.contextmanager
def server_that_says(words: bytes | None) -> Iterator[str]:
    """Accepts whoever comes, and says that, or nothing."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = listening.accept()
                    held.append(accepted)
                    if words is not None:
                        accepted.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in held:
                one.close()


@transports
def test_a_server_of_something_else(transport: Transport) -> None:
    with server_that_says(b"SSH-2.0-OpenSSH_9.2\r\n") as address:
        words = said(address, None, transport)
    assert words == "what answers there is no gRPC server; is it the right port?"


@transports
@pytest.mark.parametrize("tls", [None, TLS()])
def test_a_server_that_answers_nothing_keeps_nobody_longer_than_told(
    transport: Transport, tls: TLS | None
) -> None:
    with (
        server_that_says(None) as address,
        Client(address, timeout=1, transport=transport, tls=tls) as client,
    ):
        for call in (
            lambda: client.put(b"k", b"v"),
            lambda: client.get(b"k"),
            lambda: client.range(prefix=b"k").list(),
            lambda: client.transaction().then(Put(b"k", b"v")).commit(),
            lambda: client.watch(b"k").__enter__(),
            lambda: client.lease(5).__enter__(),
            lambda: list(client.save_snapshot()),
            client.status,
        ):
            began = time.monotonic()
            with pytest.raises((DeadlineExceededError, UnavailableError)) as raised:
                call()
            assert isinstance(raised.value, Error)
            assert raised.value.outcome in (Outcome.NOT_APPLIED, None)
            # A second more than it was told, and what a busy machine adds.
            assert time.monotonic() - began < 8


WITHOUT_DESCRIPTORS = """
import os, resource, sys
import kvstore

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with kvstore.Client(sys.argv[1], timeout=20, transport=sys.argv[2]) as client:
    client.put(b"k", b"v")
with kvstore.Client(sys.argv[1], timeout=1, transport=sys.argv[2]) as client:
    try:
        client.get(b"k", timeout=0.001)
    except kvstore.Error:
        pass
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    other = kvstore.Client("127.0.0.1:1", timeout=1, transport=sys.argv[2])
    try:
        other.put(b"k", b"v")
    except kvstore.UnavailableError as error:
        print(error.outcome, error)
    for one in held:
        os.close(one)
    print(client.get(b"k", timeout=20))
"""


@transports
def test_a_process_without_descriptors_is_told_so_and_goes_on_when_there_are_some(
    tmp_path: Path, transport: Transport
) -> None:
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_DESCRIPTORS, kvd.address, transport],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
    assert done.stdout.splitlines() == [
        "not-applied cannot connect to 127.0.0.1:1: this process, or machine, has no file "
        "descriptors left (ulimit -n)",
        "b'v'",
    ], done.stderr
