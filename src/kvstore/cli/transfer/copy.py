"""``kvctl copy``: from one cluster to another, until the other has all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import read_key
from kvstore.cli.interface.keys import hex_option
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.progress import Progress
from kvstore.cli.transfer.export import newest_revision
from kvstore.client import Client, Event, EventKind, KeyValue
from kvstore.client.urls import Target, target_of

__all__ = ["copy_command"]

Rename = Callable[[bytes], bytes]

# Of the key by which one store is known.
MARK_TTL_S = 60


@click.command("copy", short_help="copy keys from one cluster to another, and compare")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="HOST:PORT[,...]",
    help="Where they are: addresses of one cluster, or a connection string kv://….",
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="HOST:PORT[,...]",
    help="Where they come to, likewise.",
)
@click.option("--to-prefix", metavar="TEXT", help="There they begin with TEXT, in place of PREFIX.")
@click.option(
    "--merge",
    is_flag=True,
    help="Also where there are such keys already, which stay if these aren't called so.",
)
@hex_option
@connection_options
@click.pass_context
def copy_command(
    context: click.Context,
    prefix: str,
    source: str,
    target: str,
    to_prefix: str | None,
    merge: bool,
    hexadecimal: bool,
) -> int:
    """Copy all keys that begin with PREFIX, or all there are, then what changes meanwhile, until
    nothing is left to copy; then compare both sides, key by key.

    Writers may go on; what comes after it has caught up is not copied. Leases, history and
    revisions stay behind. Options such as --tls-ca and --user are for both sides; where they
    differ, give connection strings.

    \b
    Examples:
      kvctl copy --from old:50051 --to new1:50051,new2:50051
      kvctl copy jobs/ --from old:50051 --to new:50051 --to-prefix old-jobs/

    Exits with 1 if the two sides differ in the end, or are one store whose copies would be copied.
    """
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    begin = wanted if to_prefix is None else read_key(to_prefix, hexadecimal=hexadecimal)

    def rename(key: bytes) -> bytes:
        return begin + key[len(wanted) :]

    settings = settings_of(context)
    with settings.connect(source) as old, settings.connect(target) as new:
        there = new.count(prefix=rename(wanted))
        if there and not merge:
            raise click.ClickException(
                f"{target} has {there} such keys already; --merge copies all the same"
            )
        place = _meeting(_namespace(source) + wanted, _namespace(target) + begin)
        if place is not None and _is_one_place(
            old, new, place[len(_namespace(source)) :], place[len(_namespace(target)) :]
        ):
            raise click.ClickException(
                "both sides are one store, and where the keys come to lies in what is copied, or "
                "the other way round: nothing would ever be left to copy; nothing was"
            )
        copied = _copy(old, new, wanted, rename)
        found = _compare(old, new, wanted, rename, copied.revision)
    equal = not (found.missing or found.different or (found.extra and not merge))
    fields: dict[str, object] = {
        "copied": copied.keys,
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
class Copied:
    """How far it is; ``revision``: all up to there was copied."""

    revision: int
    keys: int = 0
    changes: int = 0


def _copy(old: Client, new: Client, prefix: bytes, rename: Rename) -> Copied:
    """All at one revision, then what changed since, until nothing has."""
    done = Copied(newest_revision(old))
    total = old.count(prefix=prefix, revision=done.revision)
    with Progress("copying", total) as progress:

        def pairs() -> Iterator[tuple[bytes, bytes]]:
            for entry in old.range(prefix=prefix, revision=done.revision):
                yield rename(entry.key), entry.value
                progress.advance()

        done.keys = new.put_many(pairs())
    while (newest := newest_revision(old)) > done.revision:
        _follow(old, new, prefix, rename, done, newest)
    return done


def _follow(
    old: Client, new: Client, prefix: bytes, rename: Rename, done: Copied, until: int
) -> None:
    """Copy changes up to revision ``until``."""
    with old.watch(prefix=prefix, from_revision=done.revision + 1) as watch:
        watch.ask_progress()
        for batch in watch.batches():
            done.changes += len(batch.events)
            _apply(new, batch.events, rename)
            done.revision = max(done.revision, batch.revision)
            if done.revision >= until:
                return


def _apply(new: Client, events: tuple[Event, ...], rename: Rename) -> None:
    """Of a key the last one counts; the order of others is nobody's promise."""
    last = {event.key: event for event in events}
    puts = [event for event in last.values() if event.kind is EventKind.PUT]
    new.put_many((rename(event.key), event.value) for event in puts)
    for event in last.values():
        if event.kind is EventKind.DELETE:
            new.delete(rename(event.key))


@dataclass(slots=True)
class Found:
    """What comparing came to; the digest is of all keys and values of the one side."""

    keys: int = 0
    missing: int = 0
    different: int = 0
    extra: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


def _compare(old: Client, new: Client, prefix: bytes, rename: Rename, revision: int) -> Found:
    """Both sides, read in order beside each other."""
    found = Found()
    there = iter(new.range(prefix=rename(prefix)))
    other: KeyValue | None = next(there, None)
    with Progress("comparing", old.count(prefix=prefix, revision=revision)) as progress:
        for entry in old.range(prefix=prefix, revision=revision):
            key = rename(entry.key)
            while other is not None and other.key < key:
                found.extra += 1
                other = next(there, None)
            if other is None or other.key != key:
                found.missing += 1
            else:
                found.different += other.value != entry.value
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
