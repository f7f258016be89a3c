"""``kvctl copy`` where one side is a pool of RADOS, and no group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import click

from kvstore._rados.native import Listing
from kvstore.beyond.rados.driven import DrivenPool
from kvstore.beyond.rados.opening import OpenPool, PoolAddress, find_pool, open_pool
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.interface.output import tell
from kvstore.cli.transfer.comparing import Comparison, compare
from kvstore.cli.transfer.export import newest_revision
from kvstore.cli.transfer.following import Copied, catch_up, copy_all, wait_until_quiet
from kvstore.cli.transfer.passes import PASSES_MAX, Passes, make_passes
from kvstore.cli.transfer.plan import Plan
from kvstore.cli.transfer.pool_side import PoolSide
from kvstore.cli.transfer.sides import (
    GroupSide,
    goes_on,
    refuse_others,
    refuse_to_empty,
    refuse_too_long,
)
from kvstore.client import Client
from kvstore.errors import ConfigurationError
from kvstore.server.config.rados_config import load_rados_config
from kvstore.server.logs import configure_logs
from kvstore.small_files import read_small

__all__ = ["found_pool", "from_pool", "made_pool", "to_pool"]


@contextlib.contextmanager
def made_pool(file: str, timeout_s: float) -> Iterator[PoolSide]:
    """The store in a pool, which is made if there is none yet. ``file``: of a gateway."""
    # What a gateway logs as it opens a pool is not for the standard output of a command.
    configure_logs("warning", "console")
    opened = open_pool(_address(file))
    with _driven(opened, timeout_s) as side:
        yield side


@contextlib.contextmanager
def found_pool(file: str, timeout_s: float) -> Iterator[PoolSide]:
    """One that is there."""
    opened = find_pool(_address(file))
    with _driven(opened, timeout_s) as side:
        yield side


def _address(file: str) -> PoolAddress:
    # Which says of a file that it is kvd's --config.
    try:
        read_small(file)
    except OSError as error:
        raise ConfigurationError(f"failed to read {file}: {error.strerror or error}") from error
    return load_rados_config(file).address


@contextlib.contextmanager
def _driven(opened: OpenPool, timeout_s: float) -> Iterator[PoolSide]:
    listing = partial(Listing, opened.objects)
    with DrivenPool(opened.objects, opened.marker.salt, listing, timeout_s=timeout_s) as pool:
        pool.hear()
        yield PoolSide(pool)


def to_pool(context: click.Context, old: Client, new: PoolSide, plan: Plan) -> int:
    """Copy, compare, and tell; the exit status."""
    refuse_others(new, plan)
    # First: a lease that comes after it is a change, and told.
    done = Copied(newest_revision(old))
    refuse_too_long(old, plan, done.revision)
    refuse_to_empty(old.count(prefix=plan.prefix, revision=done.revision), new, plan)
    if not plan.leased:
        _refuse_leases(old, plan, done.revision)
    with goes_on(plan, lambda: done.keys):
        copy_all(GroupSide(old), new, plan, done)
        catch_up(old, new, plan, done)
        found, since = _compared(old, new, plan, done)
    found.differences.tell()
    no_leases = plan.leased or not done.leased
    fields: dict[str, object] = {
        "copied": done.keys,
        "removed": done.removed,
        "changes": done.changes,
        "leased": len(done.leased),
        "revision": done.revision,
        "keys": found.source.keys,
        "sha256_sum": found.source.hexdigest(),
        **found.differences.counts,
        "equal": found.equal,
        "safe": found.equal and not since and no_leases,
    }
    lines = [
        f"copied {done.keys} keys and {done.changes} changes, up to revision {done.revision}",
        _verdict(found),
    ]
    if not no_leases:
        lines.append(
            f"{len(done.leased)} keys have got leases meanwhile: in the pool they stay for good"
        )
    if since:
        lines.append(
            f"writers go on: {since} changes came while it was compared, and were copied; stop "
            f"the writers, and compare once more before clients switch: {plan.again} does"
        )
    elif found.equal and no_leases:
        lines.append("nothing has changed since: clients can switch, if the writers are stopped")
    tell(context, fields, *lines)
    if not found.equal and found.differences.counts["damaged"]:
        return ExitCode.DAMAGED
    return ExitCode.OK if fields["safe"] else ExitCode.FAILURE


def _compared(old: Client, new: PoolSide, plan: Plan, done: Copied) -> tuple[Comparison, int]:
    """What comparing came to, and how many changes came meanwhile: with a plan that waits none."""
    while True:
        if plan.quiet_s is not None:
            wait_until_quiet(old, new, plan, done, plan.quiet_s)
        found = compare(old, new, plan, done.revision)
        before = done.changes
        catch_up(old, new, plan, done)
        if plan.quiet_s is None or done.changes == before or not found.equal:
            return found, done.changes - before


def _verdict(found: Comparison) -> str:
    if found.equal:
        digest = found.source.hexdigest()[:16]
        return f"both have {found.source.keys} keys, sum of SHA-256 {digest}…"
    counts = found.differences.counts
    if not found.differences.total:
        return "they differ in what neither side has any more: something else writes to the pool"
    return (
        f"they differ: {counts['missing']} keys are missing, {counts['different']} have another "
        f"value, {counts['extra']} are of others, {counts['damaged']} are damaged"
    )


def _refuse_leases(old: Client, plan: Plan, revision: int) -> None:
    """Raises ClickException where keys have leases, of which a pool knows nothing."""
    leased, first = 0, b""
    for page in old.range(prefix=plan.prefix, revision=revision, keys_only=True).pages():
        keys = [entry.key for entry in page if entry.lease]
        first = first or next(iter(keys), b"")
        leased += len(keys)
    if leased:
        raise click.ClickException(
            f"{leased} keys have leases, {printable(first)} is the first: a pool has none, and "
            "there they would stay for good; --without-leases copies them all the same"
        )


def from_pool(context: click.Context, old: PoolSide, new: Client, plan: Plan) -> int:
    """Copy in passes, and tell; the exit status."""
    side = GroupSide(new)
    refuse_others(side, plan)
    done = Passes()
    with goes_on(plan, lambda: done.keys):
        make_passes(old, side, plan, done)
    done.damaged.tell()
    damaged = done.damaged.total
    equal = done.equal and not damaged
    fields: dict[str, object] = {
        "copied": done.keys,
        "removed": done.removed,
        "passes": done.number,
        "keys": done.seen.keys,
        "sha256_sum": done.seen.hexdigest(),
        "damaged": damaged - done.unread,
        "unread_buckets": done.unread,
        "equal": equal,
    }
    lines = [f"copied {done.keys} keys and removed {done.removed} in {done.number} passes"]
    if equal:
        digest = done.seen.hexdigest()[:16]
        lines += [
            f"the last pass found nothing different: both have {done.seen.keys} keys, sum of "
            f"SHA-256 {digest}…",
            "a pool doesn't tell what is written meanwhile: with its writers stopped, "
            f"{plan.again} once more before clients switch",
        ]
    elif damaged:
        lines.append(
            f"{damaged - done.unread} keys are damaged, and {done.unread} buckets can't be read: "
            "these weren't copied"
        )
    else:
        lines.append(
            f"after {done.number} passes of {PASSES_MAX} they still differ: something writes to "
            f"one of them; stop the writers, and {plan.again} goes on"
        )
    tell(context, fields, *lines)
    if damaged:
        return ExitCode.DAMAGED
    return ExitCode.OK if equal else ExitCode.FAILURE
