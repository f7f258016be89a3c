"""``kvctl db sst`` and ``kvctl db wal``: what single files of a database, or of a member, hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from kvstore._engine.files.native import PosixFileSystem
from kvstore._engine.log.native import salvage_segment
from kvstore._engine.table.native import TableFile
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import output_options
from kvstore.cli.interface.data_bytes import in_words
from kvstore.cli.interface.keys import hex_option
from kvstore.cli.interface.output import Results, is_json
from kvstore.errors import ConfigurationError

__all__ = ["sst_command", "wal_command"]

KINDS = {0: "delete", 1: "put"}

limit_option = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="So many at most."
)


def _number(file: Path, ending: str) -> int:
    """Of a file that is called by it. Raises ConfigurationError."""
    named = re.fullmatch(rf"(\d{{1,18}})\.{ending}", file.name)
    if named is None:
        raise ConfigurationError(f"{file} isn't called as a file of ours: NUMBER.{ending}")
    if not file.is_file():
        raise ConfigurationError(f"there is no file {file}")
    return int(named[1])


@click.command("sst", short_help="say what a table holds")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--keys", is_flag=True, help="Print each entry: key, sequence, kind, bytes.")
@limit_option
@hex_option
@output_options
@click.pass_context
def sst_command(
    context: click.Context, file: Path, keys: bool, limit: int | None, hexadecimal: bool
) -> None:
    """Print what the table FILE says of itself, or, with --keys, its entries. Nothing is written.

    Ends with 5 when it is damaged.
    """
    number = _number(file, "sst")
    with TableFile(PosixFileSystem(), str(file), number) as table:
        if keys:
            _show_entries(context, table, limit, hexadecimal)
        else:
            _show_properties(context, table, hexadecimal)


def _show_properties(context: click.Context, table: TableFile, hexadecimal: bool) -> None:
    properties: dict[str, object] = dict(table.properties)
    file_id = properties["file_id"]
    if isinstance(file_id, bytes):
        properties["file_id"] = file_id.hex()
    with Results(context, ("property", "value"), hexadecimal=hexadecimal) as results:
        if is_json(context):
            results.add_document(properties)
            return
        for name, value in properties.items():
            is_key = isinstance(value, bytes)
            shown = in_words(value, hexadecimal=hexadecimal) if is_key else str(value)  # type: ignore[arg-type]
            results.add({}, (name, shown), shown.encode())


def _show_entries(
    context: click.Context, table: TableFile, limit: int | None, hexadecimal: bool
) -> None:
    columns = ("key", "sequence", "kind", "bytes")
    with Results(context, columns, hexadecimal=hexadecimal) as results:
        for key, sequence, kind, value in islice(_entries(table), limit):
            what = KINDS.get(kind, str(kind))
            fields: dict[str, object] = {
                "key": key,
                "sequence": sequence,
                "kind": what,
                "bytes": len(value),
            }
            name = in_words(key, hexadecimal=hexadecimal)
            results.add(fields, (name, str(sequence), what, str(len(value))), key)


def _entries(table: TableFile) -> Iterator[tuple[bytes, int, int, bytes]]:
    cursor = table.cursor(fill_cache=False)
    entry = cursor.first()
    while entry is not None:
        yield entry
        entry = cursor.next()


@click.command("wal", short_help="say what a segment of a log holds")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@limit_option
@output_options
@click.pass_context
def wal_command(context: click.Context, file: Path, limit: int | None) -> int:
    """Print each record of the segment FILE that checks: its index, kind and bytes.

    Records are found wherever they stand; where something doesn't check is told on standard error,
    and ends it with 5. The end of a segment that was never closed is such a place. Nothing is
    written.
    """
    number = _number(file, "wal")
    segment = salvage_segment(PosixFileSystem(), str(file.parent), number)
    with Results(context, ("index", "kind", "bytes")) as results:
        for kind, index, payload in islice(segment, limit):
            fields: dict[str, object] = {"index": index, "kind": kind, "bytes": len(payload)}
            results.add(fields, (str(index), str(kind), str(len(payload))), payload)
    for line in segment.damage:
        click.echo(f"damaged: {line}", err=True)
    return ExitCode.DAMAGED if segment.damage else ExitCode.OK
