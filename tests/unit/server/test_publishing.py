"""What a new member says of itself, to whom, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from kvstore.api.v1 import admin_pb2
from kvstore.errors import Error, InvalidArgumentError, UnavailableError
from kvstore.raft import Membership
from kvstore.server.config.cluster_config import Node
from kvstore.server.nodes.operators import Operators
from kvstore.server.nodes.publishing import Publishing
from kvstore.server.peers.addresses import founding_membership, nodes_of, wants_vote

THREE = founding_membership([Node(n, f"h{n}:1", f"h{n}:2") for n in (1, 2, 3)])
OWN = Node(4, "h4:1", "h4:2")


def nobody() -> Error:
    return UnavailableError("what is asked for is judged by itself")


def changed(now: Membership, request: admin_pb2.ChangeMembersRequest) -> Membership:
    target = Operators(nobody)._target(now, request)
    assert target is not None
    return target


def added(votes: bool) -> Membership:
    """With member 4 as etcd's API adds it."""
    new = admin_pb2.Member(
        member_id=4, client_address="h4:2", peer_address="h4:2", votes_when_ready=votes
    )
    return changed(THREE, admin_pb2.ChangeMembersRequest(add=new))


class Leader:
    """Does what it is asked, after ``refusals`` of it."""

    def __init__(self, membership: Membership, refusals: int = 0) -> None:
        self.membership = membership
        self.refusals = refusals
        self.asked: list[str | None] = []
        self.publishing = Publishing(OWN, self.ask, retry_s=0.001)

    async def ask(self, request: admin_pb2.ChangeMembersRequest) -> None:
        self.asked.append(request.WhichOneof("change"))
        if self.refusals:
            self.refusals -= 1
            raise UnavailableError("let it catch up first")
        self.membership = changed(self.membership, request)
        self.publishing.follow(self.membership)

    def run(self, is_done: Callable[[], bool]) -> None:
        async def main() -> None:
            async with asyncio.timeout(20):
                self.publishing.follow(self.membership)
                while not is_done() or self.publishing._saying is not None:
                    await asyncio.sleep(0.001)

        asyncio.run(main())


def test_it_says_where_clients_reach_it_and_then_asks_to_vote_until_it_may() -> None:
    leader = Leader(added(votes=True), refusals=3)
    leader.run(lambda: 4 in leader.membership.voters)
    assert nodes_of(leader.membership)[4] == OWN
    assert leader.asked == ["update"] * 4 + ["promote"]


def test_a_learner_says_where_it_is_and_stays_one() -> None:
    leader = Leader(added(votes=False))
    leader.run(lambda: nodes_of(leader.membership)[4] == OWN)
    assert leader.membership.learners == {4}
    assert leader.asked == ["update"]


def test_a_member_that_is_moved_before_it_begins_has_still_all_to_say() -> None:
    moved = admin_pb2.Member(member_id=4, peer_address="h5:2")
    leader = Leader(changed(added(votes=True), admin_pb2.ChangeMembersRequest(update=moved)))
    assert wants_vote(leader.membership, 4)
    assert nodes_of(leader.membership)[4] == Node(4, "h5:2", "h5:2")
    leader.run(lambda: 4 in leader.membership.voters)
    assert nodes_of(leader.membership)[4] == Node(4, "h4:1", "h5:2")
    assert leader.asked == ["update", "promote"]


@pytest.mark.parametrize(
    "membership",
    [
        THREE,
        changed(
            THREE,
            admin_pb2.ChangeMembersRequest(
                add=admin_pb2.Member(member_id=4, client_address="other:1", peer_address="h4:2")
            ),
        ),
    ],
    ids=["no member", "added with kvctl"],
)
def test_who_was_not_added_so_says_nothing(membership: Membership) -> None:
    leader = Leader(membership)
    leader.run(lambda: True)
    assert not leader.asked


def test_a_member_that_ends_says_nothing_more() -> None:
    async def main() -> None:
        leader = Leader(added(votes=True), refusals=1 << 30)
        leader.publishing.follow(leader.membership)
        await asyncio.sleep(0)
        said = leader.publishing._saying
        assert said is not None
        leader.publishing.close()
        with pytest.raises(asyncio.CancelledError):
            await said

    asyncio.run(main())


def test_addresses_that_are_given_change_and_the_others_stay() -> None:
    def update(**fields: object) -> Membership | None:
        said = admin_pb2.Member(member_id=2, **fields)  # type: ignore[arg-type]
        return Operators(nobody)._target(THREE, admin_pb2.ChangeMembersRequest(update=said))

    moved = update(peer_address="new:2")
    assert moved == replace(moved, voters=THREE.voters, learners=THREE.learners)
    assert moved is not None
    assert nodes_of(moved)[2] == Node(2, "h2:1", "new:2")
    assert nodes_of(moved)[1] == nodes_of(THREE)[1]
    assert update(peer_address="h2:2") is None
    assert update() is None


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"member_id": 9, "peer_address": "new:2"}, "there is no member 9"),
        ({"member_id": 2, "peer_address": "h1:2"}, "h1:2 is another member's address"),
        ({"member_id": 2, "peer_address": "h1:1"}, "h1:1 is another member's address"),
        ({"member_id": 2, "peer_address": "no port"}, "peer address"),
    ],
)
def test_an_update_that_makes_no_sense_is_refused(said: dict[str, object], complaint: str) -> None:
    request = admin_pb2.ChangeMembersRequest(update=admin_pb2.Member(**said))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=complaint):
        Operators(nobody)._target(THREE, request)
