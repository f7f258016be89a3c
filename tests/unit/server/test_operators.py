"""What operators ask the leader: whom leadership goes to, and changes of the members."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from typing import NoReturn

import pytest

from kvstore.api.v1 import admin_pb2
from kvstore.errors import InvalidArgumentError
from kvstore.server.config.cluster_config import Node
from kvstore.server.nodes.operators import Operators
from kvstore.server.peers.addresses import founding_membership
from tests.unit.replica.driven_group import DrivenGroup, put_of


def test_it_goes_to_nobody_whose_disk_is_full() -> None:
    async def hand_over(driven: DrivenGroup) -> int:
        task = asyncio.create_task(Operators(driven.leader).transfer(0))
        while not task.done():
            driven.step()
            await asyncio.sleep(0)
        return await task

    with DrivenGroup() as driven:
        leader = driven.leader()
        full, well = sorted({1, 2, 3} - {leader.member})
        driven.disk.fail("pwrite", errno.ENOSPC, always=True, path=f"/node{full}/state")
        for number in range(120):
            driven.ask([put_of(f"put-{number}", b"%06d" % number, bytes(2000))])

        def is_known() -> bool:
            return any(peer.ailing for peer in leader.status().raft.peers)

        driven.until(is_known)
        assert asyncio.run(asyncio.wait_for(hand_over(driven), 30)) == well
        assert driven.failed == {}


THREE = founding_membership([Node(n, f"10.0.0.{n}:1", f"10.0.0.{n}:2") for n in (1, 2, 3)])
NEW = admin_pb2.Member(member_id=4, client_address="10.0.0.4:1", peer_address="10.0.0.4:2")


def nobody() -> NoReturn:
    raise AssertionError("what is asked for is judged by itself")


def test_what_is_so_already_is_no_change() -> None:
    operators = Operators(nobody)
    add = admin_pb2.ChangeMembersRequest(add=NEW)
    four = operators._target(THREE, add)
    assert four is not None
    assert (four.voters, four.learners) == ({1, 2, 3}, {4})
    assert operators._target(four, add) is None
    promote = admin_pb2.ChangeMembersRequest(promote=4)
    promoted = operators._target(four, promote)
    assert promoted is not None
    assert (promoted.voters, promoted.learners) == ({1, 2, 3, 4}, set())
    assert operators._target(promoted, promote) is None
    assert operators._target(promoted, add) is None
    remove = admin_pb2.ChangeMembersRequest(remove=4)
    assert operators._target(promoted, remove) == THREE
    gone = dataclasses.replace(THREE, removed=frozenset({4}))
    assert operators._target(gone, remove) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, "say which change"),
        ({"promote": 4}, "there is no member 4"),
        ({"remove": 33}, "there is no member 33, and never was"),
        ({"add": {"member_id": 4, "client_address": "10.0.0.4:1"}}, "a client and a peer address"),
        (
            {"add": {"member_id": 3, "client_address": "10.0.0.4:1", "peer_address": "b:2"}},
            "member 3 exists with other addresses",
        ),
        (
            {"add": {"member_id": 4, "client_address": "10.0.0.2:2", "peer_address": "b:2"}},
            "10.0.0.2:2 is another member's address",
        ),
        (
            {"add": {"member_id": 4, "client_address": "b:1", "peer_address": "10.0.0.2:2"}},
            "10.0.0.2:2 is another member's address",
        ),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(change: dict[str, object], complaint: str) -> None:
    request = admin_pb2.ChangeMembersRequest(**change)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=complaint):
        Operators(nobody)._target(THREE, request)


def test_the_last_voter_stays() -> None:
    alone = founding_membership([Node(1, "10.0.0.1:1", "10.0.0.1:2")])
    operators = Operators(nobody)
    two = operators._target(alone, admin_pb2.ChangeMembersRequest(add=NEW))
    assert two is not None
    with pytest.raises(InvalidArgumentError, match="member 1 is the last voter"):
        operators._target(two, admin_pb2.ChangeMembersRequest(remove=1))
