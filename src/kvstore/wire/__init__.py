"""gRPC on the native wire: asyncio protocols, TLS and timers around the sessions of ``_wire``."""

from kvstore.wire.availability import available

__all__ = ["available"]
