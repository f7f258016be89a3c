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
from kvstore.cli.transfer.sides import GroupSide

__all__ = ["PASSES_MAX", "Passes", "make_passes"]

PASSES_MAX = 10
"""After which writers of the pool are taken to be faster."""


@dataclass(slots=True)
class Passes:
    """What they came to. ``keys``: that were written, ``removed``: that the pool didn't have.
    ``seen``: what the last one saw; ``equal``: and found in the group, with nothing else.
    ``damaged``: of the last one; ``unread``: buckets of it."""

    number: int = 0
    keys: int = 0
    removed: int = 0
    seen: Sum = field(default_factory=Sum)
    damaged: Differences = field(default_factory=Differences)
    unread: int = 0
    equal: bool = False


def make_passes(old: PoolSide, new: GroupSide, plan: Plan, done: Passes) -> None:
    """Until one finds nothing different, or :data:`PASSES_MAX` did."""
    while done.number < PASSES_MAX:
        done.number += 1
        before = done.keys + done.removed
        _copy_lacking(old, new, plan, done)
        is_same = plan.there is There.MERGED or _sum_of(new, plan.begin) == done.seen
        if not is_same:
            done.removed += remove_others(old, new, plan)
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
    done.seen, done.damaged, done.unread = Sum(), Differences(), 0
    is_empty = done.number == 1 and plan.there is There.REFUSED
    with Progress("copying") as progress:
        for page in old.pages(plan.prefix):
            done.unread += len(page.unread)
            for name, error in (page.damaged | page.unread).items():
                done.damaged.add("damaged", name, str(error))
            pairs = [(plan.rename(key), value) for key, value in page.pairs]
            lacking = pairs if is_empty else differing(pairs, new)
            if lacking:
                new.put(lacking)
            done.seen.add(pairs)
            done.keys += len(lacking)
            progress.advance(len(pairs))


def _sum_of(new: GroupSide, prefix: bytes) -> Sum:
    """Of all that the group has."""
    found = Sum()
    with Progress("comparing") as progress:
        for entries in new.client.range(prefix=prefix).pages():
            found.add((entry.key, entry.value) for entry in entries)
            progress.advance(len(entries))
    return found
