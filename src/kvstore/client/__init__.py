"""Clients of kvd: :class:`Client` for threads, :class:`AsyncClient` for asyncio.

Names are loaded on first use: a ``kvctl get`` needs neither locks nor what operators ask.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.client.asynchronous import AsyncClient
    from kvstore.client.auth import Access, AsyncAuth, Auth, AuthStatus, Permission
    from kvstore.client.blocking import Client
    from kvstore.client.elections import AsyncElection, AsyncLeadership, Election, Leadership
    from kvstore.client.entries import Event, EventKind, KeyValue
    from kvstore.client.health import Health
    from kvstore.client.keys import Compare, Keys
    from kvstore.client.leases import AsyncLease, Lease, LeaseStatus
    from kvstore.client.locks import AsyncLock, Lock
    from kvstore.client.maintenance import Alarm, AsyncMaintenance, Maintenance, StateHash
    from kvstore.client.optimistic import AsyncDraft, Draft
    from kvstore.client.options import TLS, RetryPolicy
    from kvstore.client.scanning import AsyncRange, Range
    from kvstore.client.status import (
        ClusterStatus,
        Member,
        Members,
        MemberStatus,
        Repairs,
        SlowCall,
    )
    from kvstore.client.telemetry import Telemetry
    from kvstore.client.transactions import (
        AsyncTransaction,
        Delete,
        DeleteResult,
        Get,
        GetResult,
        Put,
        PutResult,
        Transaction,
        TransactionResult,
    )
    from kvstore.client.watch_position import Batch
    from kvstore.client.watching import AsyncWatch, Watch

__all__ = [
    "TLS",
    "Access",
    "Alarm",
    "AsyncAuth",
    "AsyncClient",
    "AsyncDraft",
    "AsyncElection",
    "AsyncLeadership",
    "AsyncLease",
    "AsyncLock",
    "AsyncMaintenance",
    "AsyncRange",
    "AsyncTransaction",
    "AsyncWatch",
    "Auth",
    "AuthStatus",
    "Batch",
    "Client",
    "ClusterStatus",
    "Compare",
    "Delete",
    "DeleteResult",
    "Draft",
    "Election",
    "Event",
    "EventKind",
    "Get",
    "GetResult",
    "Health",
    "KeyValue",
    "Keys",
    "Leadership",
    "Lease",
    "LeaseStatus",
    "Lock",
    "Maintenance",
    "Member",
    "MemberStatus",
    "Members",
    "Permission",
    "Put",
    "PutResult",
    "Range",
    "Repairs",
    "RetryPolicy",
    "SlowCall",
    "StateHash",
    "Telemetry",
    "Transaction",
    "TransactionResult",
    "Watch",
]

_HOMES = {
    "kvstore.client.asynchronous": ("AsyncClient",),
    "kvstore.client.auth": ("Access", "AsyncAuth", "Auth", "AuthStatus", "Permission"),
    "kvstore.client.blocking": ("Client",),
    "kvstore.client.elections": ("AsyncElection", "AsyncLeadership", "Election", "Leadership"),
    "kvstore.client.entries": ("Event", "EventKind", "KeyValue"),
    "kvstore.client.health": ("Health",),
    "kvstore.client.keys": ("Compare", "Keys"),
    "kvstore.client.leases": ("AsyncLease", "Lease", "LeaseStatus"),
    "kvstore.client.locks": ("AsyncLock", "Lock"),
    "kvstore.client.maintenance": ("Alarm", "AsyncMaintenance", "Maintenance", "StateHash"),
    "kvstore.client.optimistic": ("AsyncDraft", "Draft"),
    "kvstore.client.options": ("TLS", "RetryPolicy"),
    "kvstore.client.scanning": ("AsyncRange", "Range"),
    "kvstore.client.status": (
        "ClusterStatus",
        "Member",
        "Members",
        "MemberStatus",
        "Repairs",
        "SlowCall",
    ),
    "kvstore.client.telemetry": ("Telemetry",),
    "kvstore.client.transactions": (
        "AsyncTransaction",
        "Delete",
        "DeleteResult",
        "Get",
        "GetResult",
        "Put",
        "PutResult",
        "Transaction",
        "TransactionResult",
    ),
    "kvstore.client.watch_position": ("Batch",),
    "kvstore.client.watching": ("AsyncWatch", "Watch"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'kvstore.client' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
