"""``kvctl db``: a library's database, without a server and without a program."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from kvstore.cli.cluster.repair import repair_database
from kvstore.cli.database.directory import opened, path_option, read
from kvstore.cli.database.tables import sst_command, wal_command
from kvstore.cli.files.verify import verify_path
from kvstore.cli.interface.connection import output_options
from kvstore.cli.interface.data_bytes import in_words, read_key
from kvstore.cli.interface.found import write_found
from kvstore.cli.interface.keys import DataCommand, hex_option
from kvstore.cli.interface.output import (
    Results,
    is_json,
    tell,
    write_out,
)
from kvstore.cli.interface.progress import Progress
from kvstore.cli.interface.tables import size
from kvstore.cli.transfer.dump import FORMATS, Pair, dumped, form_of, read_pairs
from kvstore.engine import DB
from kvstore.server.config.private_files import replacing

__all__ = ["db_group"]

# A batch of a load.
BATCH_BYTES = 1 << 20

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Lines of JSON, or CSV. [default: what the file's name says, else jsonl]",
)


@click.group("db", short_help="look into a library's database, offline")
def db_group() -> None:
    """A database of the library (kvstore.open), while no program has it open.

    stat, list, get, dump, verify, sst and wal write no byte. What is kvd's is refused.

    \b
    Examples:
      kvctl db stat --path ./my-db
      kvctl db list user/ --path ./my-db
      kvctl db dump --path ./my-db --file all.jsonl
      kvctl db load all.jsonl --path ./other-db
      kvctl db sst ./my-db/000012.sst
    """


@db_group.command("stat", short_help="say what there is, and what it takes")
@path_option
@output_options
@click.pass_context
def stat_command(context: click.Context, directory: Path) -> None:
    """Say how many keys there are, their newest sequence, and what tables and log take on disk."""
    with read(directory) as db:
        tables = db.live_tables()
        fields: dict[str, object] = {
            "path": str(directory),
            "keys": db.count(fill_cache=False),
            "last_sequence": db.last_sequence,
            "retained_sequence": db.retained_sequence,
            "tables": len(tables),
            "table_bytes": sum(count for _, count in tables),
            "log_bytes": _bytes_below(directory / "wal"),
        }
    with Results(context, ("what", "amount")) as results:
        if is_json(context):
            results.add_document(fields)
            return
        for name, value in fields.items():
            shown = size(value) if name.endswith("_bytes") and isinstance(value, int) else value
            cells = (name.replace("_", " "), "-" if shown is None else str(shown))
            results.add({}, cells, str(value).encode())


def _bytes_below(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir()) if directory.is_dir() else 0


@db_group.command("list", cls=DataCommand, short_help="list keys and their values")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option("--keys", "keys_only", is_flag=True, help="Print keys without their values.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="So many at most.")
@click.option("--reverse", is_flag=True, help="The last key first.")
@hex_option
@path_option
@output_options
@click.pass_context
def list_command(
    context: click.Context,
    prefix: str,
    keys_only: bool,
    limit: int | None,
    reverse: bool,
    hexadecimal: bool,
    directory: Path,
) -> None:
    """List keys that begin with PREFIX, or all, with their values: a line each."""
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    columns = ("key",) if keys_only else ("key", "value")
    with read(directory) as db, Results(context, columns, hexadecimal=hexadecimal) as results:
        for pair in islice(_pairs(db, wanted, reverse=reverse), limit):
            key = in_words(pair.key, hexadecimal=hexadecimal)
            if keys_only:
                results.add({"key": pair.key}, (key,), pair.key)
            else:
                value = in_words(pair.value, hexadecimal=hexadecimal)
                results.add({"key": pair.key, "value": pair.value}, (key, value), pair.value)


def _pairs(db: DB, prefix: bytes, *, reverse: bool = False) -> Iterator[Pair]:
    for key, value in db.iterator(prefix=prefix, reverse=reverse, fill_cache=False):
        yield Pair(key, value)


@db_group.command("get", cls=DataCommand, short_help="print a value")
@click.argument("key")
@hex_option
@path_option
@output_options
@click.pass_context
def get_command(context: click.Context, key: str, hexadecimal: bool, directory: Path) -> None:
    """Print the value of KEY as 'kvctl get' does. Exits with 3 if it has none."""
    wanted = read_key(key, hexadecimal=hexadecimal)
    with read(directory) as db:
        value = db.get(wanted)
    write_found(context, wanted, value, hexadecimal)


@db_group.command("dump", cls=DataCommand, short_help="write keys and values into a file of text")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to; it appears once it is whole. [default: standard output]",
)
@format_option
@hex_option
@path_option
@output_options
@click.pass_context
def dump_command(
    context: click.Context,
    prefix: str,
    file: Path | None,
    form: str | None,
    hexadecimal: bool,
    directory: Path,
) -> None:
    """Write all keys that begin with PREFIX, or all there are, as 'kvctl export' does.

    'kvctl db load' reads it, and 'kvctl import' stores it in a server.
    """
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    form = form_of(form, file)
    with read(directory) as db:
        total = db.count(prefix=wanted, fill_cache=False)
        with Progress("dumping", total) as progress:
            pairs = _advancing(_pairs(db, wanted), progress)
            pieces = dumped(form, pairs, db.last_sequence)
            if file is None:
                for piece in pieces:
                    write_out(piece)
                return
            with replacing(file) as output:
                for piece in pieces:
                    output.write(piece)
    tell(context, {"dumped": total, "file": str(file)}, f"dumped {total} keys")


def _advancing(pairs: Iterator[Pair], progress: Progress) -> Iterator[Pair]:
    for pair in pairs:
        yield pair
        progress.advance()


@db_group.command("load", short_help="store the keys and values of a file of text")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@format_option
@path_option
@output_options
@click.pass_context
def load_command(context: click.Context, file: Path, form: str | None, directory: Path) -> None:
    """Store all that FILE has, of 'kvctl db dump' or 'kvctl export'; the database is made if there
    is none.

    FILE is read and checked as a whole before anything is stored. What is loaded is durable when
    this ends.
    """
    form = form_of(form, file)
    with open(file, "rb") as source:
        total = sum(1 for _ in read_pairs(form, source, str(file)))
        source.seek(0)
        with opened(directory, create=True) as db, Progress("loading", total) as progress:
            _load(db, _advancing(read_pairs(form, source, str(file)), progress))
    tell(context, {"loaded": total}, f"loaded {total} keys")


def _load(db: DB, pairs: Iterator[Pair]) -> None:
    batch = db.write_batch()
    for key, value in pairs:
        batch.put(key, value)
        if batch.approximate_size() >= BATCH_BYTES:
            batch.write()
            batch.clear()
    batch.write()
    db.sync()


@db_group.command("verify", short_help="check every byte")
@click.option("--all", "show_all", is_flag=True, help="Name every file, not just damaged ones.")
@path_option
@output_options
@click.pass_context
def verify_command(context: click.Context, show_all: bool, directory: Path) -> None:
    """Read and check all of it, as 'kvctl verify' does. Ends with 5 when anything is damaged."""
    verify_path(context, directory, show_all=show_all)


@db_group.command("compact", short_help="merge all tables, and give room back")
@path_option
@output_options
@click.pass_context
def compact_command(context: click.Context, directory: Path) -> None:
    """Merge all tables into the last level: what was deleted or replaced gives its room back."""
    with opened(directory) as db:
        before = sum(count for _, count in db.live_tables())
        db.compact_range()
        after = sum(count for _, count in db.live_tables())
    fields = {"table_bytes_before": before, "table_bytes": after}
    tell(context, fields, f"tables took {size(before)}, and take {size(after)}")


@db_group.command("repair", short_help="make a damaged one openable again")
@path_option
@output_options
@click.pass_context
def repair_command(context: click.Context, directory: Path) -> int:
    """Make it openable again with all in it that is provably whole, as 'kvctl repair' does.

    What is gone is gone: try a backup first. Ends with 5 when something is lost.
    """
    return repair_database(context, directory)


db_group.add_command(sst_command)
db_group.add_command(wal_command)
