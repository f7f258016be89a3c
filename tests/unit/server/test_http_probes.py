"""What a member says of its health, and which requests are let in at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs

import pytest

from kvstore.api.handlers.gateway.gateway import Gateway
from kvstore.errors import Error, StorageError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.server.http.face import HttpFace
from kvstore.server.http.probes import Probes
from kvstore.state.mvcc.requests import AlarmKind


class Service:
    """As much of an EtcdService as probes ask for; reads are answered by hand."""

    def __init__(self) -> None:
        self.model_enabled = True
        self.is_learner = False
        self.alarms: set[tuple[int, int]] = set()
        self.member: Any = self
        self.outcome: object = "what is read"
        self.waiting: list[Callable[[Any], None]] = []
        self.answers_at_once = True
        self.reads: list[bool] = []

    @property
    def machine(self) -> Any:
        return self.member

    def read(
        self, operation: Any, serializable: bool, deadline: Any, done: Callable[[Any], None]
    ) -> None:
        self.reads.append(serializable)
        if self.answers_at_once:
            done(self.outcome)
        else:
            self.waiting.append(done)


class Member:
    """A face over a service that is all made up."""

    def __init__(self, *, etcd_api: bool = True) -> None:
        self.service = Service()
        self.leader = 1
        self.trouble = ""
        self.gateway = Gateway(1000)
        served: Any = self.service if etcd_api else None
        self.face = HttpFace(
            Probes(served, lambda: self.leader, lambda: self.trouble), self.gateway
        )

    async def get(self, target: str, method: str = "GET", **fields: str) -> tuple[int, str]:
        exchange = Exchange(method, target, fields)
        await self.face(exchange)  # type: ignore[arg-type]
        assert exchange.answer is not None
        return exchange.answer


class Exchange:
    """As much of one as the face uses."""

    def __init__(self, method: str, target: str, fields: dict[str, str]) -> None:
        self.method = method
        self.path, _, query = target.partition("?")
        self.query = parse_qs(query, keep_blank_values=True)
        self.fields = [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.answer: tuple[int, str] | None = None

    def respond(self, status: int, body: bytes = b"", fields: Any = ()) -> None:
        assert self.answer is None
        self.answer = int(status), body.decode()


Scene = Callable[[Member], Coroutine[Any, Any, None]]


def scene(played: Scene) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            member = Member()
            async with asyncio.timeout(30):
                await played(member)
            member.gateway.close()

        asyncio.run(main())

    test.__name__ = played.__name__
    return test


def unwell(why: str) -> tuple[int, str]:
    return 503, f'{{"health":"false","reason":"{why}"}}'


WELL = (200, '{"health":"true","reason":""}')


@scene
async def test_it_is_well_while_nothing_is_wrong(member: Member) -> None:
    assert await member.get("/health") == WELL
    assert await member.get("/livez") == (200, "ok\n")
    assert await member.get("/readyz") == (200, "ok\n")
    assert member.service.reads == [False, True, True, False]


@scene
async def test_alarms_count_unless_they_are_excluded(member: Member) -> None:
    member.service.alarms = {(1, AlarmKind.NOSPACE)}
    assert await member.get("/health") == unwell("ALARM NOSPACE")
    assert await member.get("/health?exclude=NOSPACE") == WELL
    assert await member.get("/readyz") == (200, "ok\n")
    member.service.alarms = {(2, AlarmKind.DIFFERS)}
    assert (await member.get("/health"))[0] == 200, "of a member, which sees to itself"
    assert (await member.get("/readyz"))[0] == 200
    member.service.alarms = {(1, AlarmKind.NOSPACE), (2, AlarmKind.CORRUPT)}
    assert await member.get("/health?exclude=NOSPACE") == unwell("ALARM CORRUPT")
    assert await member.get("/health?exclude=NOSPACE&exclude=CORRUPT&exclude=") == WELL
    status, said = await member.get("/readyz")
    assert status == 503
    assert said.startswith("[-]data_corruption failed: ALARM CORRUPT\n[+]serializable_read ok\n")
    assert await member.get("/readyz?exclude=data_corruption") == (200, "ok\n")
    assert await member.get("/livez") == (200, "ok\n")


@scene
async def test_without_a_leader_it_lives_and_is_not_ready(member: Member) -> None:
    member.leader = 0
    assert await member.get("/health") == unwell("RAFT NO LEADER")
    assert await member.get("/health?serializable=true") == WELL
    member.leader = 1
    member.service.outcome = EtcdError(Reason.TIMED_OUT)
    assert await member.get("/health") == unwell("RANGE ERROR:etcdserver: request timed out")
    failed = "[-]linearizable_read failed: RANGE ERROR:etcdserver: request timed out\n"
    assert await member.get("/readyz/linearizable_read") == (503, failed)


@pytest.mark.parametrize(
    "error", [EtcdError(Reason.CORRUPT), StorageError("the disk", path="/secret/path")]
)
def test_damage_is_told_without_what_it_is_of(error: Error) -> None:
    @scene
    async def play(member: Member) -> None:
        member.service.outcome = error
        status, said = await member.get("/livez")
        assert status == 503
        assert "/secret" not in said
        member.trouble = "/secret/path is full"
        assert await member.get("/health") == unwell("STORAGE TAKES NO WRITES")
        assert await member.get("/readyz/storage") == (
            503,
            "[-]storage failed: STORAGE TAKES NO WRITES\n",
        )

    play()


@scene
async def test_a_learner_lives_and_is_not_ready(member: Member) -> None:
    member.service.is_learner = True
    assert (await member.get("/readyz"))[0] == 503
    assert (await member.get("/livez"))[0] == 200


@scene
async def test_before_keys_have_revisions_a_leader_is_enough_once_all_is_applied(
    member: Member,
) -> None:
    member.service.model_enabled = False
    assert await member.get("/health") == WELL
    assert (await member.get("/readyz"))[0] == 200
    member.service.member = None
    assert await member.get("/health") == unwell("STARTING")
    assert (await member.get("/readyz"))[0] == 503
    assert (await member.get("/livez"))[0] == 200
    assert member.service.reads == []


@scene
async def test_however_many_ask_one_read_is_made_at_a_time(member: Member) -> None:
    member.service.answers_at_once = False
    asking = [asyncio.create_task(member.get("/health")) for _ in range(100)]
    gone = asyncio.create_task(member.get("/health"))
    while not member.service.waiting:
        await asyncio.sleep(0)
    # That somebody doesn't wait for it is nothing to the others.
    gone.cancel()
    await asyncio.wait([gone])
    (done,) = member.service.waiting
    done("what is read")
    assert set(await asyncio.gather(*asking)) == {WELL}
    assert member.service.reads == [False]
    member.service.answers_at_once = True
    assert await member.get("/health") == WELL
    assert member.service.reads == [False, False]


def test_without_etcds_api_leader_and_storage_count() -> None:
    async def main() -> None:
        member = Member(etcd_api=False)
        for path in ("/health", "/livez", "/readyz", "/version"):
            assert (await member.get(path))[0] == 200
        member.leader = 0
        assert await member.get("/health") == unwell("RAFT NO LEADER")
        assert (await member.get("/readyz"))[0] == 503
        assert (await member.get("/livez"))[0] == 200
        member.gateway.close()

    asyncio.run(main())


@scene
async def test_what_a_page_of_a_browser_sends_is_refused(member: Member) -> None:
    for path in ("/health", "/version", "/livez", "/v3/kv/put", "/nowhere"):
        for method in ("GET", "POST", "OPTIONS"):
            for mark in (
                {"origin": "http://127.0.0.1:2379"},
                {"origin": "null"},
                {"origin": ""},
                {"sec_fetch_site": "cross-site"},
                {"sec_fetch_site": "same-origin"},
            ):
                assert (await member.get(path, method, **mark))[0] == 403
    assert await member.get("/health", sec_fetch_site="none") == WELL


@scene
async def test_methods_and_paths_that_are_none_are_told_so(member: Member) -> None:
    for method in ("POST", "PUT", "DELETE", "TRACE", "get"):
        assert (await member.get("/health", method))[0] == 405
    assert await member.get("/health", "OPTIONS") == (200, "")
    assert await member.get("/nowhere") == (404, "404 page not found\n")
    assert await member.get("/v3/nowhere") == (404, "Not Found\n")
    assert await member.get("/livez/nowhere") == (404, "404 page not found\n")
