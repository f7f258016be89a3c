"""Whose word differs from the others', and whether it can be said who is right.

Only a majority of the voters is right: so no minority of them, whatever it says of itself, makes
anybody else look wrong, nor has it look as if nobody knew. That is certain alone where, with all
voters who were not asked or didn't answer on either side, no side would be a majority; a voter
that is away takes no side, and then no write can be without those who differ either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Set
from typing import NamedTuple

from kvstore.raft import Membership

__all__ = ["Difference", "odd_ones"]


class Difference(NamedTuple):
    """How a member's state isn't that of the others.

    ``majority``: those who agree on another one; empty where no majority of the voters does.
    ``is_open``: it might, with those who didn't say. Neither: nobody knows who is right.
    """

    is_of_rows: bool
    entry: int
    majority: tuple[int, ...] = ()
    is_open: bool = False

    @property
    def is_unattributed(self) -> bool:
        """Nobody knows who is right, and nobody will."""
        return not self.majority and not self.is_open

    def __str__(self) -> str:
        what = f"{'rows stored by' if self.is_of_rows else 'outcomes up to'} entry {self.entry}"
        if self.majority:
            return f"{what} differ from those of members {', '.join(map(str, self.majority))}"
        whom = f"{what} differ between members, of whom no majority agrees"
        return f"{whom}; others, who would decide, didn't tell" if self.is_open else whom


def odd_ones(
    difference: Difference, told: Mapping[int, Hashable], membership: Membership, silent: Set[int]
) -> dict[int, Difference]:
    """Whose word isn't that of a majority of the voters: ``difference``, of that majority.

    Where they differ and no majority agrees it is each of them. ``silent``: who is there and
    didn't tell.
    """
    sides: defaultdict[Hashable, set[int]] = defaultdict(set)
    for member, word in told.items():
        sides[word].add(member)
    if len(sides) < 2:
        return {}
    for word, side in sides.items():
        if _is_majority(side, membership):
            found = difference._replace(majority=tuple(sorted(side)))
            return {member: found for member in told if told[member] != word}
    is_open = any(_is_majority(side | silent, membership) for side in sides.values())
    return dict.fromkeys(told, difference._replace(is_open=is_open))


def _is_majority(side: Set[int], membership: Membership) -> bool:
    """Of the voters, in a joint configuration of the old ones and the new ones."""
    halves = [half for half in (membership.voters, membership.outgoing) if half]
    return all(2 * len(half & side) > len(half) for half in halves)
