"""What a server asks of whoever has its certificates."""

from __future__ import annotations

import ssl
from typing import Protocol

__all__ = ["Tls"]


class Tls(Protocol):
    """Where connections get TLS from, and who hears of handshakes."""

    def context(self) -> ssl.SSLContext:
        """For the next handshake: with the certificates of this moment. Never waits."""

    def begin(self) -> None:
        """A handshake begins."""

    def refuse(self, peer: str, reason: str) -> None:
        """It failed, for ``reason``."""
