"""From a group to another store: all keys at one revision, then the changes since."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import click

from kvstore.cli.interface.progress import Progress
from kvstore.cli.transfer.export import newest_revision
from kvstore.cli.transfer.plan import Plan, There
from kvstore.cli.transfer.sides import GroupSide, Pair, Side, chunks
from kvstore.cli.transfer.silence import batches_while_there
from kvstore.client import Client, Event, EventKind

__all__ = [
    "Copied",
    "catch_up",
    "copy_all",
    "differing",
    "remove_others",
    "wait_until_quiet",
]

# Changes that are handed on at one time.
GATHERED_KEYS, GATHERED_BYTES = 1000, 8 << 20

# After which writers of the source are taken to be faster.
ROUNDS_MAX = 5

# Between two looks whether something has changed.
LOOK_S = 0.5


@dataclass(slots=True)
class Copied:
    """How far it is; ``revision``: all up to there was copied, or will be by :func:`copy_all`.
    ``removed``: keys that the source didn't have; ``leased``: keys that have got leases since."""

    revision: int
    keys: int = 0
    removed: int = 0
    changes: int = 0
    leased: set[bytes] = field(default_factory=set)


def copy_all(old: GroupSide, new: Side, plan: Plan, done: Copied) -> None:
    """All that there is at ``done.revision``; where some of it is there already, only what differs
    is written."""
    client = old.client
    leased = frozenset[bytes]() if plan.there is There.REFUSED else new.leased(plan.begin)
    total = client.count(prefix=plan.prefix, revision=done.revision)
    with Progress("copying", total) as progress:
        for chunk in chunks(_pairs(client, plan, done.revision)):
            pairs = chunk if plan.there is There.REFUSED else differing(chunk, new, leased)
            if pairs:
                new.put(pairs)
            done.keys += len(pairs)
            progress.advance(len(chunk))
    if plan.there is There.MIRRORED:
        # Of this moment, which is later: what changed in between comes with the changes.
        done.removed = remove_others(old, new, plan)


def _pairs(client: Client, plan: Plan, revision: int) -> Iterator[Pair]:
    for entry in client.range(prefix=plan.prefix, revision=revision):
        yield plan.rename(entry.key), entry.value


def differing(pairs: Sequence[Pair], new: Side, leased: Set[bytes]) -> list[Pair]:
    """Those that the other side doesn't have so, or only for as long as a lease: ``leased``."""
    there = new.get([key for key, _ in pairs])
    return [
        pair
        for pair, value in zip(pairs, there, strict=True)
        if pair[1] != value or pair[0] in leased
    ]


def remove_others(source: Side, new: Side, plan: Plan, but: Set[bytes] = frozenset()) -> int:
    """Remove what the source doesn't have, ``but`` these keys; how many that were."""
    removed = 0
    for page in new.keys(plan.begin):
        there = source.get([plan.back(key) for key in page])
        others = [
            key for key, value in zip(page, there, strict=True) if value is None and key not in but
        ]
        if others:
            new.delete(others)
            removed += len(others)
    return removed


def catch_up(old: Client, new: Side, plan: Plan, done: Copied) -> None:
    """Copy what has changed since, and what changed meanwhile, until nothing has or for
    :data:`ROUNDS_MAX` rounds: what comes after these stays behind."""
    newest = newest_revision(old)
    for _ in range(ROUNDS_MAX):
        if newest <= done.revision:
            return
        before = done.changes
        _follow(old, new, plan, done, newest)
        if done.changes == before:
            return
        newest = newest_revision(old)
        click.echo(
            f"kvctl: copied {done.changes - before} changes, up to revision {done.revision}; "
            f"{max(0, newest - done.revision)} revisions came meanwhile",
            err=True,
        )


def _follow(old: Client, new: Side, plan: Plan, done: Copied, until: int) -> None:
    """Copy changes up to revision ``until``."""
    last: dict[bytes, Event] = {}
    size = 0
    with old.watch(prefix=plan.prefix, from_revision=done.revision + 1) as watch:
        watch.ask_progress()
        for batch in batches_while_there(old, watch, plan.patience_s):
            for event in batch.events:
                last[event.key] = event
                _note_lease(event, done)
                size += len(event.value)
            done.changes += len(batch.events)
            reached = max(done.revision, batch.revision)
            if reached >= until or len(last) >= GATHERED_KEYS or size >= GATHERED_BYTES:
                _apply(new, last, plan)
                done.revision = reached
                last, size = {}, 0
            if done.revision >= until:
                return


def _note_lease(event: Event, done: Copied) -> None:
    """Of a key the last change counts: a lock that is held and given back leaves nothing."""
    if event.kind is EventKind.PUT and event.entry.lease:
        done.leased.add(event.key)
    else:
        done.leased.discard(event.key)


def _apply(new: Side, last: dict[bytes, Event], plan: Plan) -> None:
    """Of a key the last change counts; the order of others is nobody's promise."""
    puts = [(plan.rename(k), it.value) for k, it in last.items() if it.kind is EventKind.PUT]
    deletes = [plan.rename(k) for k, it in last.items() if it.kind is EventKind.DELETE]
    if puts:
        new.put(puts)
    if deletes:
        new.delete(deletes)


def wait_until_quiet(old: Client, new: Side, plan: Plan, done: Copied, quiet_s: float) -> None:
    """Go on copying what changes until nothing has for ``quiet_s`` seconds."""
    click.echo(
        f"kvctl: caught up at revision {done.revision}; goes on until nothing changes for "
        f"{quiet_s:g} s",
        err=True,
    )
    changes, since = done.changes, time.monotonic()
    while (left := since + quiet_s - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left))
        catch_up(old, new, plan, done)
        if done.changes != changes:
            changes, since = done.changes, time.monotonic()
