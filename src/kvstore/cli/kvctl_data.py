"""``kvctl put``, ``kvctl get`` and ``kvctl del``."""

from __future__ import annotations

import sys

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.kvctl_bytes import printable, read_key, read_value, write_json, write_value
from kvstore.cli.kvctl_connection import connection_options, settings_of

hex_option = click.option(
    "--hex", "hexadecimal", is_flag=True, help="Read and print keys and values as hexadecimal."
)
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
@hex_option
@request_id_option
@retry_option
@connection_options
@click.pass_context
def put_command(
    context: click.Context,
    key: str,
    value: str,
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
            request_id=request_id,
            retry=retry,
        )
    if settings.output == "json":
        write_json({"key": stored_key, "overwritten": overwritten}, hexadecimal=hexadecimal)
    else:
        click.echo("overwritten" if overwritten else "created")


@click.command("get", cls=DataCommand, short_help="print a value")
@click.argument("key")
@hex_option
@connection_options
@click.pass_context
def get_command(context: click.Context, key: str, hexadecimal: bool) -> None:
    """Print the value of KEY.

    Into a pipe or a file go exactly the bytes of the value. On a terminal a newline follows and
    what isn't printable is escaped.

    \b
    Examples:
      kvctl get colour
      kvctl get photo > cat.jpg
      kvctl get --hex 00ff
      kvctl get --output=json colour

    Exits with 3 if KEY has no value.
    """
    settings = settings_of(context)
    stored_key = read_key(key, hexadecimal=hexadecimal)
    with settings.connect() as client:
        value = client.get(stored_key)
    if settings.output == "json":
        found = value is not None
        write_json({"key": stored_key, "found": found, "value": value}, hexadecimal=hexadecimal)
    elif value is None:
        _say_not_found(stored_key, hexadecimal)
    else:
        write_value(value, hexadecimal=hexadecimal)
    if value is None:
        sys.exit(ExitCode.NOT_FOUND)


@click.command("del", cls=DataCommand, short_help="remove a key")
@click.argument("key")
@hex_option
@request_id_option
@retry_option
@connection_options
@click.pass_context
def delete_command(
    context: click.Context, key: str, hexadecimal: bool, request_id: str | None, retry: bool
) -> None:
    """Remove KEY and its value.

    \b
    Examples:
      kvctl del colour
      kvctl del --hex 00ff

    Prints "deleted"; exits with 3 if KEY had no value.
    """
    _check_retry(request_id, retry)
    settings = settings_of(context)
    stored_key = read_key(key, hexadecimal=hexadecimal)
    with settings.connect() as client:
        deleted = client.delete(stored_key, request_id=request_id, retry=retry)
    if settings.output == "json":
        write_json({"key": stored_key, "deleted": deleted}, hexadecimal=hexadecimal)
    elif deleted:
        click.echo("deleted")
    else:
        _say_not_found(stored_key, hexadecimal)
    if not deleted:
        sys.exit(ExitCode.NOT_FOUND)


def _check_retry(request_id: str | None, retry: bool) -> None:
    if retry and request_id is None:
        raise click.UsageError("--retry needs the --request-id that was sent before")


def _say_not_found(key: bytes, hexadecimal: bool) -> None:
    shown = key.hex() if hexadecimal else printable(key)
    click.echo(f"kvctl: key not found: {shown}", err=True)
