"""Where members are reached, as the replicated member list carries it.

The core keeps some bytes for each member and never reads them (``Membership.contexts``): here they
are JSON with ``client`` and ``peer``, and ``vote`` of a learner that is to vote once it can. So the
log is the one place that knows the members; the configuration's ``[[nodes]]`` found a cluster and
are read no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode
from kvstore.raft.messages import Membership
from kvstore.server.config.cluster_config import Node, check_dialled


def encode_context(node: Node, votes_when_ready: bool = False) -> bytes:
    """The bytes kept for a member; equal nodes give equal bytes on every founder."""
    fields: dict[str, str | bool] = {"client": node.client_addr, "peer": node.peer_addr}
    if votes_when_ready:
        fields["vote"] = True
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()


def wants_vote(membership: Membership, member: int) -> bool:
    """The member was added to vote, once it has caught up."""
    return bool(json.loads(membership.context(member)).get("vote"))


def founding_membership(nodes: Iterable[Node]) -> Membership:
    """What all founders of a cluster begin with."""
    contexts = sorted((node.node_id, encode_context(node)) for node in nodes)
    return Membership(voters=frozenset(member for member, _ in contexts), contexts=tuple(contexts))


def nodes_of(membership: Membership) -> dict[int, Node]:
    """Every member with its addresses. Raises CorruptionError for what can't be dialled."""
    nodes = {}
    for member in sorted(membership.members):
        context = membership.context(member)
        try:
            fields = json.loads(context)
            nodes[member] = node = Node(member, str(fields["client"]), str(fields["peer"]))
            check_dialled(node)
        except (ValueError, KeyError, TypeError, RecursionError, ConfigurationError) as error:
            raise CorruptionError(
                f"the member list has no addresses for member {member}",
                code=IntegrityCode.INVALID_RECORD,
            ) from error
    return nodes
