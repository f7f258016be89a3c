"""Where members are reached, as the replicated member list carries it.

The core keeps some bytes for each member and never reads them (``Membership.contexts``): here they
are JSON with ``client`` and ``peer``. So the log is the one place that knows the members; the
configuration's ``[[nodes]]`` found a cluster and are read no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode
from kvstore.raft.messages import Membership
from kvstore.server.config.cluster_config import Node, check_dialled


def encode_context(node: Node) -> bytes:
    """The bytes kept for a member; equal nodes give equal bytes on every founder."""
    return json.dumps(
        {"client": node.client_addr, "peer": node.peer_addr}, separators=(",", ":"), sort_keys=True
    ).encode()


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
