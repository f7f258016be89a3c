"""``kvctl list`` and ``kvctl count``: which keys there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words, read_key
from kvstore.cli.interface.entries import add_entry, entry_results
from kvstore.cli.interface.keys import DataCommand, complete_keys, hex_option, revision_option
from kvstore.cli.interface.output import Results, tell_data
from kvstore.client import Client, KeyValue
from kvstore.client.keys import with_prefix

__all__ = ["count_command", "list_command", "prefix_end"]

# Keys that are asked for at a time where those of a folder are passed over.
FOLDER_PAGE = 64

prefix_argument = click.argument(
    "prefix", default="", metavar="[PREFIX]", shell_complete=complete_keys
)


def prefix_end(prefix: bytes) -> bytes | None:
    """What comes after all that begins with ``prefix``; None: nothing does."""
    end = with_prefix(prefix).end
    return None if end == b"\0" else end


class Page(NamedTuple):
    """What is to be listed."""

    prefix: bytes
    after: bytes | None
    reverse: bool
    limit: int | None
    revision: int
    keys_only: bool

    def bounds(self) -> tuple[bytes, bytes | None]:
        """From where on, and to before what."""
        start, end = self.prefix, prefix_end(self.prefix)
        if self.after is None:
            return start, end
        if self.reverse:
            return start, self.after if end is None else min(end, self.after)
        return max(start, self.after + b"\0"), end


@click.command("list", cls=DataCommand, short_help="list keys and their values, page by page")
@prefix_argument
@click.option("--keys", "keys_only", is_flag=True, help="Print keys without their values.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="So many at most.")
@click.option("--after", metavar="KEY", help="Only what comes after KEY: the last of a page.")
@click.option("--reverse", is_flag=True, help="The last key first; --after is before it, then.")
@click.option("--count", is_flag=True, help="Print how many keys there are.")
@click.option(
    "--delimiter",
    metavar="TEXT",
    help="Print each folder once: what follows on PREFIX up to TEXT, with the number of its keys.",
)
@revision_option
@hex_option
@connection_options
@click.pass_context
def list_command(
    context: click.Context,
    prefix: str,
    keys_only: bool,
    limit: int | None,
    after: str | None,
    reverse: bool,
    count: bool,
    delimiter: str | None,
    rev: int | None,
    hexadecimal: bool,
) -> None:
    """List keys that begin with PREFIX, or all, with their values: a line each.

    All show one revision, however long it takes. With --limit a line on standard error says how to
    go on, at the same revision.

    \b
    Examples:
      kvctl list jobs/
      kvctl list --keys jobs/
      kvctl list jobs/ --limit 100
      kvctl list jobs/ --limit 100 --after jobs/0100 --rev 4711
      kvctl list --delimiter /         the folders at the top
      kvctl list jobs/ -o jsonl        an object a line, with revisions
    """
    page = Page(
        prefix=read_key(prefix, hexadecimal=hexadecimal),
        after=None if after is None else read_key(after, hexadecimal=hexadecimal),
        reverse=reverse,
        limit=limit,
        revision=rev or 0,
        keys_only=keys_only or delimiter is not None,
    )
    start, end = page.bounds()
    if delimiter is not None and (reverse or not delimiter):
        raise click.UsageError("--delimiter is some text, and goes without --reverse.")
    if count and (delimiter is not None or limit is not None):
        raise click.UsageError("--count goes without --delimiter and --limit.")
    with settings_of(context).connect() as client:
        if end is not None and end <= start:
            _say_count(context, 0) if count else _list_nothing(context, page, hexadecimal)
        elif count:
            _say_count(context, client.count(start, end, revision=page.revision))
        elif delimiter is None:
            _list(context, client, page, hexadecimal)
        else:
            mark = read_key(delimiter, hexadecimal=hexadecimal)
            _list_folders(context, client, page, mark, hexadecimal)


def _list_nothing(context: click.Context, page: Page, hexadecimal: bool) -> None:
    with entry_results(context, keys_only=page.keys_only, hexadecimal=hexadecimal):
        pass


def _list(context: click.Context, client: Client, page: Page, hexadecimal: bool) -> None:
    start, end = page.bounds()
    limit = None if page.limit is None else page.limit + 1  # one more says that there is more
    found = client.range(
        start,
        end,
        limit=limit,
        revision=page.revision,
        keys_only=page.keys_only,
        reverse=page.reverse,
    )
    last: KeyValue | None = None
    more = False
    with entry_results(context, keys_only=page.keys_only, hexadecimal=hexadecimal) as results:
        for entry in found:
            if results.count == page.limit:
                more = True
                break
            add_entry(results, entry, keys_only=page.keys_only, hexadecimal=hexadecimal)
            last = entry
    if more and last is not None:
        _say_more(last.key, found.revision, hexadecimal)


def _say_more(key: bytes, revision: int, hexadecimal: bool) -> None:
    after = in_words(key, hexadecimal=hexadecimal)
    click.echo(f"there is more: --after {after} --rev {revision}", err=True)


class Folder(NamedTuple):
    """What begins the same, up to a delimiter; or a single key, where ``keys`` is 0."""

    name: bytes
    keys: int


def _list_folders(
    context: click.Context, client: Client, page: Page, mark: bytes, hexadecimal: bool
) -> None:
    results = Results(context, ("name", "keys"), hexadecimal=hexadecimal)
    last = b""
    with results:
        for folder in folders(client, page, mark):
            if results.count == page.limit:
                click.echo(
                    f"there is more: --after {in_words(last, hexadecimal=hexadecimal)}", err=True
                )
                break
            name = in_words(folder.name, hexadecimal=hexadecimal)
            fields: dict[str, object] = {"name": folder.name, "keys": folder.keys or None}
            cells = (name, str(folder.keys)) if folder.keys else (name, "")
            results.add(fields, cells, folder.name)
            # What comes after a folder is what comes after its last possible key.
            last = folder.name if not folder.keys else folder.name + b"\xff"


def folders(client: Client, page: Page, mark: bytes) -> Iterator[Folder]:
    """The folders right below the prefix, and the keys that are in none, in order."""
    start, end = page.bounds()
    revision = page.revision
    begin = len(page.prefix)
    while end is None or start < end:
        found = client.range(start, end, limit=FOLDER_PAGE, revision=revision, keys_only=True)
        entries = found.list()
        revision = found.revision
        stop: bytes | None = start
        for entry in entries:
            if stop is not None and entry.key < stop:
                continue  # of a folder that was told of
            place = entry.key.find(mark, begin)
            if place < 0:
                yield Folder(entry.key, 0)
                stop = entry.key + b"\0"
                continue
            name = entry.key[: place + len(mark)]
            yield Folder(name, client.count(prefix=name, revision=revision))
            stop = prefix_end(name)
            if stop is None:
                return
        if len(entries) < FOLDER_PAGE or stop is None:
            return
        start = stop


@click.command("count", cls=DataCommand, short_help="count keys")
@prefix_argument
@revision_option
@hex_option
@connection_options
@click.pass_context
def count_command(context: click.Context, prefix: str, rev: int | None, hexadecimal: bool) -> None:
    """Print how many keys begin with PREFIX, or how many there are.

    \b
    Examples:
      kvctl count
      kvctl count jobs/
      kvctl count jobs/ --rev 17       as it was then
    """
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    with settings_of(context).connect() as client:
        _say_count(context, client.count(prefix=wanted, revision=rev or 0))


def _say_count(context: click.Context, number: int) -> None:
    tell_data(context, {"count": number}, str(number), hexadecimal=False)
