"""Changing the members while running (dissertation §4): the leader's side.

One change at a time: the next is refused until the last configuration is committed. The leader
must have committed in its own term first; otherwise two leaders could each take a step from the
same configuration to ones whose quorums don't overlap (Ongaro, "bug in single-server membership
changes", raft-dev 2015).
"""

from __future__ import annotations

from kvstore.errors import InvalidArgumentError, UnavailableError
from kvstore.raft import membership as rules
from kvstore.raft import roles
from kvstore.raft.codec import encode_membership
from kvstore.raft.messages import Entry, EntryKind, Membership, Proposed
from kvstore.raft.state import State

__all__ = ["may_leave", "proceed", "propose"]


def propose(state: State, target: Membership, *, force: bool) -> Proposed:
    """Append the first step towards ``target``; the caller has seen that this member leads.

    Without ``force`` nothing is done that the members heard from lately could not finish.
    """
    rules.check(target)
    current = state.configurations.current
    if current.joint or state.configurations.index > state.log.commit:
        raise UnavailableError("a membership change is under way")
    if state.log.commit < state.term_start:
        raise UnavailableError("this leader has not committed an entry of its term yet")
    if target == current:
        raise InvalidArgumentError("this is the present configuration")
    gone = current.removed | (current.members - target.members)
    if len(gone) > rules.REMOVED_MAX:
        raise InvalidArgumentError(f"{rules.REMOVED_MAX} members were removed already")
    if not force:
        for voter in sorted(target.voters - current.voters):
            _check_promotion(state, voter)
        _check_majority(state, target)
    index = _append(state, rules.first_step(current, target))
    return Proposed(state.term, index, index)


def _check_promotion(state: State, voter: int) -> None:
    """Raise UnavailableError unless ``voter`` is here and has most of the log.

    By its lag alone one that nobody ever heard of would pass in a short log.
    """
    if not state.answers(voter):
        raise UnavailableError(
            f"member {voter} was not heard from lately; it must run and have the data first"
        )
    lag = state.log.commit - state.match(voter)
    if lag > state.options.promote_lag_max:
        raise UnavailableError(f"member {voter} is {lag} entries behind; let it catch up first")


def _check_majority(state: State, target: Membership) -> None:
    """Raise UnavailableError unless those heard from lately are a majority of the new voters.

    Otherwise the change could not be committed, and neither could anything after it.
    """
    answering = sum(map(state.answers, target.voters))
    needed = len(target.voters) // 2 + 1
    if answering < needed:
        raise UnavailableError(
            f"of the voters there would be, {sorted(target.voters)}, only {answering} were heard "
            f"from lately and {needed} are needed; nothing could be written any more"
        )


def _append(state: State, membership: Membership) -> int:
    index = state.log.last + 1
    data = encode_membership(membership)
    state.append([Entry(state.term, index, EntryKind.MEMBERSHIP, data)])
    roles.follow_configuration(state)
    return index


def proceed(state: State) -> bool:
    """After the commit index moved: end a joint configuration once it is committed (§4.3)."""
    configurations = state.configurations
    if not configurations.current.joint or configurations.index > state.log.commit:
        return False
    _append(state, rules.final_step(configurations.current))
    return True


def may_leave(state: State) -> bool:
    """True when a committed configuration has no vote for this leader: it steps down (§4.2.2)."""
    configurations = state.configurations
    return configurations.index <= state.log.commit and not configurations.current.is_voter(
        state.id
    )
