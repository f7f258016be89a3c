"""Majorities, of one set of voters or of two at once (Raft §5.2, §5.3; dissertation §4.3).

In a joint configuration everything needs a majority of each half. An empty half agrees with
everything, which makes the ordinary configuration the case with an empty outgoing half.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Set

from kvstore.raft.messages import Membership

__all__ = ["EVERYTHING", "Votes", "agreed", "agreed_by", "count_votes", "tally"]

EVERYTHING = (1 << 63) - 1
"""What an empty set of voters agrees on: more than any index, round or tick."""


class Votes(enum.IntEnum):
    """Where an election stands."""

    PENDING = 0
    WON = 1
    LOST = 2


def agreed_by(voters: Set[int], value: Callable[[int], int]) -> int:
    """The largest number that a majority of ``voters`` has reached."""
    reached = sorted(map(value, voters))
    if not reached:
        return EVERYTHING
    return reached[(len(reached) - 1) // 2]


def agreed(membership: Membership, value: Callable[[int], int]) -> int:
    """The largest number that a quorum of the configuration has reached."""
    number = agreed_by(membership.voters, value)
    if membership.outgoing:
        return min(number, agreed_by(membership.outgoing, value))
    return number


def count_votes(voters: Set[int], votes: Mapping[int, bool]) -> Votes:
    """Whether the votes given so far decide among ``voters``; others' votes don't count."""
    if not voters:
        return Votes.WON
    needed = len(voters) // 2 + 1
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        granted += vote is True
        refused += vote is False
    if granted >= needed:
        return Votes.WON
    return Votes.LOST if len(voters) - refused < needed else Votes.PENDING


def tally(membership: Membership, votes: Mapping[int, bool]) -> Votes:
    """Whether the votes decide in the configuration: won in both halves, lost in either."""
    new = count_votes(membership.voters, votes)
    old = count_votes(membership.outgoing, votes)
    if new is old:
        return new
    if Votes.LOST in (new, old):
        return Votes.LOST
    return Votes.PENDING
