"""Clients of kvd: :class:`Client` for threads, :class:`AsyncClient` for asyncio."""

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
from kvstore.client.status import ClusterStatus, Member, Members, MemberStatus, Repairs, SlowCall
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
