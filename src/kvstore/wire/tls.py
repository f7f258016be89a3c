"""TLS contexts made of PEM bytes in memory: nobody waits for a disk, and no file can change below.

HTTP/2 is offered by ALPN, and TLS 1.2 is the least, as gRPC has it. A server that speaks HTTP/1.1
as well takes that with clients that know both: these are browsers, probes and the like, and what
HTTP/2 is spoken for here is gRPC alone, whose clients offer nothing else.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["BOTH", "HTTP1", "HTTP2", "client_context", "load_pair", "server_context"]

HTTP2: Final = "h2"
HTTP1: Final = "http/1.1"
BOTH: Final = (HTTP1, HTTP2)


def server_context(
    cert: bytes, key: bytes, ca: bytes | None, protocols: Sequence[str] = (HTTP2,)
) -> ssl.SSLContext:
    """A server's: with ``ca``, whoever connects must show a certificate that it has signed.

    ``protocols``: what it speaks, the first choice first. Raises ssl.SSLError for PEM that OpenSSL
    can't use.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(protocols))
    load_pair(context, cert, key)
    if ca is not None:
        context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: bytes | None, cert: bytes | None = None, key: bytes | None = None
) -> ssl.SSLContext:
    """A client's: it trusts ``ca``, or the system's authorities, and shows ``cert`` if asked.

    Raises ssl.SSLError for PEM that OpenSSL can't use.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([HTTP2])
    if ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
    if cert is not None and key is not None:
        load_pair(context, cert, key)
    return context


def load_pair(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """Let ``context`` show ``cert``. Raises ssl.SSLError."""
    with _file_of(cert + b"\n" + key) as path:
        context.load_cert_chain(path)


@contextlib.contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """The name of a file in memory, which OpenSSL's function wants and no disk has."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
