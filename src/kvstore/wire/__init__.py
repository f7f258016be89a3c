"""gRPC on the native wire: asyncio protocols, TLS and timers around the sessions of ``_wire``."""

from kvstore.wire.availability import available
from kvstore.wire.errors import RpcError

__all__ = ["RpcError", "available"]
