"""What a member that was added by etcd's API says of itself, once it has begun.

Whoever adds one so can't tell where clients will reach it, and etcd's members vote from the first:
such a member stands in the list with its peer address for both, and with the wish to vote. It tells
the leader its own client address, and asks for its vote until it has caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from kvstore.api.v1 import admin_pb2
from kvstore.errors import Error
from kvstore.raft import Membership
from kvstore.server.config.cluster_config import Node
from kvstore.server.peers.addresses import nodes_of, wants_vote

__all__ = ["RETRY_S", "Publishing"]

RETRY_S = 1.0
"""Between two tries: leaders change, and a learner needs its time."""

Ask = Callable[[admin_pb2.ChangeMembersRequest], Awaitable[None]]

log = structlog.get_logger("kvstore.peer")


class Publishing:
    """Of one member. On a running event loop."""

    def __init__(self, own: Node, ask: Ask, retry_s: float = RETRY_S) -> None:
        """``own``: as its configuration has it. ``ask`` has the leader change something."""
        self._own = own
        self._ask = ask
        self._retry_s = retry_s
        self._membership = Membership()
        self._saying: asyncio.Task[None] | None = None

    def follow(self, membership: Membership) -> None:
        """These are the members: say what there is to say."""
        self._membership = membership
        if self._saying is None and self._due() is not None:
            self._saying = asyncio.get_running_loop().create_task(self._say())

    def _due(self) -> admin_pb2.ChangeMembersRequest | None:
        """What the leader is to change; None when all is known."""
        own, membership = self._own, self._membership
        if own.node_id not in membership.members:
            return None
        known = nodes_of(membership)[own.node_id]
        if known.client_addr == known.peer_addr != own.client_addr:
            update = admin_pb2.Member(member_id=own.node_id, client_address=own.client_addr)
            return admin_pb2.ChangeMembersRequest(update=update)
        if own.node_id in membership.learners and wants_vote(membership, own.node_id):
            return admin_pb2.ChangeMembersRequest(promote=own.node_id)
        return None

    async def _say(self) -> None:
        try:
            while (change := self._due()) is not None:
                with contextlib.suppress(Error):
                    await self._ask(change)
                await asyncio.sleep(self._retry_s)
        except Exception:
            log.exception("what this member has to say of itself couldn't be said")
        finally:
            self._saying = None

    def close(self) -> None:
        """Say nothing more."""
        if self._saying is not None:
            self._saying.cancel()
