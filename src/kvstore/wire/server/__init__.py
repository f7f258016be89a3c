"""The server's side of the native wire: ``server`` first, then ``connection`` and ``call``."""

from kvstore.wire.server.limits import ServerLimits
from kvstore.wire.server.server import CallCounter, Server
from kvstore.wire.server.tls import Tls

__all__ = ["CallCounter", "Server", "ServerLimits", "Tls"]
