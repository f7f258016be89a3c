"""Who belongs to the cluster by etcd's API: what is refused, and with which words."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.cluster import ClusterHandlers, ClusterMember, Node
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.failures import Failure, failure_of
from kvstore.api.v1 import admin_pb2
from kvstore.errors import (
    Error,
    InvalidArgumentError,
    NotLeaderError,
    OutcomeUnknownError,
    UnavailableError,
)
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.raft import Membership
from kvstore.service.etcd import EtcdService

LOST = failure_of(OutcomeUnknownError("leadership was lost"))


def known(id: int, *, is_learner: bool = False) -> ClusterMember:
    return ClusterMember(id, f"c-{id}", (f"http://h{id}:2",), (f"http://h{id}:1",), is_learner)


class Context:
    """``left_s``: the client's own patience."""

    def __init__(self, left_s: float | None = None) -> None:
        self.left_s = left_s

    def time_remaining(self) -> float | None:
        return self.left_s


class Stage:
    """Members 1 and 2 vote, 3 learns, 4 was removed. This one is 1."""

    def __init__(self, *, operator: bool = True, upkeep: bool = True) -> None:
        self.members = [known(1), known(2), known(3, is_learner=True)]
        self.has_leader = True
        self.member_id = 1
        self.patience_s = 5.0
        self.member = self
        self.membership = Membership(
            voters=frozenset({1, 2}), learners=frozenset({3}), removed=frozenset({4})
        )
        self.changes: list[admin_pb2.ChangeMembersRequest] = []
        self.refusal: Error | None = None
        self.leader_says: Any = admin_pb2.MembersResponse()
        self.forwarded: list[tuple[str, int]] = []
        self.points = 0
        self.handlers = ClusterHandlers(
            cast("EtcdService", self),
            cast("Asking", self),
            Rights(lambda _: operator, lambda _: upkeep),
            cast("Node", self),
            lambda: self.members,
        )

    def header(self, revision: int) -> pb.ResponseHeader:
        return pb.ResponseHeader(member_id=1)

    async def read_point(self, context: Any) -> None:
        self.points += 1

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        self.changes.append(request)
        if self.refusal is not None:
            raise self.refusal
        if request.HasField("add"):
            new = request.add
            self.members.append(
                ClusterMember(new.member_id, "", (f"http://{new.peer_address}",), (), True)
            )
        self.members = [one for one in self.members if one.id != request.remove]
        return admin_pb2.MembersResponse()

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        self.forwarded.append((method, leader))
        return self.leader_says

    def call(self, method: str, request: Any, context: Context | None = None) -> Any:
        play: Coroutine[Any, Any, Any] = getattr(self.handlers, method)(
            request, cast("Any", context or Context())
        )
        return asyncio.run(asyncio.wait_for(play, 20))

    def refused(self, method: str, request: Any, context: Context | None = None) -> Reason:
        with pytest.raises(EtcdError) as error:
            self.call(method, request, context)
        return error.value.reason


REMOVE = pb.MemberRemoveRequest(ID=2)
UPDATE = pb.MemberUpdateRequest(ID=2, peerURLs=["http://h9:2"])
PROMOTE = pb.MemberPromoteRequest(ID=3)
ADD = pb.MemberAddRequest(peerURLs=["http://h9:2"])
CHANGES = [
    ("MemberAdd", ADD),
    ("MemberRemove", REMOVE),
    ("MemberUpdate", UPDATE),
    ("MemberPromote", PROMOTE),
]


@pytest.mark.parametrize(("method", "request_"), CHANGES)
def test_operators_alone_change_members(method: str, request_: Any) -> None:
    stage = Stage(operator=False)
    assert stage.refused(method, request_) is Reason.PERMISSION_DENIED
    assert not stage.changes


def test_peer_urls_are_for_those_who_may_know_them() -> None:
    listed = Stage(upkeep=False).call("MemberList", pb.MemberListRequest()).members
    assert [(list(one.peerURLs), list(one.clientURLs)) for one in listed] == [
        ([], [f"http://h{id}:1"]) for id in (1, 2, 3)
    ]
    stage = Stage()
    listed = stage.call("MemberList", pb.MemberListRequest(linearizable=True)).members
    assert [list(one.peerURLs) for one in listed] == [[f"http://h{id}:2"] for id in (1, 2, 3)]
    assert stage.points == 1


@pytest.mark.parametrize("is_learner", [True, False])
def test_a_new_member_gets_an_id_that_nobody_had_and_begins_as_a_learner(is_learner: bool) -> None:
    stage = Stage()
    request = pb.MemberAddRequest(peerURLs=["https://[::1]:2"], isLearner=is_learner)
    response = stage.call("MemberAdd", request)
    (change,) = stage.changes
    assert change.add == admin_pb2.Member(
        member_id=5,
        client_address="[::1]:2",
        peer_address="[::1]:2",
        votes_when_ready=not is_learner,
    )
    assert response.member.ID == 5
    assert response.member.isLearner
    assert (response.member.name, list(response.member.clientURLs)) == ("", [])
    assert [member.ID for member in response.members] == [1, 2, 3, 5]
    assert stage.points == 1, "answered when it is applied here"


def test_a_member_that_is_removed_before_its_addition_is_answered_is_not_found() -> None:
    stage = Stage()

    async def read_point(context: Any) -> None:
        stage.members.pop()

    cast(Any, stage).read_point = read_point
    assert stage.refused("MemberAdd", ADD) is Reason.MEMBER_NOT_FOUND


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:2",
        "ftp://h:2",
        "http://h",
        "http://h:x",
        "http://h:99999",
        "http://:2",
        "http://h:2/p",
        "http://h:2?q",
        "http://u@h:2",
        "unix:///socket",
        "http://[::1:2",
        f"http://{'a' * 254}:2",
        "http://a b:2",
    ],
)
def test_urls_that_are_none_are_refused(url: str) -> None:
    stage = Stage()
    add = pb.MemberAddRequest(peerURLs=[url])
    assert stage.refused("MemberAdd", add) is Reason.BAD_MEMBER_URLS
    update = pb.MemberUpdateRequest(ID=1, peerURLs=[url])
    assert stage.refused("MemberUpdate", update) is Reason.BAD_MEMBER_URLS
    assert not stage.changes


@pytest.mark.parametrize(
    ("method", "request_", "reason"),
    [
        ("MemberAdd", pb.MemberAddRequest(), Reason.BAD_MEMBER_URLS),
        ("MemberAdd", pb.MemberAddRequest(peerURLs=["http://h2:2"]), Reason.PEER_URL_EXISTS),
        ("MemberRemove", pb.MemberRemoveRequest(ID=9), Reason.MEMBER_NOT_FOUND),
        ("MemberRemove", pb.MemberRemoveRequest(ID=4), Reason.MEMBER_NOT_FOUND),
        ("MemberUpdate", pb.MemberUpdateRequest(ID=2), Reason.BAD_MEMBER_URLS),
        (
            "MemberUpdate",
            pb.MemberUpdateRequest(ID=9, peerURLs=["http://h9:2"]),
            Reason.MEMBER_NOT_FOUND,
        ),
        (
            "MemberUpdate",
            pb.MemberUpdateRequest(ID=2, peerURLs=["http://h1:2"]),
            Reason.PEER_URL_EXISTS,
        ),
        ("MemberPromote", pb.MemberPromoteRequest(ID=9), Reason.MEMBER_NOT_FOUND),
        ("MemberPromote", pb.MemberPromoteRequest(ID=2), Reason.NOT_LEARNER),
    ],
)
def test_what_makes_no_sense_is_refused_here(method: str, request_: Any, reason: Reason) -> None:
    stage = Stage()
    assert stage.refused(method, request_) is reason
    assert not stage.changes


def test_more_urls_than_a_member_has_are_refused_with_a_word() -> None:
    with pytest.raises(InvalidArgumentError, match="one peer URL"):
        Stage().call("MemberAdd", pb.MemberAddRequest(peerURLs=["http://a:1", "http://b:1"]))


def test_the_last_voter_stays() -> None:
    stage = Stage()
    stage.members = [known(1), known(3, is_learner=True)]
    assert stage.refused("MemberRemove", pb.MemberRemoveRequest(ID=1)) is Reason.NOT_ENOUGH_STARTED


def test_a_member_s_own_url_may_be_said_again() -> None:
    stage = Stage()
    stage.call("MemberUpdate", pb.MemberUpdateRequest(ID=2, peerURLs=["http://h2:2"]))
    assert stage.changes[0].update == admin_pb2.Member(member_id=2, peer_address="h2:2")


def test_who_removes_the_member_that_it_asks_is_answered_all_the_same() -> None:
    stage = Stage()
    response = stage.call("MemberRemove", pb.MemberRemoveRequest(ID=1))
    assert [member.ID for member in response.members] == [2, 3]
    assert not stage.points


@pytest.mark.parametrize(("method", "request_"), CHANGES)
def test_the_leader_is_asked_by_whoever_follows(method: str, request_: Any) -> None:
    stage = Stage()
    stage.refusal = NotLeaderError(2)
    if method != "MemberAdd":
        stage.call(method, request_)
    else:
        stage.members.append(known(5, is_learner=True))  # as the leader has it
        stage.call(method, request_)
    assert stage.forwarded == [("ChangeMembers", 2)]


@pytest.mark.parametrize("from_afar", [False, True])
@pytest.mark.parametrize(("method", "request_"), CHANGES)
def test_what_the_others_could_not_finish_is_refused(
    method: str, request_: Any, from_afar: bool
) -> None:
    stage = Stage()
    silent = UnavailableError("only 1 were heard from lately and 2 are needed")
    stage.refusal = NotLeaderError(2) if from_afar else silent
    stage.leader_says = failure_of(silent)
    expected = Reason.LEARNER_NOT_READY if method == "MemberPromote" else Reason.UNHEALTHY
    assert stage.refused(method, request_) is expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, Reason.LEADER_CHANGED),
        (failure_of(NotLeaderError(3)), Reason.LEADER_CHANGED),
        (LOST, Reason.TIMED_OUT),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), Reason.TIMED_OUT),
    ],
)
def test_a_leader_that_does_not_say_is_told_of(answer: Any, reason: Reason) -> None:
    stage = Stage()
    stage.refusal = NotLeaderError(2)
    stage.leader_says = answer
    assert stage.refused("MemberRemove", REMOVE) is reason


def test_what_the_leader_finds_wrong_is_passed_on() -> None:
    stage = Stage()
    stage.refusal = NotLeaderError(2)
    stage.leader_says = failure_of(InvalidArgumentError("10 voters; 1 to 9 are possible"))
    with pytest.raises(InvalidArgumentError, match="1 to 9"):
        stage.call("MemberPromote", PROMOTE)


def test_an_unknown_outcome_is_not_made_a_refusal() -> None:
    stage = Stage()
    stage.refusal = OutcomeUnknownError("leadership was lost")
    with pytest.raises(OutcomeUnknownError):
        stage.call("MemberRemove", REMOVE)


def test_without_a_leader_nothing_is_begun() -> None:
    stage = Stage()
    stage.has_leader = False
    assert stage.refused("MemberRemove", REMOVE) is Reason.NO_LEADER
    assert not stage.changes


@pytest.mark.parametrize("left_s", [None, 0.01])
def test_a_change_that_hangs_is_given_up(left_s: float | None) -> None:
    stage = Stage()
    stage.patience_s = 0.01 if left_s is None else 60.0

    async def never(request: admin_pb2.ChangeMembersRequest) -> admin_pb2.MembersResponse:
        await asyncio.Event().wait()
        return admin_pb2.MembersResponse()

    stage.change_members = never  # type: ignore[method-assign]
    assert stage.refused("MemberRemove", REMOVE, Context(left_s)) is Reason.TIMED_OUT
