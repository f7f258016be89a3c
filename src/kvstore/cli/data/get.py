"""``kvctl get``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.entries import add_entry, entry_fields, entry_results
from kvstore.cli.interface.found import say_not_found, write_found
from kvstore.cli.interface.keys import (
    DataCommand,
    KeysWanted,
    hex_option,
    keys_options,
    keys_wanted,
    revision_option,
)
from kvstore.cli.interface.output import tell_data
from kvstore.client import Client, Get, KeyValue

__all__ = ["get_command"]

# As many reads as one transaction has.
GETS_MAX = 100


@click.command("get", cls=DataCommand, short_help="print values, or keys and their values")
@keys_options
@revision_option
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="So many keys at most.")
@click.option("--reverse", is_flag=True, help="The last key first.")
@click.option("--keys-only", is_flag=True, help="Print keys without their values.")
@click.option("--count", is_flag=True, help="Print how many keys there are.")
@hex_option
@connection_options
@click.pass_context
def get_command(
    context: click.Context,
    keys: Sequence[str],
    prefix: bool,
    from_key: bool,
    between: bool,
    rev: int | None,
    limit: int | None,
    reverse: bool,
    keys_only: bool,
    count: bool,
    hexadecimal: bool,
) -> None:
    """Print the value of KEY, or of several, or of all keys that are meant.

    Of a single key exactly the bytes of the value go into a pipe or a file; on a terminal a newline
    follows and what isn't printable is escaped. Of more there is a line for each: key, tab, value,
    with what isn't printable escaped. All are as they were at one revision.

    \b
    Examples:
      kvctl get colour
      kvctl get photo > cat.jpg
      kvctl get colour size weight
      kvctl get --hex 00ff
      kvctl get --output=json colour
      kvctl get --rev 17 colour        as it was then
      kvctl get --prefix jobs/         all that begin so; --prefix "" is all there is
      kvctl get --range jobs/1 jobs/5  from the one to before the other
      kvctl get --prefix jobs/ --count

    Exits with 3 if a KEY has no value.
    """
    wanted = keys_wanted(
        keys, prefix=prefix, from_key=from_key, between=between, hexadecimal=hexadecimal
    )
    if wanted.keys and (limit is not None or reverse):
        raise click.UsageError("--limit and --reverse go with --prefix, --from-key or --range.")
    with settings_of(context).connect() as client:
        if count:
            number = _count(client, wanted, rev or 0)
            tell_data(context, {"count": number}, str(number), hexadecimal=False)
        elif len(wanted.keys) == 1 and not keys_only:
            _get_one(context, client, wanted.keys[0], rev, hexadecimal)
        elif wanted.keys:
            _get_each(context, client, wanted.keys, rev or 0, keys_only, hexadecimal)
        else:
            with entry_results(context, keys_only=keys_only, hexadecimal=hexadecimal) as results:
                for entry in client.range(
                    wanted.start,
                    wanted.end,
                    prefix=wanted.prefix,
                    limit=limit,
                    revision=rev or 0,
                    keys_only=keys_only,
                    reverse=reverse,
                ):
                    add_entry(results, entry, keys_only=keys_only, hexadecimal=hexadecimal)


def _get_one(
    context: click.Context, client: Client, key: bytes, rev: int | None, hexadecimal: bool
) -> None:
    """Print one value: the newest one needs no revision of the server."""
    if rev is None:
        write_found(context, key, client.get(key), hexadecimal)
        return
    entry = client.get_entry(key, revision=rev)
    value = None if entry is None else entry.value
    fields = None if entry is None else entry_fields(entry)
    write_found(context, key, value, hexadecimal, fields)


def _get_each(
    context: click.Context,
    client: Client,
    keys: Sequence[bytes],
    rev: int,
    keys_only: bool,
    hexadecimal: bool,
) -> None:
    missing = []
    with entry_results(context, keys_only=keys_only, hexadecimal=hexadecimal) as results:
        for key, entry in _entries(client, keys, rev):
            if entry is None:
                missing.append(key)
            else:
                add_entry(results, entry, keys_only=keys_only, hexadecimal=hexadecimal)
    for key in missing:
        say_not_found(key, hexadecimal)
    if missing:
        sys.exit(ExitCode.NOT_FOUND)


def _entries(
    client: Client, keys: Sequence[bytes], rev: int
) -> list[tuple[bytes, KeyValue | None]]:
    """All at one revision: the newest are read by one transaction, or by it and from it on."""
    if rev == 0 and len(keys) <= GETS_MAX:
        gets = [Get(key) for key in keys]
        result = client.transaction().then(*gets).commit()
        return [(key, result[get].entry) for key, get in zip(keys, gets, strict=True)]
    if rev == 0:
        rev = client.transaction().then(Get(keys[0])).commit().revision
    return [(key, client.get_entry(key, revision=rev)) for key in keys]


def _count(client: Client, wanted: KeysWanted, rev: int) -> int:
    if wanted.keys:
        return sum(entry is not None for _, entry in _entries(client, wanted.keys, rev))
    return client.count(wanted.start, wanted.end, prefix=wanted.prefix, revision=rev)
