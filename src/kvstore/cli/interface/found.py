"""How a single value that was asked for is printed, or that there is none."""

from __future__ import annotations

import sys

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import settings_of
from kvstore.cli.interface.data_bytes import in_words, printable
from kvstore.cli.interface.output import flush_output, is_json, tell_data, write_line, write_out

__all__ = ["say_not_found", "write_found"]


def write_found(
    context: click.Context,
    key: bytes,
    value: bytes | None,
    hexadecimal: bool,
    fields: dict[str, object] | None = None,
) -> None:
    """Exactly its bytes into a pipe or file, made harmless on a terminal; with JSON also
    ``fields``. Exits with 3 where there is no value."""
    if is_json(context):
        found: dict[str, object] = {"key": key, "found": value is not None, "value": value}
        tell_data(context, found | (fields or {}), hexadecimal=hexadecimal)
    elif value is None:
        say_not_found(key, hexadecimal)
    else:
        _write(context, value, hexadecimal)
    if value is None:
        sys.exit(ExitCode.NOT_FOUND)


def _write(context: click.Context, value: bytes, hexadecimal: bool) -> None:
    raw = settings_of(context).output == "raw"
    if hexadecimal and not raw:
        write_line(value.hex())
    elif sys.stdout is not None and sys.stdout.isatty() and not raw:
        write_line(printable(value))
    else:
        write_out(value)
        flush_output()


def say_not_found(key: bytes, hexadecimal: bool) -> None:
    """On standard error."""
    click.echo(f"kvctl: key not found: {in_words(key, hexadecimal=hexadecimal)}", err=True)
