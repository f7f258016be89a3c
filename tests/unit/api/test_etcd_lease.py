"""``etcdserverpb.Lease``: what handlers make of what lessor and log say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import lease as lease_module
from kvstore.api.handlers.etcd.lease import LeaseHandlers, grant_of
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.lease_calls import LeaseCalls
from kvstore.service.etcd.lessor import TimeToLive
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.requests import LeaseGrant, LeaseRevoke
from tests.unit.api.auth_gates import Caller, Machine, users_of
from tests.unit.api.etcd_desk import Desk, run, settle

Test = Callable[["Stage"], Coroutine[Any, Any, None]]


class Context:
    """Of a call; takes what is written, when it is told."""

    def __init__(self) -> None:
        self.written: list[pb.LeaseKeepAliveResponse] = []
        self.may_write = asyncio.Event()
        self.may_write.set()

    def time_remaining(self) -> None:
        return None

    async def write(self, response: pb.LeaseKeepAliveResponse) -> None:
        await self.may_write.wait()
        self.written.append(response)


class Stage:
    """Handlers over a desk; renewals are told when the test says so."""

    def __init__(self, desk: Desk) -> None:
        self.desk: Any = desk
        self.renewals: list[tuple[int, Callable[[int | Error], None]]] = []
        self.lives: TimeToLive | Error = TimeToLive(7, 10)
        self.leases = [3, -1, 2]
        self.keys: list[bytes] = []
        self.handlers = LeaseHandlers(self.desk, cast(LeaseCalls, self), 2)
        self.context = Context()
        self.call: Any = self.context
        self.requests: asyncio.Queue[int | None] = asyncio.Queue()
        self.desk.outcome = self.outcome
        self.desk.read_state = self.read_state
        self.desk.listing = asyncio.to_thread

    # LeaseCalls, and what else the desk is asked.

    def renew(self, id: int, deadline: float | None, done: Callable[[int | Error], None]) -> None:
        self.renewals.append((id, done))

    def time_to_live(
        self, id: int, deadline: float | None, done: Callable[[TimeToLive | Error], None]
    ) -> None:
        done(self.lives)

    def listing(self) -> Callable[[], list[int]]:
        self.listed_by: list[threading.Thread] = []

        def tell() -> list[int]:
            self.listed_by.append(threading.current_thread())
            return self.leases

        return tell

    async def outcome(self, ask: Callable[[Callable[[Any], None]], None]) -> Any:
        told: list[Any] = []
        ask(told.append)
        return told[0]

    async def read_state(
        self, read: Callable[..., Any], context: Any, allowed: Any, caller: Any = None
    ) -> Any:
        auth = self.auth
        if auth.enabled:
            allowed(auth, (caller or self.desk.gate.caller(context)).user(auth))
        return read(self, lambda: None)

    @property
    def auth(self) -> Auth:
        return cast(Auth, self.desk.users.auth)

    def lease_keys(self, id: int, step: Callable[[], None]) -> list[bytes]:
        return self.keys or [b"a", b"b%d" % id]

    # What tests do.

    async def keep_alive(self) -> asyncio.Task[None]:
        call = self.handlers.LeaseKeepAlive(self._requests(), self.call)
        task = asyncio.create_task(call)
        await settle()
        return task

    async def _requests(self) -> AsyncIterator[pb.LeaseKeepAliveRequest]:
        while (id := await self.requests.get()) is not None:
            yield pb.LeaseKeepAliveRequest(ID=id)

    def ask(self, *ids: int | None) -> None:
        for id in ids:
            self.requests.put_nowait(id)

    def answers(self) -> list[tuple[int, int]]:
        return [(response.ID, response.TTL) for response in self.context.written]


def lives_in(answer: bytes) -> pb.LeaseTimeToLiveResponse:
    return pb.LeaseTimeToLiveResponse.FromString(answer)


def leases_in(answer: bytes) -> list[int]:
    return [lease.ID for lease in pb.LeaseLeasesResponse.FromString(answer).leases]


def staged(test: Test) -> None:
    async def main(desk: Desk) -> None:
        await test(Stage(desk))

    run(main)


def test_renewals_are_answered_in_the_order_of_their_requests() -> None:
    async def test(stage: Stage) -> None:
        call = await stage.keep_alive()
        stage.ask(1, 2, 3)
        await settle()
        (_, first), (_, second), (_, third) = stage.renewals
        third(30)
        second(0)
        await settle()
        assert stage.answers() == []
        first(10)
        await settle()
        assert stage.answers() == [(1, 10), (2, 0), (3, 30)]
        assert not call.done()
        call.cancel()

    staged(test)


def test_stream_ends_well_once_the_client_has_said_all_and_heard_all() -> None:
    async def test(stage: Stage) -> None:
        call = await stage.keep_alive()
        stage.ask(1, None)
        await settle()
        assert not call.done()
        stage.renewals[0][1](10)
        await call
        assert stage.answers() == [(1, 10)]

    staged(test)


def test_stream_without_a_request_ends_well() -> None:
    async def test(stage: Stage) -> None:
        call = await stage.keep_alive()
        stage.ask(None)
        await call

    staged(test)


def test_nothing_is_renewed_or_told_before_it_is_known_whether_users_are_asked_for() -> None:
    async def test(stage: Stage) -> None:
        users = stage.desk.users
        stage.call = Caller()
        for enabled in (True, False):
            users.machine = None
            call = await stage.keep_alive()
            stage.ask(1)
            lives = asyncio.create_task(
                stage.handlers.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=4), stage.call)
            )
            leases = asyncio.create_task(
                stage.handlers.LeaseLeases(pb.LeaseLeasesRequest(), stage.call)
            )
            await settle()
            assert stage.renewals == []
            assert not any(task.done() for task in (call, lives, leases))
            users.machine = Machine(users_of({}, enabled=enabled))
            users.reach_point()
            await settle()
            assert len(stage.renewals) == (not enabled)
            if enabled:
                for refused in (call, lives, leases):
                    with pytest.raises(EtcdError, match="user name is empty"):
                        await refused
            else:
                assert lives_in(await lives).TTL == 7
                assert len(leases_in(await leases)) == 3
                call.cancel()

    staged(test)


def test_header_is_of_the_moment_before_the_renewal() -> None:
    async def test(stage: Stage) -> None:
        call = await stage.keep_alive()
        stage.ask(1)
        await settle()
        stage.desk.put(b"k")
        stage.renewals[0][1](10)
        await settle()
        assert stage.context.written[0].header.revision == 1
        call.cancel()

    staged(test)


def test_renewal_that_nobody_could_answer_ends_the_stream() -> None:
    async def test(stage: Stage) -> None:
        call = await stage.keep_alive()
        stage.ask(1, 2)
        await settle()
        stage.renewals[0][1](10)
        stage.renewals[1][1](EtcdError(Reason.NO_LEADER))
        with pytest.raises(EtcdError) as refusal:
            await call
        assert refusal.value.reason is Reason.NO_LEADER
        assert stage.answers() == [(1, 10)]

    staged(test)


def test_what_is_wrong_with_a_request_ends_the_stream_after_the_ones_before() -> None:
    async def requests() -> AsyncIterator[pb.LeaseKeepAliveRequest]:
        yield pb.LeaseKeepAliveRequest(ID=1)
        raise EtcdError(Reason.STOPPED)

    async def test(stage: Stage) -> None:
        call = asyncio.create_task(stage.handlers.LeaseKeepAlive(requests(), stage.call))
        await settle()
        stage.renewals[0][1](10)
        with pytest.raises(EtcdError):
            await call
        assert stage.answers() == [(1, 10)]

    staged(test)


def test_no_more_is_read_from_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "UNANSWERED_MAX", 3)

    async def test(stage: Stage) -> None:
        stage.context.may_write.clear()
        call = await stage.keep_alive()
        stage.ask(*range(1, 11))
        for _ in range(3):
            await settle()
            for _, done in stage.renewals:
                done(10)
        assert len(stage.renewals) == 3
        stage.context.may_write.set()
        told = 0
        while told < 10:
            await settle()
            for _, done in stage.renewals[told:]:
                done(10)
                told += 1
        await settle()
        assert [id for id, _ in stage.answers()] == [*range(1, 11)]
        call.cancel()

    staged(test)


def test_call_that_ends_leaves_no_task_behind() -> None:
    async def test(stage: Stage) -> None:
        call = await stage.keep_alive()
        call.cancel()
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    staged(test)


def test_lease_is_granted_and_revoked() -> None:
    async def test(stage: Stage) -> None:
        granted = await stage.handlers.LeaseGrant(pb.LeaseGrantRequest(ID=-9, TTL=30), stage.call)
        assert (granted.ID, granted.TTL, granted.error) == (-9, 30, "")
        assert granted.header.revision == 1
        revoked = await stage.handlers.LeaseRevoke(pb.LeaseRevokeRequest(ID=-9), stage.call)
        assert revoked.header.revision == 1
        with pytest.raises(EtcdError) as refusal:
            await stage.handlers.LeaseRevoke(pb.LeaseRevokeRequest(ID=-9), stage.call)
        assert refusal.value.reason is Reason.LEASE_NOT_FOUND

    staged(test)


def test_id_is_chosen_before_the_lease_is_proposed() -> None:
    drawn = {grant_of(0, 30, 2).id for _ in range(100)}
    assert len(drawn) == 100
    assert all(0 < id < 1 << 63 for id in drawn)


@pytest.mark.parametrize(("ttl", "granted"), [(-1, 2), (0, 2), (1, 2), (2, 2), (3, 3)])
def test_ttl_is_raised_to_the_least(ttl: int, granted: int) -> None:
    assert grant_of(5, ttl, 2) == LeaseGrant(5, granted)


def test_time_to_live_comes_with_the_keys_that_are_asked_for() -> None:
    async def test(stage: Stage) -> None:
        ask = stage.handlers.LeaseTimeToLive
        without = lives_in(await ask(pb.LeaseTimeToLiveRequest(ID=4), stage.call))
        assert (without.ID, without.TTL, without.grantedTTL, [*without.keys]) == (4, 7, 10, [])
        answer = lives_in(await ask(pb.LeaseTimeToLiveRequest(ID=4, keys=True), stage.call))
        assert [*answer.keys] == [b"a", b"b4"]
        stage.lives = TimeToLive(-1, 0)
        unknown = lives_in(await ask(pb.LeaseTimeToLiveRequest(ID=4, keys=True), stage.call))
        assert (unknown.ID, unknown.TTL, unknown.grantedTTL, [*unknown.keys]) == (4, -1, 0, [])

    staged(test)


def test_leases_are_listed_beside_the_event_loop() -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.handlers.LeaseLeases(pb.LeaseLeasesRequest(), stage.call)
        assert leases_in(answer) == [3, -1, 2]
        assert pb.LeaseLeasesResponse.FromString(answer).header.revision == 1
        assert stage.listed_by != [threading.current_thread()]

    staged(test)


def test_very_many_leases_and_keys_are_made_a_message_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What makes a message of a million keys lets no other thread in for a tenth of a second."""
    made: list[int] = []

    def counted(kind: Any) -> Any:
        def make(**fields: Any) -> Any:
            for items in (fields.get("keys"), fields.get("leases")):
                if items is not None:
                    made.append(len(items))
            return kind(**fields)

        return make

    stub = SimpleNamespace(**vars(pb))
    for name in ("LeaseTimeToLiveResponse", "LeaseLeasesResponse"):
        setattr(stub, name, counted(getattr(pb, name)))
    monkeypatch.setattr(lease_module, "pb", stub)

    async def test(stage: Stage) -> None:
        stage.leases = [*range(1, 5001)]
        stage.keys = [b"%d" % number for number in range(5000)]
        listed = await stage.handlers.LeaseLeases(pb.LeaseLeasesRequest(), stage.call)
        assert leases_in(listed) == stage.leases
        asked = pb.LeaseTimeToLiveRequest(ID=4, keys=True)
        lives = lives_in(await stage.handlers.LeaseTimeToLive(asked, stage.call))
        assert ([*lives.keys], lives.TTL) == (stage.keys, 7)

    staged(test)
    assert (sum(made), max(made)) == (10_000, lease_module.ENCODED_AT_ONCE)


def test_client_can_revoke_in_no_leaders_name() -> None:
    """``term`` and ``birth`` are a lessor's own."""
    assert LeaseRevoke(5) == LeaseRevoke(5, 0, 0)
