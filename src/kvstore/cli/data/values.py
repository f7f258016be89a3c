"""``kvctl put``, ``kvctl get`` and ``kvctl del``."""

from __future__ import annotations

import sys

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.holding.lease import lease_id
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import (
    in_words,
    printable,
    read_key,
    read_value,
    write_json,
    write_value,
)
from kvstore.cli.interface.keys import (
    KeysWanted,
    entry_fields,
    hex_option,
    keys_options,
    keys_wanted,
)
from kvstore.client import Client

request_id_option = click.option(
    "--request-id",
    metavar="ID",
    help="Identity of this write, to repeat one whose outcome is unknown. [default: a new one]",
)
retry_option = click.option(
    "--retry", is_flag=True, help="With --request-id: it may have been sent before."
)


class DataCommand(click.Command):
    """A command whose arguments are data, which may well begin with ``-``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        try:
            return super().parse_args(context, arguments)
        except click.NoSuchOption as error:
            hint = f"{error.message} A KEY or VALUE that begins with - goes after --."
            raise click.NoSuchOption(
                error.option_name, hint, error.possibilities, error.ctx
            ) from None


@click.command("put", cls=DataCommand, short_help="store a value")
@click.argument("key")
@click.argument("value")
@click.option("--lease", type=lease_id, help="The key goes when this lease does.")
@hex_option
@request_id_option
@retry_option
@connection_options
@click.pass_context
def put_command(
    context: click.Context,
    key: str,
    value: str,
    lease: int | None,
    hexadecimal: bool,
    request_id: str | None,
    retry: bool,
) -> None:
    """Store VALUE under KEY. A VALUE of - is read from standard input, byte for byte.

    \b
    Examples:
      kvctl put colour green
      kvctl put photo - < cat.jpg
      kvctl put -- -5 minus-five       after -- nothing is an option
      kvctl put --request-id=order-17 order:17 paid
      kvctl put --request-id=order-17 --retry order:17 paid     when the first one timed out

    Prints "created" or "overwritten". Keys have 1 to 1,024 bytes, values up to 1 MiB.
    """
    _check_retry(request_id, retry)
    settings = settings_of(context)
    stored_key = read_key(key, hexadecimal=hexadecimal)
    with settings.connect() as client:
        overwritten = client.put(
            stored_key,
            read_value(value, hexadecimal=hexadecimal),
            lease=lease,
            request_id=request_id,
            retry=retry,
        )
    if settings.output == "json":
        write_json({"key": stored_key, "overwritten": overwritten}, hexadecimal=hexadecimal)
    else:
        click.echo("overwritten" if overwritten else "created")


@click.command("get", cls=DataCommand, short_help="print a value, or keys and their values")
@click.argument("key")
@keys_options
@click.option("--rev", type=click.IntRange(min=1), metavar="N", help="As it was at revision N.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="So many keys at most.")
@click.option("--reverse", is_flag=True, help="The last key first.")
@click.option("--keys-only", is_flag=True, help="Print keys without their values.")
@click.option("--count", is_flag=True, help="Print how many keys there are.")
@hex_option
@connection_options
@click.pass_context
def get_command(
    context: click.Context,
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    rev: int | None,
    limit: int | None,
    reverse: bool,
    keys_only: bool,
    count: bool,
    hexadecimal: bool,
) -> None:
    """Print the value of KEY, or the keys from KEY to before END with their values.

    Of a single key exactly the bytes of the value go into a pipe or a file; on a terminal a newline
    follows and what isn't printable is escaped. Of more there is a line for each: key, tab, value,
    with what isn't printable escaped; with --output=json an object for each. All are as they were
    at one revision.

    \b
    Examples:
      kvctl get colour
      kvctl get photo > cat.jpg
      kvctl get --hex 00ff
      kvctl get --output=json colour
      kvctl get --rev 17 colour        as it was then
      kvctl get --prefix jobs/         all that begin so; --prefix "" is all there is
      kvctl get jobs/1 jobs/5          from the one to before the other
      kvctl get --prefix jobs/ --count

    Exits with 3 if KEY has no value.
    """
    wanted = keys_wanted(key, end, prefix=prefix, from_key=from_key, hexadecimal=hexadecimal)
    with settings_of(context).connect() as client:
        if wanted.key is not None and not (count or keys_only):
            _get_one(context, client, wanted.key, rev, hexadecimal)
        elif count:
            _count(context, client, wanted, rev or 0)
        else:
            _get_range(context, client, wanted, rev or 0, limit, reverse, keys_only, hexadecimal)


def _get_one(
    context: click.Context, client: Client, key: bytes, rev: int | None, hexadecimal: bool
) -> None:
    """Print one value: the newest one needs no revision of the server."""
    if rev is None:
        value = client.get(key)
        fields: dict[str, object] = {"value": value}
    else:
        entry = client.get_entry(key, revision=rev)
        value = None if entry is None else entry.value
        fields = {"value": None} if entry is None else entry_fields(entry)
    if settings_of(context).output == "json":
        write_json({"key": key, "found": value is not None, **fields}, hexadecimal=hexadecimal)
    elif value is None:
        _say_not_found(key, hexadecimal)
    else:
        write_value(value, hexadecimal=hexadecimal)
    if value is None:
        sys.exit(ExitCode.NOT_FOUND)


def _count(context: click.Context, client: Client, wanted: KeysWanted, rev: int) -> None:
    if wanted.key is not None:
        number = int(client.get_entry(wanted.key, revision=rev) is not None)
    else:
        number = client.count(wanted.start, wanted.end, prefix=wanted.prefix, revision=rev)
    if settings_of(context).output == "json":
        write_json({"count": number}, hexadecimal=False)
    else:
        click.echo(number)


def _get_range(
    context: click.Context,
    client: Client,
    wanted: KeysWanted,
    rev: int,
    limit: int | None,
    reverse: bool,
    keys_only: bool,
    hexadecimal: bool,
) -> None:
    """Print a line for each key, as they come."""
    start, end = wanted.start, wanted.end
    if wanted.key is not None:
        start, end = wanted.key, wanted.key + b"\0"
    found = client.range(
        start,
        end,
        prefix=wanted.prefix,
        limit=limit,
        revision=rev,
        keys_only=keys_only,
        reverse=reverse,
    )
    for entry in found:
        if settings_of(context).output == "json":
            fields = entry_fields(entry)
            if keys_only:
                del fields["value"]
            write_json(fields, hexadecimal=hexadecimal)
            continue
        line = in_words(entry.key, hexadecimal=hexadecimal)
        if not keys_only:
            line += "\t" + in_words(entry.value, hexadecimal=hexadecimal)
        click.echo(line)


@click.command("del", cls=DataCommand, short_help="remove a key, or many")
@click.argument("key")
@keys_options
@hex_option
@request_id_option
@retry_option
@connection_options
@click.pass_context
def delete_command(
    context: click.Context,
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    hexadecimal: bool,
    request_id: str | None,
    retry: bool,
) -> None:
    """Remove KEY and its value, or all keys from KEY to before END as one.

    \b
    Examples:
      kvctl del colour
      kvctl del --hex 00ff
      kvctl del --prefix jobs/         all that begin so; --prefix "" is all there is
      kvctl del jobs/1 jobs/5          from the one to before the other

    Prints "deleted", or how many keys were; exits with 3 if there was none.
    """
    _check_retry(request_id, retry)
    settings = settings_of(context)
    wanted = keys_wanted(key, end, prefix=prefix, from_key=from_key, hexadecimal=hexadecimal)
    if wanted.key is None:
        _delete_range(context, wanted, request_id)
        return
    with settings.connect() as client:
        deleted = client.delete(wanted.key, request_id=request_id, retry=retry)
    if settings.output == "json":
        write_json({"key": wanted.key, "deleted": deleted}, hexadecimal=hexadecimal)
    elif deleted:
        click.echo("deleted")
    else:
        _say_not_found(wanted.key, hexadecimal)
    if not deleted:
        sys.exit(ExitCode.NOT_FOUND)


def _delete_range(context: click.Context, wanted: KeysWanted, request_id: str | None) -> None:
    if request_id is not None:
        raise click.UsageError("--request-id is for a single KEY.")
    settings = settings_of(context)
    with settings.connect() as client:
        gone = client.delete_range(wanted.start, wanted.end, prefix=wanted.prefix)
    if settings.output == "json":
        write_json({"deleted": gone.deleted, "revision": gone.revision}, hexadecimal=False)
    else:
        click.echo(f"deleted {gone.deleted}")
    if not gone.deleted:
        sys.exit(ExitCode.NOT_FOUND)


def _check_retry(request_id: str | None, retry: bool) -> None:
    if retry and request_id is None:
        raise click.UsageError("--retry needs the --request-id that was sent before")


def _say_not_found(key: bytes, hexadecimal: bool) -> None:
    shown = key.hex() if hexadecimal else printable(key)
    click.echo(f"kvctl: key not found: {shown}", err=True)
