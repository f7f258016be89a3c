"""The services of etcd's API on a listener, and what lives as long as they."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kvstore.api.etcd.methods import SERVICES
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.batches import ONCE, WHOLE, EtcdBatches
from kvstore.api.handlers.etcd.cluster import ClusterHandlers
from kvstore.api.handlers.etcd.contest import Contest
from kvstore.api.handlers.etcd.election import ElectionHandlers
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.kv import KVHandlers
from kvstore.api.handlers.etcd.lease import LeaseHandlers
from kvstore.api.handlers.etcd.lock import LockHandlers
from kvstore.api.handlers.etcd.maintenance import MaintenanceHandlers
from kvstore.api.handlers.etcd.register import Context, register
from kvstore.api.handlers.etcd.watch import WatchHandlers
from kvstore.server.listeners.front import Listener
from kvstore.server.nodes.node import Node

__all__ = ["EtcdServices"]

# Why what isn't served isn't.
REASONS = {"etcdserverpb.Auth": "there are no users"}


class EtcdServices:
    """Of one process, on any number of listeners. On a running event loop."""

    def __init__(self, node: Node, address: str, allows: Callable[[Context], bool]) -> None:
        """``address``: where clients reach this process. ``allows`` says who is an operator."""
        service = node.etcd
        asking = Asking(service)
        self._entrance = Entrance(service)
        service.at_tick(self._entrance.tick)
        leases, watches = node.leases, node.watches
        contest = Contest(asking, watches, leases.ttl_min_s)
        kv = KVHandlers(asking)
        lease = LeaseHandlers(asking, leases.calls, leases.ttl_min_s)
        self._new_batches = partial(EtcdBatches, service, self._entrance, kv, lease, leases.calls)
        self._handlers: dict[str, object] = {
            "etcdserverpb.KV": kv,
            "etcdserverpb.Lease": lease,
            "v3lockpb.Lock": LockHandlers(asking, contest),
            "v3electionpb.Election": ElectionHandlers(asking, contest, watches),
            "etcdserverpb.Watch": WatchHandlers(node.watches, service.header),
            "etcdserverpb.Maintenance": MaintenanceHandlers(service, asking, allows),
            "etcdserverpb.Cluster": ClusterHandlers(asking, partial(node.etcd_members, address)),
        }

    def add(self, services: Any) -> None:
        """Answer calls that come to a server."""
        for service, methods in SERVICES.items():
            reasons = dict.fromkeys(methods, REASONS.get(service, ""))
            handlers = self._handlers.get(service)
            register(services, service, handlers, self._entrance, reasons)

    def take_batches(self, listener: Listener) -> None:
        """Take the calls that come most in batches, where a listener can give them so."""
        batches = self._new_batches()
        front = listener.add_whole_methods(WHOLE, ONCE, batches.take)
        if front is not None:
            batches.answered_by(front)

    def close(self) -> None:
        """End streams, so that nobody waits for them, and let no call in any more."""
        self._entrance.close()
