"""Handshakes that were begun, and those that failed or that nothing followed.

The native wire tells of each that fails (:meth:`Handshakes.refuse`). grpcio refuses without a word:
Python learns that one begins, as the certificate is asked for, and of a call once there is one. On
a port where whoever connects calls at once, as members do, the difference is those that were
refused (or given up): strangers, certificates that have ended. While good ones come as well it is
counted low, and made up for once they pause.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import structlog

__all__ = ["Handshakes"]

# How long a connection has for its first call.
PATIENCE_S = 10.0

# Between two lines in the log, at least: a scan of ports would fill it.
LOG_INTERVAL_S = 60.0

# Connections that are remembered to have called.
MET_MAX = 1024

log = structlog.get_logger("kvstore.tls")


class Handshakes:
    """Of one port. :meth:`begin` may be called from any thread, the others on one alone."""

    def __init__(self) -> None:
        self.begun = 0
        self.refused = 0
        self.exact = False
        """``refused`` are those that :meth:`refuse` told of, not those that no call followed."""
        self._lock = threading.Lock()
        self._met = 0
        self._known: OrderedDict[str, None] = OrderedDict()
        # What had begun at some moment, which is counted once its patience is over.
        self._counted: tuple[float, int] = (0.0, 0)
        self._logged_at = float("-inf")
        self._logged = 0

    def begin(self) -> None:
        """A handshake begins."""
        with self._lock:
            self.begun += 1

    def refuse(self, peer: str, reason: str) -> None:
        """The handshake of ``peer`` failed; said once in a while."""
        self.refused += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_INTERVAL_S:
            news, self._logged, self._logged_at = self.refused - self._logged, self.refused, now
            log.warning("handshakes failed", count=news, peer=peer, reason=reason)

    def meet(self, connection: str) -> None:
        """A call came over ``connection``, gRPC's name of the other end."""
        if connection in self._known:
            self._known.move_to_end(connection)
            return
        self._known[connection] = None
        self._met += 1
        if len(self._known) > MET_MAX:
            self._known.popitem(last=False)

    def look(self, now: float | None = None) -> None:
        """Count what nothing followed, and say so. To be called every few seconds."""
        if self.exact:
            return  # whoever tells of failures tells of all
        now = time.monotonic() if now is None else now
        since, begun = self._counted
        if now - since < PATIENCE_S:
            return
        self.refused = max(self.refused, begun - self._met)
        self._counted = (now, self.begun)
        news = self.refused - self._logged
        if news and now - self._logged_at >= LOG_INTERVAL_S:
            self._logged, self._logged_at = self.refused, now
            log.warning(
                "handshakes that no call followed: refused certificates, or strangers", count=news
            )
