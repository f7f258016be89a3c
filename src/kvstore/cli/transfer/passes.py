"""From a pool to a group: a pool has no revision and no watch, so it is walked until a walk finds
nothing that the group doesn't have."""

from __future__ import annotations

from dataclasses import dataclass, field

import click

from kvstore.cli.interface.progress import Progress
from kvstore.cli.transfer.comparing import Differences, Sum
from kvstore.cli.transfer.following import differing, remove_others
from kvstore.cli.transfer.plan import Plan, There
from kvstore.cli.transfer.pool_side import PoolSide
from kvstore.cli.transfer.sides import GroupSide, refuse_to_empty

__all__ = ["PASSES_MAX", "Passes", "make_passes"]

PASSES_MAX = 10
"""After which writers of the pool are taken to be faster."""


@dataclass(slots=True)
class Passes:
    """What they came to. ``keys``: that were written, ``removed``: that the pool didn't have.
    ``seen``: what the last one saw; ``equal``: and found in the group, with nothing else.
    ``damaged``: of the last one, which are called ``spared`` in the group; ``unread``: buckets of
    it."""

    number: int = 0
    keys: int = 0
    removed: int = 0
    seen: Sum = field(default_factory=Sum)
    damaged: Differences = field(default_factory=Differences)
    spared: set[bytes] = field(default_factory=set)
    unread: int = 0
    equal: bool = False


def make_passes(old: PoolSide, new: GroupSide, plan: Plan, done: Passes) -> None:
    """Until one finds nothing different, or :data:`PASSES_MAX` did."""
    while done.number < PASSES_MAX:
        done.number += 1
        before = done.keys + done.removed
        _copy_lacking(old, new, plan, done)
        if done.number == 1:
            refuse_to_empty(done.seen.keys, new, plan)
        is_same = plan.there is There.MERGED or _has_all(new, plan.begin, done.seen)
        if not is_same:
            done.removed += remove_others(old, new, plan, done.spared)
        changed = done.keys + done.removed - before
        click.echo(
            f"kvctl: pass {done.number} saw {done.seen.keys} keys; {changed} were copied or "
            "removed",
            err=True,
        )
        if not changed:
            done.equal = is_same
            return


def _copy_lacking(old: PoolSide, new: GroupSide, plan: Plan, done: Passes) -> None:
    """One walk over the pool."""
    done.seen, done.damaged, done.spared, done.unread = Sum(), Differences(), set(), 0
    is_empty = done.number == 1 and plan.there is There.REFUSED
    leased = frozenset[bytes]() if is_empty else new.leased(plan.begin)
    with Progress("copying") as progress:
        for page in old.pages(plan.prefix):
            done.unread += len(page.unread)
            # Wherever its entry lies: a get looks for it in its own bucket, and finds nothing.
            done.spared.update(map(plan.rename, page.damaged))
            for name, error in (page.damaged | page.unread).items():
                done.damaged.add("damaged", name, str(error))
            pairs = [(plan.rename(key), value) for key, value in page.pairs]
            lacking = pairs if is_empty else differing(pairs, new, leased)
            if lacking:
                new.put(lacking)
            done.seen.add(pairs)
            done.keys += len(lacking)
            progress.advance(len(pairs))


def _has_all(new: GroupSide, prefix: bytes, seen: Sum) -> bool:
    """Whether the group has what was seen, for good, and nothing else."""
    found = Sum()
    leased = 0
    with Progress("comparing") as progress:
        for entries in new.client.range(prefix=prefix).pages():
            found.add((entry.key, entry.value) for entry in entries)
            leased += sum(entry.lease != 0 for entry in entries)
            progress.advance(len(entries))
    return found == seen and not leased
