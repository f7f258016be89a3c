"""A store of etcd's model without a cluster, for the handlers that are built on others' calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import AtOnce
from kvstore.service.etcd.hub import WatchHub
from kvstore.state.mvcc.answers import Answer, Event, EventPage
from kvstore.state.mvcc.requests import (
    Compact,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    Range,
)
from tests.unit.api.auth_gates import Users
from tests.unit.state.mvcc.oracle import Oracle

__all__ = ["Desk", "run", "settle"]


class Desk:
    """An :class:`kvstore.api.handlers.etcd.asking.Asking`, and what a hub reads.

    ``troubles`` are raised by the next reads. ``held``: proposals wait until it is set.
    """

    def __init__(self) -> None:
        self.oracle = Oracle()
        self.troubles: list[Error] = []
        self.held: asyncio.Event | None = None
        self.proposed = 0
        loop = asyncio.get_running_loop()
        self.hub = WatchHub(
            now=loop.time,
            soon=loop.call_soon,
            work=AtOnce(),
            rng=random.Random(1),
            damaged=lambda error: None,
        )
        self.hub.follow(self)
        self.users = Users()
        self.gate = self.users.gate

    # Asking.

    def header(self, revision: int | None = None) -> pb.ResponseHeader:
        return pb.ResponseHeader(revision=self.revision if revision is None else revision)

    async def propose(self, operation: Operation, context: Any, caller: Any = None) -> Any:
        if self.held is not None:
            await self.held.wait()
        await asyncio.sleep(0)
        return self.do(operation)

    async def propose_unhurried(self, operation: Operation, context: Any, caller: Any) -> Any:
        return await self.propose(operation, context, caller)

    async def read(
        self,
        operation: Range,
        serializable: bool,
        context: Any,
        render: Callable[[Any], Any],
        caller: Any = None,
    ) -> Any:
        await asyncio.sleep(0)
        if self.troubles:
            raise self.troubles.pop(0)
        return render(self.oracle.read(operation))

    # A state machine.

    @property
    def revision(self) -> int:
        return self.oracle.revision

    @property
    def compacted(self) -> int:
        return self.oracle.compacted

    def events(
        self, first: int, last: int, bytes_max: int, *more: object, **most: object
    ) -> EventPage:
        if first < self.compacted:
            raise EtcdError(Reason.COMPACTED)
        revisions: list[tuple[int, tuple[Event, ...]]] = [
            (revision, tuple(self.oracle.events.get(revision, ())))
            for revision in range(first, last + 1)
        ]
        return EventPage(tuple(revisions), last + 1)

    events_cached = events

    # What tests do.

    def do(self, operation: Operation) -> Any:
        """Apply it, and let watches have it. Raises EtcdError."""
        self.proposed += 1
        proposal = Proposal(self.proposed.to_bytes(16, "big"), operation)
        answer: Answer | EtcdError = self.oracle.apply(proposal, 1)
        self.hub.applied()
        if isinstance(answer, EtcdError):
            raise answer
        return answer

    def grant(self, *ids: int) -> None:
        for id in ids:
            self.do(LeaseGrant(id, 30))

    def revoke(self, id: int) -> None:
        self.do(LeaseRevoke(id))

    def put(self, key: bytes) -> None:
        self.do(Put(key))

    def compact(self) -> None:
        """Forget all but what is there now."""
        self.do(Compact(self.revision))

    def keys(self) -> list[bytes]:
        return sorted(self.oracle.now)


def run(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    """Let ``test`` have a desk, and a loop."""

    async def main() -> None:
        async with asyncio.timeout(20):
            await test(Desk())

    asyncio.run(main())


async def settle() -> None:
    """Let everything happen that waits for no clock."""
    for _ in range(50):
        await asyncio.sleep(0)
