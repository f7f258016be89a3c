"""``kvctl watch``, ``kvctl history`` and ``kvctl compact``: changes to come, and the past."""

from __future__ import annotations

import json

import click

from kvstore.cli.data.values import DataCommand
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import read_key, write_json
from kvstore.cli.interface.keys import (
    event_fields,
    event_line,
    hex_option,
    keys_options,
    keys_wanted,
)
from kvstore.client import Event

revision_type = click.IntRange(min=1)


def _show(context: click.Context, event: Event, hexadecimal: bool) -> None:
    if settings_of(context).output == "json":
        write_json(event_fields(event), hexadecimal=hexadecimal)
    else:
        click.echo(event_line(event, hexadecimal=hexadecimal))


@click.command("watch", cls=DataCommand, short_help="print changes as they come")
@click.argument("key")
@keys_options
@click.option(
    "--rev", type=revision_type, metavar="N", help="From revision N on. [default: from now on]"
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
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    rev: int | None,
    prev: bool,
    count: int | None,
    hexadecimal: bool,
) -> None:
    """Print changes of KEY, or of keys from KEY to before END, until Ctrl-C.

    One line each: revision, put or delete, key, value; with --output=json one object each. Each
    change comes once, in order, whatever becomes of the servers meanwhile.

    \b
    Examples:
      kvctl watch colour
      kvctl watch --prefix jobs/
      kvctl watch --prefix jobs/ --rev 17 --output=json
    """
    wanted = keys_wanted(key, end, prefix=prefix, from_key=from_key, hexadecimal=hexadecimal)
    with (
        settings_of(context).connect() as client,
        client.watch(**wanted._asdict(), from_revision=rev or 0, previous=prev) as watch,
    ):
        for number, event in enumerate(watch, start=1):
            _show(context, event, hexadecimal)
            if number == count:
                return


@click.command("history", cls=DataCommand, short_help="print a key's past changes")
@click.argument("key")
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
    with settings_of(context).connect() as client:
        for event in client.history(read_key(key, hexadecimal=hexadecimal)):
            _show(context, event, hexadecimal)


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
    if settings_of(context).output == "json":
        click.echo(json.dumps({"compacted": revision}))
    else:
        click.echo(f"history begins at {revision}")
