"""``kvctl export`` and ``kvctl import``: keys and values in a file of text."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import printable, read_key
from kvstore.cli.interface.keys import DataCommand, hex_option, revision_option
from kvstore.cli.interface.output import flush_output, tell, write_out
from kvstore.cli.interface.progress import Progress
from kvstore.cli.transfer.dump import FORMATS, DumpError, Pair, dumped, form_of, read_pairs
from kvstore.client import Client
from kvstore.errors import BatchError
from kvstore.server.config.private_files import replacing

__all__ = ["export_command", "import_command", "newest_revision"]

# Keys that are looked up at a time.
LOOKUPS = 1000

# Of what servers take: what is more is told before anything is stored.
KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1 << 20

# What a key is called in the end.
Rename: TypeAlias = Callable[[bytes], bytes]

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Lines of JSON, or CSV. [default: what the file's name says, else jsonl]",
)


@click.command("export", cls=DataCommand, short_help="write keys and values into a file of text")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to; it appears once it is whole. [default: standard output]",
)
@format_option
@revision_option
@hex_option
@connection_options
@click.pass_context
def export_command(
    context: click.Context,
    prefix: str,
    file: Path | None,
    form: str | None,
    rev: int | None,
    hexadecimal: bool,
) -> None:
    """Write all keys that begin with PREFIX, or all there are, with their values, at one revision.

    For other programs, and for 'kvctl import'; 'kvctl snapshot save' is what backups are made with.
    Leases are not in it. A FILE that exists is replaced once all is there, or not at all; nobody
    else may read it. Exits with 3, and writes nothing, if no key begins with the PREFIX given.

    \b
    Examples:
      kvctl export --file all.jsonl
      kvctl export jobs/ --file jobs.csv
      kvctl export jobs/ | jq -r '.key'
      kvctl export --rev 17 > then.jsonl
    """
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    form = form_of(form, file)
    if file is not None and file.is_dir():
        raise click.UsageError(f"{file} is a directory.")
    with settings_of(context).connect() as client:
        number, revision = _export(client, wanted, form, file, rev or 0)
    if wanted and not number:
        # As 'kvctl import' and 'kvctl snapshot save' are told their file.
        click.echo(
            f"kvctl: no key begins with {printable(wanted)}; a file is given by --file", err=True
        )
        sys.exit(ExitCode.NOT_FOUND)
    if file is not None:
        said = f"exported {number} keys at revision {revision}"
        tell(context, {"exported": number, "revision": revision, "file": str(file)}, said)


def _export(
    client: Client, prefix: bytes, form: str, file: Path | None, revision: int
) -> tuple[int, int]:
    # The first page says which revision it is.
    if not revision:
        revision = newest_revision(client)
    total = client.count(prefix=prefix, revision=revision)
    if prefix and not total:
        return 0, revision
    with Progress("exporting", total) as progress:

        def pairs() -> Iterator[Pair]:
            for page in client.range(prefix=prefix, revision=revision).pages():
                for entry in page:
                    yield Pair(entry.key, entry.value)
                progress.advance(len(page))

        pieces = dumped(form, pairs(), revision)
        if file is None:
            for piece in pieces:
                write_out(piece)
            flush_output()
        else:
            with replacing(file) as output:
                for piece in pieces:
                    output.write(piece)
    return total, revision


def newest_revision(client: Client) -> int:
    """Of the whole store, now."""
    return client.transaction().commit().revision


class Counts(NamedTuple):
    """What an import does, or would do."""

    new: int
    changed: int
    same: int


@click.command("import", short_help="store the keys and values of a file of text")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@format_option
@click.option(
    "--prefix-map", metavar="OLD=NEW", help="Keys that begin with OLD begin with NEW in its place."
)
@click.option("--dry-run", is_flag=True, help="Store nothing; say what would become of it.")
@connection_options
@click.pass_context
def import_command(
    context: click.Context, file: Path, form: str | None, prefix_map: str | None, dry_run: bool
) -> None:
    """Store all that FILE has, of 'kvctl export' or of 'kvctl list -o jsonl'. FILE - is standard
    input.

    A file is read and checked as a whole before anything is stored. Each key is a write of its own,
    and other keys stay as they are; running it again does no harm.

    \b
    Examples:
      kvctl import all.jsonl
      kvctl import all.jsonl --dry-run
      kvctl import jobs.csv --prefix-map jobs/=old-jobs/
    """
    is_stream = str(file) == "-"
    form = form_of(form, None if is_stream else file)
    rename = _mapped(prefix_map)
    total = None if is_stream else _checked(file, form, rename)
    with settings_of(context).connect() as client, _opened(file) as (source, name):
        pairs = _pairs(form, source, name, rename)
        if dry_run:
            counts = _compared(client, pairs)
            said = f"{counts.new} keys would be new, {counts.changed} changed, {counts.same} stay"
            tell(context, counts._asdict(), said)
            return
        stored = _store(client, pairs, total)
    tell(context, {"imported": stored}, f"imported {stored} keys")


def _pairs(form: str, source: BinaryIO, name: str, rename: Rename) -> Iterator[Pair]:
    """What is to be stored. Raises DumpError."""
    for number, (key, value) in enumerate(read_pairs(form, source, name), start=1):
        renamed = rename(key)
        if not 0 < len(renamed) <= KEY_BYTES_MAX:
            raise DumpError(
                f"{name}: key {number} would have {len(renamed)} bytes; 1 to {KEY_BYTES_MAX:,} it "
                "may have"
            )
        if len(value) > VALUE_BYTES_MAX:
            raise DumpError(
                f"{name}: the value of key {number} has {len(value):,} bytes; up to "
                f"{VALUE_BYTES_MAX:,} it may have"
            )
        yield Pair(renamed, value)


def _checked(file: Path, form: str, rename: Rename) -> int:
    """How many pairs there are. Raises DumpError."""
    with open(file, "rb") as source, Progress("checking") as progress:
        count = 0
        for _ in _pairs(form, source, str(file), rename):
            count += 1
            progress.advance()
        return count


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, str]]:
    if str(file) == "-":
        yield sys.stdin.buffer, "standard input"
        return
    with open(file, "rb") as source:
        yield source, str(file)


def _mapped(prefix_map: str | None) -> Rename:
    """What a key is called in the end. Raises UsageError."""
    if prefix_map is None:
        return lambda key: key
    old, equals, new = prefix_map.partition("=")
    if not equals:
        raise click.UsageError("--prefix-map is OLD=NEW.")
    before = read_key(old, hexadecimal=False)
    after = read_key(new, hexadecimal=False)
    return lambda key: after + key[len(before) :] if key.startswith(before) else key


def _store(client: Client, pairs: Iterator[Pair], total: int | None) -> int:
    with Progress("importing", total) as progress:

        def told() -> Iterator[Pair]:
            for pair in pairs:
                progress.advance()
                yield pair

        try:
            return client.put_many(told())
        except BatchError as error:
            if not error.failures and error.__cause__ is not None:
                # What is wrong with the file; what came before has been stored.
                stored = f"{error.taken} keys were stored before"
                raise click.ClickException(f"{error.__cause__}; {stored}") from error
            raise


def _compared(client: Client, pairs: Iterator[Pair]) -> Counts:
    new = changed = same = 0
    while chunk := [*islice(pairs, LOOKUPS)]:
        there = dict(client.get_many([key for key, _ in chunk]))
        for key, value in chunk:
            before = there[key]
            new += before is None
            same += before == value
            changed += before is not None and before != value
    return Counts(new, changed, same)
