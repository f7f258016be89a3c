"""``kvctl del``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from kvstore.cli.data.put import check_retry, request_id_option, retry_option
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words
from kvstore.cli.interface.found import say_not_found
from kvstore.cli.interface.keys import (
    DataCommand,
    KeysWanted,
    hex_option,
    keys_options,
    keys_wanted,
)
from kvstore.cli.interface.output import is_json, tell_data, write_line
from kvstore.client import Client, Delete

__all__ = ["delete_command"]

# As many as one transaction has.
KEYS_MAX = 100


@click.command("del", cls=DataCommand, short_help="remove keys")
@keys_options
@click.option("--dry-run", is_flag=True, help="Remove nothing; print the keys that would go.")
@click.option("--yes", is_flag=True, help="Don't ask before many are removed, on a terminal.")
@hex_option
@request_id_option
@retry_option
@connection_options
@click.pass_context
def delete_command(
    context: click.Context,
    keys: Sequence[str],
    prefix: bool,
    from_key: bool,
    between: bool,
    dry_run: bool,
    yes: bool,
    hexadecimal: bool,
    request_id: str | None,
    retry: bool,
) -> None:
    """Remove KEY and its value, or several, or all keys that are meant, as one.

    \b
    Examples:
      kvctl del colour
      kvctl del colour size weight
      kvctl del --hex 00ff
      kvctl del --prefix jobs/ --dry-run
      kvctl del --prefix jobs/         all that begin so; --prefix "" is all there is
      kvctl del --range jobs/1 jobs/5  from the one to before the other

    Prints "deleted", or how many keys were; exits with 3 if there was none. On a terminal it asks
    before keys go that weren't named.
    """
    check_retry(request_id, retry)
    wanted = keys_wanted(
        keys, prefix=prefix, from_key=from_key, between=between, hexadecimal=hexadecimal
    )
    if request_id is not None and len(wanted.keys) != 1:
        raise click.UsageError("--request-id is for a single KEY.")
    if len(wanted.keys) > KEYS_MAX:
        raise click.UsageError(f"{KEYS_MAX} KEYs at once, at most.")
    with settings_of(context).connect() as client:
        if dry_run:
            _show_what_would_go(context, client, wanted, hexadecimal)
        elif len(wanted.keys) == 1:
            _delete_one(context, client, wanted.keys[0], request_id, retry, hexadecimal)
        elif wanted.keys:
            _delete_each(context, client, wanted.keys, hexadecimal)
        else:
            if not yes:
                _ask(client, wanted)
            _delete_range(context, client, wanted)


def _show_what_would_go(
    context: click.Context, client: Client, wanted: KeysWanted, hexadecimal: bool
) -> None:
    if wanted.keys:
        found = [key for key in wanted.keys if client.get_entry(key) is not None]
    else:
        entries = client.range(wanted.start, wanted.end, prefix=wanted.prefix, keys_only=True)
        if not is_json(context):
            for entry in entries:
                write_line(in_words(entry.key, hexadecimal=hexadecimal))
            return
        found = [entry.key for entry in entries]
    lines = (in_words(key, hexadecimal=hexadecimal) for key in found)
    tell_data(context, {"would_delete": found}, *lines, hexadecimal=hexadecimal)


def _delete_one(
    context: click.Context,
    client: Client,
    key: bytes,
    request_id: str | None,
    retry: bool,
    hexadecimal: bool,
) -> None:
    deleted = client.delete(key, request_id=request_id, retry=retry)
    said = ["deleted"] if deleted else []
    tell_data(context, {"key": key, "deleted": deleted}, *said, hexadecimal=hexadecimal)
    if not deleted:
        if not is_json(context):
            say_not_found(key, hexadecimal)
        sys.exit(ExitCode.NOT_FOUND)


def _delete_each(
    context: click.Context, client: Client, keys: Sequence[bytes], hexadecimal: bool
) -> None:
    """All as one; which were not there is told."""
    deletes = [Delete(key) for key in dict.fromkeys(keys)]
    result = client.transaction().then(*deletes).commit()
    gone = {key: result[one].deleted for key, one in zip(dict.fromkeys(keys), deletes, strict=True)}
    number = sum(gone.values())
    _say_deleted(context, number, result.revision)
    missing = [key for key, count in gone.items() if not count]
    for key in missing:
        say_not_found(key, hexadecimal)
    if missing:
        sys.exit(ExitCode.NOT_FOUND)


def _ask(client: Client, wanted: KeysWanted) -> None:
    """On a terminal, where somebody can answer. Raises Abort for a no."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    number = client.count(wanted.start, wanted.end, prefix=wanted.prefix)
    if number and not click.confirm(f"Remove {number:,} keys?", err=True):
        click.echo("kvctl: nothing was removed", err=True)
        sys.exit(ExitCode.FAILURE)


def _delete_range(context: click.Context, client: Client, wanted: KeysWanted) -> None:
    gone = client.delete_range(wanted.start, wanted.end, prefix=wanted.prefix)
    _say_deleted(context, gone.deleted, gone.revision)
    if not gone.deleted:
        sys.exit(ExitCode.NOT_FOUND)


def _say_deleted(context: click.Context, number: int, revision: int) -> None:
    tell_data(
        context,
        {"deleted": number, "revision": revision},
        f"deleted {number}",
        hexadecimal=False,
    )
