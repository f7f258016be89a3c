"""``v3lockpb.Lock``: locks that callers wait for, made of keys (:mod:`contest`).

A lock is held as long as its lease lives, which its holder can't know for sure: whoever must not
act without it compares the create revision of its key in each transaction (docs/etcd-api.md).
"""

from __future__ import annotations

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.contest import Contest, oldest_of
from kvstore.api.handlers.etcd.register import Context
from kvstore.state.mvcc.answers import RangeAnswer
from kvstore.state.mvcc.requests import DeleteRange

__all__ = ["LockHandlers"]


class LockHandlers:
    """Waits for locks on behalf of its callers."""

    def __init__(self, asking: Asking, contest: Contest) -> None:
        self._asking = asking
        self._contest = contest

    async def Lock(self, request: pb.LockRequest, context: Context) -> pb.LockResponse:
        name = request.name
        place = await self._contest.enter(name, request.lease, b"", context, oldest_of(name))
        oldest = place.answer.answers[1]
        assert isinstance(oldest, RangeAnswer)
        revision = place.answer.revision
        if oldest.kvs[0].create_revision != place.revision:
            revision = await self._contest.win(name, place, context)
        return pb.LockResponse(
            header=self._asking.header(revision), key=place.key, create_revision=place.revision
        )

    async def Unlock(self, request: pb.UnlockRequest, context: Context) -> pb.UnlockResponse:
        answer = await self._asking.propose(DeleteRange(request.key), context)
        return pb.UnlockResponse(header=self._asking.header(answer.revision))
