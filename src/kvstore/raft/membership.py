"""Changing the members (dissertation §4): what is a legal step, and which configuration holds.

A configuration holds from the moment that its entry is in the log, committed or not (§4.1), on
the leader and on every follower; if the entry is overwritten the one before it holds again.
Holding it only from apply on, as some implementations do, leaves members that differ in how far
they have applied with quorums that need not overlap, and makes the rule depend on the caller's
pace; the price of holding it on append is this small history.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace

from kvstore.errors import InternalError, InvalidArgumentError
from kvstore.raft.messages import NOBODY, Membership

__all__ = [
    "CONTEXT_BYTES_MAX",
    "MEMBERS_MAX",
    "REMOVED_MAX",
    "VOTERS_MAX",
    "History",
    "check",
    "check_held",
    "final_step",
    "first_step",
]

VOTERS_MAX = 9
MEMBERS_MAX = 32
# Ids ever taken out; at one a day this is eleven years.
REMOVED_MAX = 4096
CONTEXT_BYTES_MAX = 4096


def check(target: Membership) -> None:
    """Raise InvalidArgumentError unless ``target`` can be a configuration to end in."""
    if target.joint:
        raise InvalidArgumentError("a target configuration has no outgoing voters")
    if not 1 <= len(target.voters) <= VOTERS_MAX:
        raise InvalidArgumentError(f"{len(target.voters)} voters; 1 to {VOTERS_MAX} are possible")
    both = target.voters & target.learners
    if both:
        raise InvalidArgumentError(f"members {sorted(both)} are voters and learners at once")
    if len(target.members) > MEMBERS_MAX:
        raise InvalidArgumentError(f"{len(target.members)} members; at most {MEMBERS_MAX}")
    for member in target.members:
        if not NOBODY < member < 1 << 63:
            raise InvalidArgumentError(f"member id {member} is not in 1 to 2**63 - 1")
    known = [member for member, _ in target.contexts]
    if known != sorted(set(known)) or not target.members.issuperset(known):
        raise InvalidArgumentError("contexts must be sorted, once each, for members only")
    for member, context in target.contexts:
        if len(context) > CONTEXT_BYTES_MAX:
            raise InvalidArgumentError(
                f"context of member {member} has {len(context)} bytes; at most {CONTEXT_BYTES_MAX}"
            )


def check_held(membership: Membership) -> None:
    """Raise InvalidArgumentError unless ``membership`` can stand in a log, joint or not.

    For what comes from others: our own changes give nothing else.
    """
    outgoing = membership.outgoing
    if len(outgoing) > VOTERS_MAX:
        raise InvalidArgumentError(f"{len(outgoing)} outgoing voters; at most {VOTERS_MAX}")
    members = membership.members
    if not all(NOBODY < member < 1 << 63 for member in members) or len(members) > MEMBERS_MAX:
        raise InvalidArgumentError(f"{len(members)} members, or one with an id out of range")
    if membership.removed & members or len(membership.removed) > REMOVED_MAX:
        raise InvalidArgumentError("members that were removed, or more of those than are possible")
    check(final_step(membership))


def first_step(current: Membership, target: Membership) -> Membership:
    """The configuration to append first on the way from ``current`` to ``target``.

    With at most one voter more or less any two majorities overlap, so that one step does
    (§4.1); otherwise both majorities are needed for a while (§4.3).
    """
    if len(current.voters ^ target.voters) <= 1:
        return replace(target, removed=_removed(current, target))
    contexts = dict(current.contexts) | dict(target.contexts)
    joint = Membership(
        voters=target.voters,
        outgoing=current.voters,
        learners=target.learners,
        contexts=tuple(
            sorted(
                (member, context)
                for member, context in contexts.items()
                if member in target.members or member in current.voters
            )
        ),
    )
    return replace(joint, removed=_removed(current, joint))


def final_step(joint: Membership) -> Membership:
    """The configuration that ends a joint one (§4.3)."""
    members = joint.voters | joint.learners
    final = Membership(
        voters=joint.voters,
        learners=joint.learners,
        contexts=tuple(pair for pair in joint.contexts if pair[0] in members),
    )
    return replace(final, removed=_removed(joint, final))


def _removed(before: Membership, after: Membership) -> frozenset[int]:
    """Who was a member at any time up to ``after``, and is none."""
    return (before.removed | before.members) - after.members


class History:
    """The configurations in the log, oldest first; the last one holds.

    The first is the one at the log's start (in the snapshot), so the list is never empty.
    """

    __slots__ = ("configurations", "current", "index", "indexes", "members")

    def __init__(self, index: int, membership: Membership) -> None:
        self.indexes = [index]
        self.configurations = [membership]
        self._hold_last()

    def _hold_last(self) -> None:
        self.index = self.indexes[-1]
        self.current = self.configurations[-1]
        self.members = self.current.members

    def append(self, index: int, membership: Membership) -> None:
        """A membership entry is in the log at ``index``; it holds from now on (§4.1)."""
        if index <= self.index:
            raise InternalError("configurations come in the order of the log")
        self.indexes.append(index)
        self.configurations.append(membership)
        self._hold_last()

    def truncate(self, index: int) -> bool:
        """Entries from ``index`` on are gone; True when another configuration holds now."""
        keep = max(1, bisect_left(self.indexes, index))
        if keep == len(self.indexes):
            return False
        del self.indexes[keep:]
        del self.configurations[keep:]
        self._hold_last()
        return True

    def compact(self, index: int) -> None:
        """Entries up to ``index`` are gone for good; keep the one that holds there."""
        drop = bisect_right(self.indexes, index) - 1
        if drop > 0:
            del self.indexes[:drop]
            del self.configurations[:drop]

    def at(self, index: int) -> Membership:
        """The configuration that held in the log up to ``index``."""
        return self.configurations[max(0, bisect_right(self.indexes, index) - 1)]

    def before_current(self) -> Membership:
        """The configuration before the one that holds, if it is still kept."""
        return self.configurations[max(0, len(self.configurations) - 2)]
