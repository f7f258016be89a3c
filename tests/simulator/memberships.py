"""Which members a simulated cluster is to have next."""

from __future__ import annotations

import random
from collections.abc import Callable

from kvstore.raft import Membership

__all__ = ["draw_membership"]

MEMBERS_MAX = 9


def draw_membership(
    rng: random.Random, now: Membership, known: set[int], hurt: Callable[[], set[int]]
) -> Membership | None:
    """Add, promote, demote, remove, take back, or several at once (joint consensus).

    ``known``: all members that there ever were. None where those that are ``hurt`` would leave no
    majority.
    """
    voters, learners = set(now.voters), set(now.learners)
    kinds = ["remove", "remove", "demote"]
    room = MEMBERS_MAX - len(known)
    if room:
        kinds += ["add", "add voter"]
    if room > 1:
        kinds += ["replace", "replace"]
    if learners:
        kinds += ["promote", "promote", "swap"]
    former = sorted(known - now.members)
    if former:
        kinds += ["return", "return"]
    kind = rng.choice(kinds)
    new = max(known) + 1
    if kind == "add":
        learners.add(new)
    elif kind == "add voter":
        voters.add(new)
    elif kind == "return":
        rng.choice((voters, learners)).add(rng.choice(former))
    elif kind == "demote":
        chosen = rng.choice(sorted(voters))
        voters.discard(chosen)
        learners.add(chosen)
    elif kind == "replace":
        voters.difference_update(rng.sample(sorted(voters), min(2, len(voters) - 1)))
        voters.update((new, new + 1))
    elif kind == "promote":
        chosen = rng.choice(sorted(learners))
        learners.discard(chosen)
        voters.add(chosen)
    elif kind == "swap":
        voters.discard(rng.choice(sorted(voters)))
        chosen = rng.choice(sorted(learners))
        learners.discard(chosen)
        voters.add(chosen)
    elif learners and rng.random() < 0.3:
        learners.discard(rng.choice(sorted(learners)))
    else:
        voters.discard(rng.choice(sorted(voters)))
    # A majority of the voters must be able to answer in the end.
    if not 2 <= len(voters) <= 7 or len(voters & hurt()) > (len(voters) - 1) // 2:
        return None
    return Membership(voters=frozenset(voters), learners=frozenset(learners))
