"""Clients of kvd: :class:`Client` for threads, :class:`AsyncClient` for asyncio."""

from kvstore.client.asynchronous import AsyncClient
from kvstore.client.blocking import Client
from kvstore.client.options import TLS, RetryPolicy
from kvstore.client.status import ClusterStatus, Member, Members, MemberStatus

__all__ = [
    "TLS",
    "AsyncClient",
    "Client",
    "ClusterStatus",
    "Member",
    "MemberStatus",
    "Members",
    "RetryPolicy",
]
