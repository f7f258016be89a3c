"""``kvctl watch``, ``kvctl history`` and ``kvctl compact``: changes to come, and the past."""

from __future__ import annotations

from collections.abc import Sequence

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import read_key
from kvstore.cli.interface.entries import add_event, event_results
from kvstore.cli.interface.keys import (
    DataCommand,
    complete_keys,
    hex_option,
    keys_options,
    keys_wanted,
)
from kvstore.cli.interface.output import tell

revision_type = click.IntRange(min=1)


@click.command("watch", cls=DataCommand, short_help="print changes as they come")
@keys_options
@click.option(
    "--rev",
    "--revision",
    "rev",
    type=revision_type,
    metavar="N",
    help="From revision N on. [default: from now on]",
)
@click.option("--prev", is_flag=True, help="Print as well what there was before.")
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="End after N changes. [default: never]"
)
@hex_option
@connection_options
@click.pass_context
def watch_command(
    context: click.Context,
    keys: Sequence[str],
    prefix: bool,
    from_key: bool,
    between: bool,
    rev: int | None,
    prev: bool,
    count: int | None,
    hexadecimal: bool,
) -> None:
    """Print changes of KEY, or of many, until Ctrl-C.

    One line each: revision, put or delete, key, value; with --output=json an object a line. Each
    change comes once, in order, whatever becomes of the servers meanwhile.

    \b
    Examples:
      kvctl watch colour
      kvctl watch --prefix jobs/
      kvctl watch --prefix jobs/ --rev 17 --output=json
    """
    wanted = keys_wanted(
        keys,
        prefix=prefix,
        from_key=from_key,
        between=between,
        hexadecimal=hexadecimal,
        many=False,
    )
    with (
        event_results(context, hexadecimal=hexadecimal, live=True) as results,
        settings_of(context).connect() as client,
        client.watch(
            wanted.key,
            prefix=wanted.prefix,
            start=wanted.start,
            end=wanted.end,
            from_revision=rev or 0,
            previous=prev,
        ) as watch,
    ):
        for number, event in enumerate(watch, start=1):
            add_event(results, event, hexadecimal=hexadecimal)
            if number == count:
                return


@click.command("history", cls=DataCommand, short_help="print a key's past changes")
@click.argument("key", shell_complete=complete_keys)
@hex_option
@connection_options
@click.pass_context
def history_command(context: click.Context, key: str, hexadecimal: bool) -> None:
    """Print what is remembered of KEY's changes, the oldest first, as 'kvctl watch' would have.

    How long history lasts is the server's affair; see 'kvctl compact'.

    \b
    Examples:
      kvctl history colour
      kvctl history colour --output=json
    """
    with (
        event_results(context, hexadecimal=hexadecimal, live=False) as results,
        settings_of(context).connect() as client,
    ):
        for event in client.history(read_key(key, hexadecimal=hexadecimal)):
            add_event(results, event, hexadecimal=hexadecimal)


@click.command("compact", short_help="forget history before a revision")
@click.argument("revision", type=revision_type)
@click.option("--physical", is_flag=True, help="Return only when the space is free.")
@connection_options
@click.pass_context
def compact_command(context: click.Context, revision: int, physical: bool) -> None:
    """Forget what was before REVISION; what there was at REVISION can still be read.

    \b
    Examples:
      kvctl compact 17
      kvctl compact --physical 17
    """
    with settings_of(context).connect() as client:
        client.compact(revision, physical=physical)
    tell(context, {"compacted": revision}, f"history begins at {revision}")
