"""The options of history, in the words of what keeps it."""

from __future__ import annotations

import time

from kvstore.server.config.options import ServerOptions
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.history import History, Retention

__all__ = ["keep_history"]


def keep_history(etcd: EtcdService, options: ServerOptions) -> None:
    """Have ``etcd`` compact, at its ticks, what the options don't want to be kept."""
    retention = Retention(
        float(options.history_s), options.history_mib << 20, options.history_revisions
    )
    etcd.at_tick(History(etcd, retention, now=time.monotonic).tick)
