"""``v3electionpb.Election``: elections whose candidates wait for their turn (:mod:`contest`)."""

from __future__ import annotations

import contextlib
from typing import NoReturn

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.auth_callers import Caller
from kvstore.api.handlers.etcd.contest import Contest, if_created_at, line_for, oldest_of
from kvstore.api.handlers.etcd.following import follow
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.translate import key_value_message
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.hub import WatchHub
from kvstore.state.mvcc.answers import KeyValue, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.requests import DeleteRange, Put

__all__ = ["ElectionHandlers"]


class ElectionHandlers:
    """Lets callers stand for election, speak while they lead, and hear who does."""

    def __init__(self, asking: Asking, contest: Contest, hub: WatchHub) -> None:
        self._asking = asking
        self._contest = contest
        self._hub = hub

    async def Campaign(self, request: pb.CampaignRequest, context: Context) -> pb.CampaignResponse:
        name, value = request.name, request.value
        place = await self._contest.enter(name, request.lease, value, context)
        if not place.answer.succeeded and _only(place.answer).value != value:
            try:
                await self._proclaim(place.key, place.revision, place.lease, value, context)
            except BaseException:
                self._contest.leave(place, context)
                raise
        await self._contest.win(name, place, context)
        return pb.CampaignResponse(
            header=self._asking.header(place.answer.revision),
            leader=pb.LeaderKey(name=name, key=place.key, rev=place.revision, lease=place.lease),
        )

    async def Proclaim(self, request: pb.ProclaimRequest, context: Context) -> pb.ProclaimResponse:
        leader = _leader_of(request)
        revision = await self._proclaim(
            leader.key, leader.rev, leader.lease, request.value, context
        )
        return pb.ProclaimResponse(header=self._asking.header(revision))

    async def _proclaim(
        self, key: bytes, revision: int, lease: int, value: bytes, context: Context
    ) -> int:
        """Say something else as the candidate that has this key. Raises NOT_ELECTED."""
        saying = if_created_at(key, revision, Put(key, value, lease))
        answer: TxnAnswer = await self._asking.propose(saying, context)
        if not answer.succeeded:
            raise EtcdError(Reason.NOT_ELECTED)
        return answer.revision

    async def Resign(self, request: pb.ResignRequest, context: Context) -> pb.ResignResponse:
        leader = _leader_of(request)
        leaving = if_created_at(leader.key, leader.rev, DeleteRange(leader.key))
        answer = await self._asking.propose(leaving, context)
        return pb.ResignResponse(header=self._asking.header(answer.revision))

    async def Leader(self, request: pb.LeaderRequest, context: Context) -> pb.LeaderResponse:
        answer = await self._elected(request.name, context)
        if not answer.kvs:
            raise EtcdError(Reason.NOBODY_ELECTED)
        return self._response(answer.kvs[0], answer.revision)

    async def Observe(self, request: pb.LeaderRequest, context: Context) -> NoReturn:
        """What the elected one says, and then the next one.

        Nothing of one of them is left out, unless history is compacted before it is told.
        """
        # One for as long as it lasts, as in Contest.
        caller = self._asking.gate.caller(context)
        while True:
            try:
                await self._observe(request.name, context, caller)
            except EtcdError as error:
                if error.reason is not Reason.COMPACTED:
                    raise

    async def _observe(self, name: bytes, context: Context, caller: Caller) -> None:
        """Tell of one reign, the present one or the next, to its end."""
        answer = await self._elected(name, context, caller)
        if answer.kvs:
            kv, revision = answer.kvs[0], answer.revision
        else:
            kv, revision = await self._first_candidate(name, answer.revision)
            self._asking.gate.check_read(caller, kv.key)
        await context.write(self._response(kv, revision))
        await self._relay(kv.key, revision + 1, context, caller)

    async def _first_candidate(self, name: bytes, revision: int) -> tuple[KeyValue, int]:
        """Wait for one, there being none at ``revision``."""
        line = line_for(name)
        async with contextlib.aclosing(follow(self._hub, *line, revision)) as followed:
            async for _, events in followed:
                for event in events:
                    if not event.is_delete:
                        return event.kv, event.kv.mod_revision
        raise AssertionError("it is followed until an error ends that")

    async def _relay(self, key: bytes, revision: int, context: Context, caller: Caller) -> None:
        """Tell what is put at ``key`` until it is deleted, or its caller may not read it."""
        async with contextlib.aclosing(follow(self._hub, key, b"", revision)) as followed:
            async for current, events in followed:
                for event in events:
                    if event.is_delete:
                        return
                    self._asking.gate.check_read(caller, key)
                    await context.write(self._response(event.kv, current))

    async def _elected(
        self, name: bytes, context: Context, caller: Caller | None = None
    ) -> RangeAnswer:
        answer = await self._asking.read(
            oldest_of(name), False, context, lambda answer: answer, caller
        )
        assert isinstance(answer, RangeAnswer)
        return answer

    def _response(self, kv: KeyValue, revision: int) -> pb.LeaderResponse:
        return pb.LeaderResponse(header=self._asking.header(revision), kv=key_value_message(kv))


def _leader_of(request: pb.ProclaimRequest | pb.ResignRequest) -> pb.LeaderKey:
    if not request.HasField("leader"):
        raise EtcdError(Reason.NO_LEADER_KEY)
    return request.leader


def _only(answer: TxnAnswer) -> KeyValue:
    (found,) = answer.answers
    assert isinstance(found, RangeAnswer)
    return found.kvs[0]
