"""What operators change while the cluster runs: its members, and who leads.

Asked of the leader; each change is answered when it is committed. A caller that gives up leaves it
under way, and asking again for what is so already succeeds.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import NoReturn

from kvstore.api.v1 import admin_pb2
from kvstore.errors import (
    ConfigurationError,
    Error,
    InvalidArgumentError,
    OutcomeUnknownError,
    UnavailableError,
)
from kvstore.raft import Membership
from kvstore.replica import Replica
from kvstore.server.config.cluster_config import Node, check_dialled
from kvstore.server.peers.addresses import encode_context, nodes_of, wants_vote

__all__ = ["Operators", "refuse_embedded"]

LOOK_INTERVAL_S = 0.02


def refuse_embedded() -> NoReturn:
    """Raise InvalidArgumentError: there is nothing to change in an embedded kvd."""
    raise InvalidArgumentError(
        "an embedded kvd has five members of its own; members can be changed and leadership handed "
        "over with --mode=cluster-node"
    )


class Operators:
    """``leading`` gives the replica while it leads, or why it can't serve."""

    def __init__(self, leading: Callable[[], Replica | Error]) -> None:
        self._leading = leading

    def _replica(self) -> Replica:
        replica = self._leading()
        if isinstance(replica, Error):
            raise replica
        return replica

    def members(self) -> admin_pb2.MembersResponse:
        """The members of the newest configuration. Raises NotLeaderError, UnavailableError."""
        replica = self._replica()
        return _response(replica.membership, replica.leader)

    async def change(self, request: admin_pb2.ChangeMembersRequest) -> admin_pb2.MembersResponse:
        """Add, promote or remove a member, or change its addresses.

        Raises InvalidArgumentError for what makes no sense, UnavailableError while another change
        is under way, a learner lacks too much or is silent, or too few would be left that answer
        (with ``force`` only for the first), OutcomeUnknownError when leadership was lost.
        """
        replica = self._replica()
        target = self._target(replica.membership, request)
        if target is not None:
            proposed = replica.propose_membership(target, force=request.force)
            while not replica.change_is_done(proposed):
                if not replica.is_leader or replica.term != proposed.term:
                    raise OutcomeUnknownError("leadership was lost; look with 'kvctl member list'")
                await asyncio.sleep(LOOK_INTERVAL_S)
        return _response(replica.membership, replica.leader)

    def _target(
        self, now: Membership, request: admin_pb2.ChangeMembersRequest
    ) -> Membership | None:
        """The members to be; None when that is so already."""
        match request.WhichOneof("change"):
            case "add":
                return self._with(now, request.add)
            case "promote":
                return _promoted(now, request.promote)
            case "remove":
                return _without(now, request.remove)
            case "update":
                return self._updated(now, request.update)
        raise InvalidArgumentError("say which change: add, promote, remove or update")

    def _with(self, now: Membership, new: admin_pb2.Member) -> Membership | None:
        node = Node(new.member_id, new.client_address, new.peer_address)
        if not (node.node_id and node.client_addr and node.peer_addr):
            raise InvalidArgumentError("a member has an id above 0, a client and a peer address")
        _check_dialled(node)
        if node.node_id in now.members:
            if nodes_of(now)[node.node_id] == node:
                return None
            raise InvalidArgumentError(
                f"member {node.node_id} exists with other addresses; remove it first"
            )
        if node.node_id in now.removed:
            raise InvalidArgumentError(
                f"member {node.node_id} was removed before; a new member needs an id never used"
            )
        _refuse_taken(now, node)
        context = node.node_id, encode_context(node, new.votes_when_ready)
        return dataclasses.replace(
            now,
            learners=now.learners | {node.node_id},
            contexts=tuple(sorted([*now.contexts, context])),
        )

    def _updated(self, now: Membership, said: admin_pb2.Member) -> Membership | None:
        member = said.member_id
        if member not in now.members:
            raise InvalidArgumentError(f"there is no member {member}")
        known = nodes_of(now)[member]
        peer_addr = said.peer_address or known.peer_addr
        # One that has yet to say where clients reach it is told by both being the same.
        has_begun = known.client_addr != known.peer_addr
        client_addr = said.client_address or (known.client_addr if has_begun else peer_addr)
        node = Node(member, client_addr, peer_addr)
        if node == known:
            return None
        _check_dialled(node)
        _refuse_taken(now, node)
        contexts = dict(now.contexts)
        contexts[member] = encode_context(node, wants_vote(now, member))
        return dataclasses.replace(now, contexts=tuple(sorted(contexts.items())))

    async def transfer(self, to: int) -> int:
        """Hand leadership to a voter (0: the one that has most); returns who leads then.

        Raises InvalidArgumentError for one that can't, UnavailableError when it didn't take over.
        """
        replica = self._replica()
        status = replica.status().raft
        if to == status.id:
            return to
        if not to:
            voters = [
                peer
                for peer in status.peers
                if peer.member in status.membership.voters and not peer.damaged and not peer.ailing
            ]
            if not voters:
                raise InvalidArgumentError("there is no other voter that can lead")
            # Whoever answered last, give or take a heartbeat: one that is gone can't take over.
            best = max(
                voters, key=lambda peer: (peer.silent_ticks <= 2, peer.match, -peer.silent_ticks)
            )
            to = best.member
        replica.transfer_leadership(to)
        while replica.is_leader:
            if not replica.status().raft.transfer_to:
                raise UnavailableError(f"member {to} did not take over in time")
            await asyncio.sleep(LOOK_INTERVAL_S)
        while not replica.leader:
            await asyncio.sleep(LOOK_INTERVAL_S)
        return replica.leader


def _check_dialled(node: Node) -> None:
    try:
        check_dialled(node)
    except ConfigurationError as error:
        raise InvalidArgumentError(str(error)) from None


def _refuse_taken(now: Membership, node: Node) -> None:
    taken = {
        address
        for other in nodes_of(now).values()
        for address in (other.client_addr, other.peer_addr)
        if other.node_id != node.node_id
    }
    for address in (node.client_addr, node.peer_addr):
        if address in taken:
            raise InvalidArgumentError(f"{address} is another member's address")


def _promoted(now: Membership, member: int) -> Membership | None:
    if member in now.voters:
        return None
    if member not in now.learners:
        raise InvalidArgumentError(f"there is no member {member}")
    return dataclasses.replace(now, voters=now.voters | {member}, learners=now.learners - {member})


def _without(now: Membership, member: int) -> Membership | None:
    if member not in now.members:
        if member in now.removed:
            return None
        raise InvalidArgumentError(f"there is no member {member}, and never was")
    if now.voters == {member}:
        raise InvalidArgumentError(f"member {member} is the last voter")
    return dataclasses.replace(
        now,
        voters=now.voters - {member},
        learners=now.learners - {member},
        contexts=tuple(pair for pair in now.contexts if pair[0] != member),
    )


def _response(membership: Membership, leader: int) -> admin_pb2.MembersResponse:
    return admin_pb2.MembersResponse(
        members=[
            admin_pb2.Member(
                member_id=member,
                client_address=node.client_addr,
                peer_address=node.peer_addr,
                learner=member not in membership.voters,
            )
            for member, node in sorted(nodes_of(membership).items())
        ],
        leader_id=leader,
    )
