"""HTTP/1.1 beside gRPC, on the same port: ``session`` has a connection's requests parsed by h11 and
answered one after the other, ``exchange`` is one of them as who answers it sees it."""

from kvstore.wire.http.exchange import App, Exchange
from kvstore.wire.http.limits import HttpLimits

__all__ = ["App", "Exchange", "HttpLimits"]
