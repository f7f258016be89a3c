"""The services of etcd's API on a listener, and what lives as long as they."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from functools import partial
from typing import Any

from kvstore.api.etcd.methods import SERVICES
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.auth import AuthHandlers
from kvstore.api.handlers.etcd.auth_gate import Gate
from kvstore.api.handlers.etcd.auth_passwords import Passwords
from kvstore.api.handlers.etcd.batches import ONCE, WHOLE, EtcdBatches
from kvstore.api.handlers.etcd.cluster import ClusterHandlers
from kvstore.api.handlers.etcd.contest import Contest
from kvstore.api.handlers.etcd.election import ElectionHandlers
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.kv import KVHandlers
from kvstore.api.handlers.etcd.lease import LeaseHandlers
from kvstore.api.handlers.etcd.lock import LockHandlers
from kvstore.api.handlers.etcd.maintenance import MaintenanceHandlers
from kvstore.api.handlers.etcd.register import register, register_refusals
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.etcd.watch import WatchHandlers
from kvstore.replica.backup_file import sealed
from kvstore.server.listeners.front import Listener
from kvstore.server.nodes.node import Node

__all__ = ["EtcdRefusals", "EtcdServices"]


class EtcdServices:
    """Of one process, on any number of listeners. On a running event loop."""

    def __init__(self, node: Node, address: str, rights: Rights) -> None:
        """``address``: where clients reach this process."""
        service = node.etcd
        gate = Gate(service, node.guard.tokens)
        asking = Asking(service, gate)
        rights = Rights(gate.or_root(rights.is_operator), gate.or_root(rights.may_keep_up))
        self._passwords = Passwords()
        self._entrance = Entrance(service, gate.admit)
        service.at_tick(self._entrance.tick)
        leases, watches = node.leases, node.watches
        members = partial(node.etcd_members, address)
        contest = Contest(asking, watches, leases.ttl_min_s)
        kv = KVHandlers(asking, rights)
        lease = LeaseHandlers(asking, leases.calls, leases.ttl_min_s)
        self._new_batches = partial(EtcdBatches, service, self._entrance, kv, lease, leases.calls)
        self._handlers: dict[str, object] = {
            "etcdserverpb.KV": kv,
            "etcdserverpb.Lease": lease,
            "v3lockpb.Lock": LockHandlers(asking, contest),
            "v3electionpb.Election": ElectionHandlers(asking, contest, watches),
            "etcdserverpb.Watch": WatchHandlers(node.watches, service.header, gate),
            "etcdserverpb.Auth": AuthHandlers(asking, self._passwords),
            "etcdserverpb.Maintenance": MaintenanceHandlers(
                service, asking, rights, _Member(node, address)
            ),
            "etcdserverpb.Cluster": ClusterHandlers(service, asking, rights, node, members),
        }

    def add(self, services: Any) -> None:
        """Answer calls that come to a server."""
        for service in SERVICES:
            register(services, service, self._handlers.get(service), self._entrance)

    def take_batches(self, listener: Listener) -> None:
        """Take the calls that come most in batches, where a listener can give them so."""
        batches = self._new_batches()
        front = listener.add_whole_methods(WHOLE, ONCE, batches.take)
        if front is not None:
            batches.answered_by(front)

    def close(self) -> None:
        """End streams, so that nobody waits for them, and let no call in any more."""
        self._entrance.close()
        self._passwords.close()


class _Member:
    """A :class:`kvstore.api.handlers.etcd.maintenance.Member`."""

    def __init__(self, node: Node, address: str) -> None:
        self._node = node
        self._address = address

    @property
    def quota_bytes(self) -> int:
        return self._node.quota_bytes

    def voters(self) -> Collection[int]:
        members = self._node.etcd_members(self._address)
        return [member.id for member in members if not member.is_learner]

    async def transfer_leadership(self, to: int) -> int:
        return await self._node.transfer_leadership(to)

    def save_sealed(self, stale: bool) -> AsyncGenerator[bytes, None]:
        return self._node.save_snapshot(stale, sealed)


class EtcdRefusals:
    """In place of the services, where the API is switched off."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def add(self, services: Any) -> None:
        """Refuse calls that come to a server."""
        register_refusals(services, self._reason)

    def take_batches(self, listener: Listener) -> None:
        """There are none: its calls end like all others."""

    def close(self) -> None:
        """There is nothing to end."""
