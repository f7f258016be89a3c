"""``kvctl copy`` from one group to another."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.progress import Progress
from kvstore.cli.transfer.export import newest_revision
from kvstore.cli.transfer.following import Copied, catch_up, copy_all, wait_until_quiet
from kvstore.cli.transfer.plan import Plan, There
from kvstore.cli.transfer.sides import GroupSide, goes_on, refuse_to_empty, refuse_too_long
from kvstore.client import Client, KeyValue
from kvstore.client.urls import Target, target_of

__all__ = ["between_groups"]

# Of the key by which one store is known.
MARK_TTL_S = 60


def between_groups(
    context: click.Context, old: Client, new: Client, plan: Plan, source: str, target: str
) -> int:
    """Copy, compare, and tell; the exit status. ``source``, ``target``: as they were said."""
    there = new.count(prefix=plan.begin)
    if there and plan.there is There.REFUSED:
        raise click.ClickException(
            f"{target} has {there} such keys already; --merge copies all the same, --mirror has "
            "those go that the source doesn't have"
        )
    _refuse_one_place(old, new, plan, _namespace(source), _namespace(target))
    side = GroupSide(new)
    copied = Copied(newest_revision(old))
    refuse_too_long(old, plan, copied.revision)
    refuse_to_empty(old.count(prefix=plan.prefix, revision=copied.revision), side, plan)
    with goes_on(plan, lambda: copied.keys):
        copy_all(GroupSide(old), side, plan, copied)
        catch_up(old, side, plan, copied)
        if plan.quiet_s is not None:
            wait_until_quiet(old, side, plan, copied, plan.quiet_s)
        found = _compare(old, new, plan, copied.revision)
    may_be_more = plan.there is There.MERGED
    equal = not (found.missing or found.different or (found.extra and not may_be_more))
    fields: dict[str, object] = {
        "copied": copied.keys,
        "removed": copied.removed,
        "changes": copied.changes,
        "revision": copied.revision,
        "keys": found.keys,
        "sha256": found.digest.hexdigest(),
        "missing": found.missing,
        "different": found.different,
        "extra": found.extra,
        "equal": equal,
    }
    if equal:
        verdict = f"both have {found.keys} keys, SHA-256 {found.digest.hexdigest()[:16]}…"
    else:
        verdict = (
            f"they differ: {found.missing} keys are missing, {found.different} have another "
            f"value, {found.extra} are of others"
        )
    said = f"copied {copied.keys} keys and {copied.changes} changes, up to revision"
    tell(context, fields, f"{said} {copied.revision}", verdict)
    return ExitCode.OK if equal else ExitCode.FAILURE


def _refuse_one_place(old: Client, new: Client, plan: Plan, seen: bytes, written: bytes) -> None:
    """Raises ClickException where copies would be copied. ``seen``, ``written``: the namespaces."""
    place = _meeting(seen + plan.prefix, written + plan.begin)
    if place is not None and _is_one_place(old, new, place[len(seen) :], place[len(written) :]):
        raise click.ClickException(
            "both sides are one store, and where the keys come to lies in what is copied, or "
            "the other way round: nothing would ever be left to copy; nothing was"
        )


def _namespace(said: str) -> bytes:
    """Of a connection string, empty for addresses."""
    return target_of(said, Target(())).namespace or b""


def _meeting(source: bytes, target: bytes) -> bytes | None:
    """What keys of both begin with, if they can; None: no key is of both."""
    if target.startswith(source):
        return target
    return source if source.startswith(target) else None


def _is_one_place(old: Client, new: Client, seen: bytes, written: bytes) -> bool:
    """Whether a key that is written there is seen here: by no id, as embedded kvds share theirs.

    It has a lease, so that nothing stays of it.
    """
    mark = os.urandom(16).hex().encode()
    with new.lease(MARK_TTL_S) as lease:
        new.put(written + mark, b"", lease=lease)
        return old.get(seen + mark) is not None


@dataclass(slots=True)
class Found:
    """What comparing came to; the digest is of all keys and values of the one side."""

    keys: int = 0
    missing: int = 0
    different: int = 0
    extra: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


def _compare(old: Client, new: Client, plan: Plan, revision: int) -> Found:
    """Both sides, read in order beside each other."""
    found = Found()
    there = iter(new.range(prefix=plan.begin))
    other: KeyValue | None = next(there, None)
    with Progress("comparing", old.count(prefix=plan.prefix, revision=revision)) as progress:
        for entry in old.range(prefix=plan.prefix, revision=revision):
            key = plan.rename(entry.key)
            while other is not None and other.key < key:
                found.extra += 1
                other = next(there, None)
            if other is None or other.key != key:
                found.missing += 1
            else:
                # With a lease it would be gone one day.
                found.different += other.value != entry.value or other.lease != 0
                other = next(there, None)
            _digest(found, key, entry.value)
            progress.advance()
    while other is not None:
        found.extra += 1
        other = next(there, None)
    return found


def _digest(found: Found, key: bytes, value: bytes) -> None:
    found.keys += 1
    for part in (key, value):
        found.digest.update(len(part).to_bytes(8, "little"))
        found.digest.update(part)
