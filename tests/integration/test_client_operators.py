"""What operators ask through either client: the same requests, answers and retries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
import pytest

from kvstore.api.v1 import admin_pb2, admin_pb2_grpc
from kvstore.client import AsyncClient, Client, Members, Repairs
from kvstore.errors import ClosedError

pytestmark = pytest.mark.usefixtures("transport")

REPAIRS = admin_pb2.MemberRepair(
    member_id=3,
    checks=4,
    checked=0.5,
    damages=1,
    repairing="its state",
    repairs_started=2,
    repairs_done=1,
    repairs_failed=5,
    fault="stopped",
)
LEARNER = admin_pb2.Member(member_id=4, client_address="c:4", peer_address="p:4")


class Server(admin_pb2_grpc.AdminServicer):
    """Remembers what it was asked; refuses each call ``refusals`` times before it answers."""

    def __init__(self, refusals: int = 0, *, hangs: bool = False) -> None:
        self.asked: list[Any] = []
        self._refusals = refusals
        self._hangs = hangs
        self._done = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4))
        admin_pb2_grpc.add_AdminServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _take(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if len(self.asked) <= self._refusals:
            context.abort(grpc.StatusCode.UNAVAILABLE, "another change is under way")

    def Members(self, request: Any, context: Any) -> admin_pb2.MembersResponse:
        self._take(request, context)
        return admin_pb2.MembersResponse(leader_id=1, members=[LEARNER])

    def ChangeMembers(self, request: Any, context: Any) -> admin_pb2.MembersResponse:
        return self.Members(request, context)

    def TransferLeadership(
        self, request: Any, context: Any
    ) -> admin_pb2.TransferLeadershipResponse:
        self._take(request, context)
        return admin_pb2.TransferLeadershipResponse(leader_id=request.to or 7)

    def ForgetIntroduction(
        self, request: Any, context: Any
    ) -> admin_pb2.ForgetIntroductionResponse:
        self._take(request, context)
        return admin_pb2.ForgetIntroductionResponse(known=request.member_id == 2)

    def Repair(self, request: Any, context: Any) -> admin_pb2.RepairResponse:
        self._take(request, context)
        return admin_pb2.RepairResponse(members=[REPAIRS])

    def SaveSnapshot(self, request: Any, context: Any) -> Iterator[Any]:
        self._take(request, context)
        for piece in (b"one", b"two"):
            yield admin_pb2.SaveSnapshotResponse(data=piece)
        if self._hangs:
            self._done.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._server.stop(grace=None).wait()


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("members", (), {}),
    ("add_member", (4, "c:4", "p:4"), {}),
    ("promote_member", (4,), {"force": True}),
    ("remove_member", (4,), {}),
    ("transfer_leadership", (), {}),
    ("transfer_leadership", (3,), {}),
    ("forget_introduction", (2,), {}),
    ("forget_introduction", (3,), {}),
    ("repair", (), {"begin": True}),
]


def blocking(address: str) -> list[Any]:
    with Client(address, timeout=30) as client:
        answers = [getattr(client, name)(*args, **options) for name, args, options in CALLS]
        return [*answers, list(client.save_snapshot(stale=True))]


def asynchronous(address: str) -> list[Any]:
    async def main() -> list[Any]:
        async with AsyncClient(address, timeout=30) as client:
            answers = [
                await getattr(client, name)(*args, **options) for name, args, options in CALLS
            ]
            return [*answers, [piece async for piece in client.save_snapshot(stale=True)]]

    return asyncio.run(main())


@pytest.mark.parametrize("client", [blocking, asynchronous])
def test_operators_calls_are_what_they_say_and_are_tried_again(client: Any) -> None:
    with Server(refusals=1) as server:
        answers = client(server.address)
    assert server.asked == [
        admin_pb2.MembersRequest(),
        admin_pb2.MembersRequest(),
        admin_pb2.ChangeMembersRequest(add=LEARNER),
        admin_pb2.ChangeMembersRequest(promote=4, force=True),
        admin_pb2.ChangeMembersRequest(remove=4),
        admin_pb2.TransferLeadershipRequest(),
        admin_pb2.TransferLeadershipRequest(to=3),
        admin_pb2.ForgetIntroductionRequest(member_id=2),
        admin_pb2.ForgetIntroductionRequest(member_id=3),
        admin_pb2.RepairRequest(begin=True),
        admin_pb2.SaveSnapshotRequest(stale=True),
    ]
    now = Members.from_message(admin_pb2.MembersResponse(leader_id=1, members=[LEARNER]))
    repairs = (Repairs(3, 4, 0.5, 1, "its state", 2, 1, 5, "stopped"),)
    assert answers == [now, now, now, now, 7, 3, True, False, repairs, [b"one", b"two"]]


def test_a_backup_that_has_not_begun_is_taken_from_another_member() -> None:
    async def save(*addresses: str) -> list[bytes]:
        async with AsyncClient(list(addresses), timeout=30) as client:
            return [piece async for piece in client.save_snapshot()]

    with Server(refusals=100) as refusing, Server() as other:
        addresses = refusing.address, other.address
        assert asyncio.run(save(*addresses)) == [b"one", b"two"]
        with Client(list(addresses), timeout=30) as client:
            assert list(client.save_snapshot()) == [b"one", b"two"]


def test_closing_a_client_ends_a_backup_under_way() -> None:
    taken: list[bytes] = []

    async def asynchronous(address: str) -> None:
        client = AsyncClient(address, timeout=30)
        async for piece in client.save_snapshot():
            taken.append(piece)
            if len(taken) % 2 == 0:
                await client.close()

    def blocking(address: str) -> None:
        client = Client(address, timeout=30)
        for piece in client.save_snapshot():
            taken.append(piece)
            if len(taken) % 2 == 0:
                client.close()

    with Server(hangs=True) as server:
        with pytest.raises(ClosedError):
            asyncio.run(asynchronous(server.address))
        with pytest.raises(ClosedError):
            blocking(server.address)
    assert taken == [b"one", b"two"] * 2
