"""TLS of one connection without a socket: bytes of the network in, bytes of the network out."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Collection

from kvstore.wire.tls import HTTP1, HTTP2

__all__ = ["TlsLayer"]

# A record holds 16 KiB; so much is taken out of OpenSSL at one time.
READ_BYTES = 64 * 1024


class TlsLayer:
    """One side of TLS over OpenSSL's memory buffers; this side is the server.

    Who offers no protocol by ALPN has HTTP/1.1, where ``protocols`` have that.
    """

    def __init__(self, context: ssl.SSLContext, protocols: Collection[str] = (HTTP2,)) -> None:
        self._protocols = protocols
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ready = False
        """The handshake is done."""
        self.protocol = HTTP2
        """What is spoken, from then on."""

    def receive(self, data: memoryview) -> list[bytes]:
        """What the peer said, in pieces; b"" at the end: it says no more.

        Raises ssl.SSLError. In any case :meth:`pending` may have something for the peer then.
        """
        self._incoming.write(data)
        try:
            if not self.ready:
                self.object.do_handshake()
                self._check_protocol()
                self.ready = True
            pieces = []
            while True:
                piece = self.object.read(READ_BYTES)
                pieces.append(piece)
                if not piece:
                    return pieces
        except ssl.SSLWantReadError:
            return pieces if self.ready else []
        except ssl.SSLZeroReturnError:
            return [*pieces, b""]

    def _check_protocol(self) -> None:
        spoken = self.object.selected_alpn_protocol()
        self.protocol = spoken or HTTP1
        if self.protocol not in self._protocols:
            said = f"the client doesn't offer HTTP/2 by ALPN (but {spoken})"
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, said)

    def encrypt(self, data: bytes) -> bytes:
        """``data``, and whatever else waits, as it goes over the network."""
        self.object.write(data)
        return self._outgoing.read()

    def pending(self) -> bytes:
        """What OpenSSL has to say by itself: handshakes, alerts, new keys."""
        return self._outgoing.read()

    def close(self) -> bytes:
        """The end, for the peer: nothing follows."""
        with contextlib.suppress(ssl.SSLError):  # the peer's own end isn't waited for
            self.object.unwrap()
        return self._outgoing.read()
