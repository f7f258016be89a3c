"""``kvctl snapshot list``, ``get`` and ``diff``: what backup files hold, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.files.backup_keys import opened_backup
from kvstore.cli.interface.connection import output_options
from kvstore.cli.interface.data_bytes import in_words, read_key
from kvstore.cli.interface.found import write_found
from kvstore.cli.interface.keys import DataCommand, hex_option
from kvstore.cli.interface.output import (
    Results,
)
from kvstore.cli.transfer.dump import Pair

__all__ = ["diff_command", "get_command", "list_command"]

_file = click.Path(path_type=Path)


@click.command("list", cls=DataCommand, short_help="list the keys in a file")
@click.argument("file", type=_file, metavar="FILE")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option("--keys", "keys_only", is_flag=True, help="Print keys without their values.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="So many at most.")
@click.option("--reverse", is_flag=True, help="The last key first.")
@hex_option
@output_options
@click.pass_context
def list_command(
    context: click.Context,
    file: Path,
    prefix: str,
    keys_only: bool,
    limit: int | None,
    reverse: bool,
    hexadecimal: bool,
) -> None:
    """List keys of the snapshot FILE that begin with PREFIX, or all, with their values.

    FILE is unpacked into the system's temporary directory meanwhile (TMPDIR), and every byte of it
    checked. No server is asked.
    """
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    columns = ("key",) if keys_only else ("key", "value")
    with (
        opened_backup(file) as backup,
        Results(context, columns, hexadecimal=hexadecimal) as results,
    ):
        for pair in islice(backup.pairs(wanted, reverse=reverse), limit):
            key = in_words(pair.key, hexadecimal=hexadecimal)
            if keys_only:
                results.add({"key": pair.key}, (key,), pair.key)
            else:
                value = in_words(pair.value, hexadecimal=hexadecimal)
                results.add({"key": pair.key, "value": pair.value}, (key, value), pair.value)


@click.command("get", cls=DataCommand, short_help="print a value in a file")
@click.argument("file", type=_file, metavar="FILE")
@click.argument("key")
@hex_option
@output_options
@click.pass_context
def get_command(context: click.Context, file: Path, key: str, hexadecimal: bool) -> None:
    """Print the value that KEY has in the snapshot FILE, as 'kvctl get' does. Exits with 3 if it
    has none."""
    wanted = read_key(key, hexadecimal=hexadecimal)
    with opened_backup(file) as backup:
        value = backup.get(wanted)
    write_found(context, wanted, value, hexadecimal)


@click.command("diff", short_help="say which keys differ between two files")
@click.argument("before", type=_file, metavar="FILE")
@click.argument("after", type=_file, metavar="FILE")
@click.option("--prefix", default="", metavar="TEXT", help="Only of keys that begin so.")
@hex_option
@output_options
@click.pass_context
def diff_command(
    context: click.Context, before: Path, after: Path, prefix: str, hexadecimal: bool
) -> int:
    """Print each key that the second FILE has in addition (+), not any more (-), or with another
    value (~). Ends with 1 if there is any, as diff does.

    \b
    Examples:
      kvctl snapshot diff monday.kvs tuesday.kvs
      kvctl snapshot diff monday.kvs tuesday.kvs --prefix config/ -o jsonl
    """
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    with (
        opened_backup(before) as old,
        opened_backup(after) as new,
        Results(context, ("", "key"), hexadecimal=hexadecimal) as results,
    ):
        for key, was, now in differences(old.pairs(wanted), new.pairs(wanted)):
            sign = "+" if was is None else "-" if now is None else "~"
            fields: dict[str, object] = {"key": key, "before": was, "after": now}
            results.add(fields, (sign, in_words(key, hexadecimal=hexadecimal)), key)
    return ExitCode.FAILURE if results.count else ExitCode.OK


def differences(
    old: Iterator[Pair], new: Iterator[Pair]
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Of two sides in order: each key that isn't the same, with its values; None: it has none."""
    was, now = next(old, None), next(new, None)
    while was is not None or now is not None:
        if now is None or (was is not None and was.key < now.key):
            assert was is not None
            yield was.key, was.value, None
            was = next(old, None)
        elif was is None or now.key < was.key:
            yield now.key, None, now.value
            now = next(new, None)
        else:
            if was.value != now.value:
                yield was.key, was.value, now.value
            was, now = next(old, None), next(new, None)
