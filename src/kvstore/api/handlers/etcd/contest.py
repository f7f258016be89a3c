"""What locks and elections are made of: keys of one prefix, each on its contestant's lease, of
which the oldest has won. Exactly as clientv3 does it, so that its contestants and those of Lock and
Election may compete with each other:

- A contestant's key is ``<name>/<its lease in hex>``, and its create revision is its place in line.
- It waits for the key right before it in line to be deleted, and looks again, until there is none.
- It leaves by deleting its key, or because its lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

import structlog

from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.auth_callers import Caller
from kvstore.api.handlers.etcd.following import follow
from kvstore.api.handlers.etcd.lease import grant_of
from kvstore.api.handlers.etcd.register import Context
from kvstore.errors import Error, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.hub import WatchHub
from kvstore.state.mvcc.answers import KeyValue, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.requests import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
    TxnOperation,
)

__all__ = ["Contest", "Place", "if_created_at", "line_for", "oldest_of"]

SESSION_TTL_S: Final = 60
"""Of the lease that a contestant gets who has none: nobody renews it."""

RETRY_S: Final = 0.1
"""Between two looks at the line while nobody leads."""

log = structlog.get_logger("kvstore.etcd")


class Place(NamedTuple):
    """A contestant's: its key, and the revision that this was created at.

    ``answer``: what the transaction that made it, or found it, came to. ``caller``: whose it is.
    """

    key: bytes
    lease: int
    revision: int
    answer: TxnAnswer
    caller: Caller


def line_for(name: bytes) -> tuple[bytes, bytes]:
    """The range of the keys of all contestants: those that begin with the name and a slash."""
    return name + b"/", name + b"0"


def oldest_of(name: bytes) -> Range:
    """Reads the key of who has won ``name``."""
    return Range(
        *line_for(name), limit=1, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE
    )


def if_created_at(key: bytes, revision: int, *then: TxnOperation) -> Txn:
    """``then``, if ``key`` is still the one that was created at ``revision`` (0: if there is
    none)."""
    created = Compare(key, CompareTarget.CREATE, CompareResult.EQUAL, revision)
    return Txn((created,), then)


class Contest:
    """Enters contestants and lets them wait. On a running event loop."""

    def __init__(self, asking: Asking, hub: WatchHub, ttl_min_s: int) -> None:
        self._asking = asking
        self._hub = hub
        self._ttl_min_s = ttl_min_s
        self._leaving: set[asyncio.Task[None]] = set()

    async def enter(
        self, name: bytes, lease: int, value: bytes, context: Context, *also: Range
    ) -> Place:
        """Take a place, or find that of the same lease; ``also`` is read in the same transaction.

        A ``lease`` of 0: one of SESSION_TTL_S is granted. Raises Error.
        """
        # One for as long as it lasts: a token may run out in line.
        caller = self._asking.gate.caller(context)
        if not lease:
            grant = grant_of(0, SESSION_TTL_S, self._ttl_min_s)
            lease = (await self._asking.propose(grant, context, caller)).id
        key = name + f"/{lease:x}".encode()
        entering = if_created_at(key, 0, Put(key, value, lease), *also)
        entering = entering._replace(failure=(Range(key), *also))
        proposed = asyncio.ensure_future(self._asking.propose(entering, context, caller))
        try:
            answer: TxnAnswer = await asyncio.shield(proposed)
        except asyncio.CancelledError:
            # The place may be taken by the time that nobody wants it.
            self._soon(self._leave_entered(key, lease, proposed, caller, context))
            raise
        return _place(key, lease, answer, caller)

    async def win(self, name: bytes, place: Place, context: Context) -> int:
        """Wait until all places before this one are left; the revision as of which it is so.

        Raises Error; whatever ends the waiting ends the place as well. SESSION_EXPIRED: it had
        ended before.
        """
        try:
            await self._wait(name, place, context)
            answer: RangeAnswer = await self._read(Range(place.key), place, context)
            if not answer.kvs or answer.kvs[0].create_revision != place.revision:
                raise EtcdError(Reason.SESSION_EXPIRED)
        except BaseException:
            self.leave(place, context)
            raise
        return answer.revision

    async def _wait(self, name: bytes, place: Place, context: Context) -> None:
        before = Range(
            *line_for(name),
            limit=1,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            max_create_revision=place.revision - 1,
        )
        while True:
            try:
                answer = await self._read(before, place, context)
                if not answer.kvs:
                    return
                await self._await_deletion(answer.kvs[0], answer.revision)
            except Error as error:
                if not _is_passing(error):
                    raise
                await asyncio.sleep(RETRY_S)

    async def _await_deletion(self, kv: KeyValue, revision: int) -> None:
        async with contextlib.aclosing(follow(self._hub, kv.key, b"", revision)) as followed:
            async for _, events in followed:
                if any(event.is_delete for event in events):
                    return

    async def _read(self, operation: Range, place: Place, context: Context) -> RangeAnswer:
        answer = await self._asking.read(
            operation, False, context, lambda answer: answer, place.caller
        )
        assert isinstance(answer, RangeAnswer)
        return answer

    def leave(self, place: Place, context: Context) -> None:
        """Have a place given up, even if the call has ended."""
        self._soon(self._delete(place, context))

    async def _leave_entered(
        self,
        key: bytes,
        lease: int,
        proposed: asyncio.Future[TxnAnswer],
        caller: Caller,
        context: Context,
    ) -> None:
        answer = await proposed
        if answer.succeeded:
            await self._delete(_place(key, lease, answer, caller), context)

    async def _delete(self, place: Place, context: Context) -> None:
        deletion = if_created_at(place.key, place.revision, DeleteRange(place.key))
        await self._asking.propose_unhurried(deletion, context, place.caller)

    def _soon(self, leaving: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_noted(leaving))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _noted(leaving: Coroutine[Any, Any, None]) -> None:
    try:
        await leaving
    except Error as error:
        log.warning("a place in line is left to its lease to give up", reason=str(error))


def _place(key: bytes, lease: int, answer: TxnAnswer, caller: Caller) -> Place:
    if answer.succeeded:
        return Place(key, lease, answer.revision, answer, caller)
    found = answer.answers[0]
    assert isinstance(found, RangeAnswer)
    return Place(key, lease, found.kvs[0].create_revision, answer, caller)


def _is_passing(error: Error) -> bool:
    """Whether waiting goes on: another leader, or another look at history, may cure it."""
    if isinstance(error, EtcdError):
        reason = error.reason
        is_passing = reason.code == "UNAVAILABLE" and reason is not Reason.STOPPED
        return is_passing or reason is Reason.COMPACTED
    return isinstance(error, UnavailableError)
