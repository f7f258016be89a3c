"""A group and a pool compared: by number and by a sum that knows no order, then key by key."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

import click

from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.interface.progress import Progress
from kvstore.cli.transfer.plan import Plan, There
from kvstore.cli.transfer.pool_side import PoolSide
from kvstore.cli.transfer.sides import Pair
from kvstore.client import Client
from kvstore.errors import Error, StorageError

__all__ = ["Comparison", "Differences", "Sum", "compare"]

NAMED_MAX = 20
"""Keys that are named; of the others it is told how many there are."""

_SUM_BITS = 256


@dataclass(slots=True)
class Sum:
    """Of keys and values in whatever order: their number, and their SHA-256 added up modulo 2^256.

    It finds whatever goes wrong by chance; it is no proof against somebody who chooses keys and
    values to deceive it.
    """

    keys: int = 0
    total: int = 0

    def add(self, pairs: Iterable[Pair]) -> None:
        """Some more."""
        for key, value in pairs:
            digest = hashlib.sha256(len(key).to_bytes(8, "little") + key)
            digest.update(value)
            self.keys += 1
            self.total += int.from_bytes(digest.digest(), "little")
        self.total %= 1 << _SUM_BITS

    def hexdigest(self) -> str:
        """As it is told."""
        return self.total.to_bytes(_SUM_BITS // 8, "big").hex()


@dataclass(slots=True)
class Differences:
    """Keys by kind: ``missing``, ``different``, ``extra`` or ``damaged``. The first are named."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("missing", "different", "extra", "damaged"), 0)
    )
    named: list[str] = field(default_factory=list)

    def add(self, kind: str, key: bytes, why: str = "") -> None:
        """One more."""
        self.counts[kind] += 1
        if len(self.named) < NAMED_MAX:
            self.named.append(f"{kind}: {printable(key)}" + (f" ({why})" if why else ""))

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.counts.values())

    def tell(self) -> None:
        """On standard error."""
        for line in self.named:
            click.echo(f"kvctl: {line}", err=True)
        if self.total > len(self.named):
            click.echo(f"kvctl: and {self.total - len(self.named)} more", err=True)


@dataclass(slots=True)
class Comparison:
    """``source``: what was to be had. ``equal``: the other side has all of it, and, unless there
    may be others, nothing else."""

    source: Sum
    differences: Differences
    equal: bool


def compare(old: Client, new: PoolSide, plan: Plan, revision: int) -> Comparison:
    """What a group had at ``revision``, and what a pool has."""
    differences = Differences()
    if plan.there is There.MERGED:
        here = _find_lacking(old, new, plan, revision, differences)
        return Comparison(here, differences, not differences.total)
    here, there = Sum(), Sum()
    damaged: dict[bytes, Error] = {}
    with Progress("comparing", 2 * old.count(prefix=plan.prefix, revision=revision)) as progress:
        for entries in old.range(prefix=plan.prefix, revision=revision).pages():
            here.add((plan.rename(entry.key), entry.value) for entry in entries)
            progress.advance(len(entries))
        for page in new.pages(plan.begin):
            there.add(page.pairs)
            damaged |= page.damaged | page.unread
            progress.advance(len(page.pairs))
    equal = here == there and not damaged
    if not equal:
        for name, error in damaged.items():
            differences.add("damaged", name, str(error))
        _find_lacking(old, new, plan, revision, differences, damaged)
        _find_extra(old, new, plan, revision, differences, damaged)
    return Comparison(here, differences, equal)


def _find_lacking(
    old: Client,
    new: PoolSide,
    plan: Plan,
    revision: int,
    differences: Differences,
    told: Container[bytes] = (),
) -> Sum:
    """Keys that the pool doesn't have so; the sum of all that it should have. ``told``: damaged
    ones that are named already."""
    here = Sum()
    with Progress("comparing", old.count(prefix=plan.prefix, revision=revision)) as progress:
        for entries in old.range(prefix=plan.prefix, revision=revision).pages():
            pairs = [(plan.rename(entry.key), entry.value) for entry in entries]
            here.add(pairs)
            found = new.get([key for key, _ in pairs])
            for (key, value), other in zip(pairs, found, strict=True):
                if key in told:
                    continue
                if isinstance(other, StorageError):
                    differences.add("damaged", key, str(other))
                elif other is None:
                    differences.add("missing", key)
                elif other != value:
                    differences.add("different", key)
            progress.advance(len(pairs))
    return here


def _find_extra(
    old: Client,
    new: PoolSide,
    plan: Plan,
    revision: int,
    differences: Differences,
    told: Container[bytes],
) -> None:
    for page in new.key_pages(plan.begin):
        keys = [key for key in page.keys if key not in told]
        there = old.get_many([plan.back(key) for key in keys])
        for key, value in there:
            # What isn't there now may have been then.
            if value is None and old.get_entry(key, revision=revision) is None:
                differences.add("extra", plan.rename(key))
