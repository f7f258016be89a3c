"""``kvctl sizes``: what takes the room."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words, read_key
from kvstore.cli.interface.keys import DataCommand, hex_option, revision_option
from kvstore.cli.interface.output import Results
from kvstore.cli.interface.tables import size
from kvstore.client import KeyValue

__all__ = ["sizes_command"]

# Prefixes that are told apart; what comes after so many is counted as one.
PREFIXES_MAX = 100_000


class Sizes:
    """Of the keys that begin with one prefix."""

    __slots__ = ("key_bytes", "keys", "largest", "largest_bytes", "value_bytes")

    def __init__(self) -> None:
        self.keys = 0
        self.key_bytes = 0
        self.value_bytes = 0
        self.largest = b""
        self.largest_bytes = -1

    def add(self, entry: KeyValue) -> None:
        self.keys += 1
        self.key_bytes += len(entry.key)
        self.value_bytes += len(entry.value)
        if len(entry.value) > self.largest_bytes:
            self.largest, self.largest_bytes = entry.key, len(entry.value)

    @property
    def total(self) -> int:
        return self.key_bytes + self.value_bytes


def measured(
    entries: Iterable[KeyValue], begin: int, depth: int, mark: bytes
) -> dict[bytes | None, Sizes]:
    """The sizes of each prefix of ``depth`` parts behind the first ``begin`` bytes.

    None stands for all that came once there were too many.
    """
    found: dict[bytes | None, Sizes] = {}
    for entry in entries:
        name: bytes | None = _prefix_of(entry.key, begin, depth, mark)
        if name not in found and len(found) >= PREFIXES_MAX:
            name = None
        found.setdefault(name, Sizes()).add(entry)
    return found


def _prefix_of(key: bytes, begin: int, depth: int, mark: bytes) -> bytes:
    end = begin
    for _ in range(depth):
        place = key.find(mark, end)
        if place < 0:
            return key[:end]
        end = place + len(mark)
    return key[:end]


@click.command("sizes", cls=DataCommand, short_help="show what takes the room, by prefix")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--depth",
    type=click.IntRange(0, 32),
    default=1,
    metavar="N",
    show_default=True,
    help="So many parts of a key behind PREFIX are told apart.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    metavar="N",
    show_default=True,
    help="Print so many, the largest first.",
)
@click.option(
    "--delimiter", metavar="TEXT", default="/", show_default=True, help="What is between parts."
)
@revision_option
@hex_option
@connection_options
@click.pass_context
def sizes_command(
    context: click.Context,
    prefix: str,
    depth: int,
    top: int,
    delimiter: str,
    rev: int | None,
    hexadecimal: bool,
) -> None:
    """Read all keys that begin with PREFIX, and print how many bytes each part of them takes.

    Sizes are those of keys and values, not of what they take on disk. It reads everything, page by
    page, at one revision.

    \b
    Examples:
      kvctl sizes
      kvctl sizes jobs/ --depth 2 --top 5
      kvctl sizes -o json
    """
    start = read_key(prefix, hexadecimal=hexadecimal)
    mark = read_key(delimiter, hexadecimal=hexadecimal)
    if not mark:
        raise click.UsageError("--delimiter is some text.")
    with settings_of(context).connect() as client:
        entries = client.range(prefix=start, revision=rev or 0)
        found = measured(entries, len(start), depth, mark)
    columns = ("prefix", "keys", "bytes", "largest value", "of key")
    with Results(context, columns, hexadecimal=hexadecimal) as results:
        for name, sizes in heapq.nlargest(top, found.items(), key=lambda pair: pair[1].total):
            _add(results, name, sizes, hexadecimal)


def _add(results: Results, name: bytes | None, sizes: Sizes, hexadecimal: bool) -> None:
    fields: dict[str, object] = {
        "prefix": name,
        "keys": sizes.keys,
        "key_bytes": sizes.key_bytes,
        "value_bytes": sizes.value_bytes,
        "largest": sizes.largest,
        "largest_bytes": sizes.largest_bytes,
    }
    shown = "(others)" if name is None else in_words(name, hexadecimal=hexadecimal)
    cells = (
        shown,
        str(sizes.keys),
        size(sizes.total),
        size(sizes.largest_bytes),
        in_words(sizes.largest, hexadecimal=hexadecimal),
    )
    results.add(fields, cells, shown.encode())
