"""``kvctl txn``: a transaction from a file, standard input or the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words
from kvstore.cli.interface.entries import entry_fields
from kvstore.cli.interface.output import tell_data
from kvstore.cli.interface.txn_text import TxnText, parse_json, parse_text
from kvstore.client import DeleteResult, GetResult, KeyValue, PutResult, TransactionResult
from kvstore.client.transactions import OperationResult


@click.command("txn", short_help="do several things at once, on conditions")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@click.option("--hex", "hexadecimal", is_flag=True, help="Print keys and values as hexadecimal.")
@connection_options
@click.pass_context
def txn_command(context: click.Context, file: IO[str], hexadecimal: bool) -> None:
    """Do all that FILE says, or standard input, at one revision.

    It has conditions, what is done if they hold and what is done if they don't: as a JSON object,
    or in the form of etcdctl, where an empty line follows on each part. On a terminal they are
    asked for.

    \b
    Examples:
      kvctl txn <<END
      mod("stock") = "17"
      value("state") != "closed"

      put stock 41
      get --prefix orders/

      get stock
      END
      kvctl txn txn.json --output=json

    \b
    where txn.json has
      {"if": [{"key": "stock", "field": "mod_revision", "is": "==", "than": 17}],
       "then": [{"put": {"key": "stock", "value": "41"}}, {"get": {"prefix": "orders/"}}],
       "else": [{"get": {"key": "stock"}}]}

    Prints whether the conditions held, and what was read and removed.
    """
    wanted = _read(file)
    with settings_of(context).connect() as client:
        transaction = client.transaction().if_(*wanted.compares)
        result = transaction.then(*wanted.then).else_(*wanted.else_).commit()
    said = "succeeded" if result.succeeded else "failed"
    tell_data(
        context,
        _fields(result),
        f"{said} at revision {result.revision}",
        *(line for one in result.results for line in _lines(one, hexadecimal)),
        hexadecimal=hexadecimal,
    )


def _read(file: IO[str]) -> TxnText:
    if file.isatty():
        return parse_text(_asked(file))
    text = file.read()
    return parse_json(text) if text.lstrip().startswith("{") else parse_text(text.splitlines())


def _asked(file: IO[str]) -> Iterator[str]:
    """Lines of each part, up to an empty one."""
    for part in ("conditions", "done if they hold", "done if they don't"):
        click.echo(f"{part}:", err=True)
        while line := (file.readline().rstrip("\n")):
            yield line
        yield ""


def _fields(result: TransactionResult) -> dict[str, object]:
    return {
        "succeeded": result.succeeded,
        "revision": result.revision,
        "results": [_result_fields(one) for one in result.results],
    }


def _result_fields(result: OperationResult) -> dict[str, object]:
    match result:
        case PutResult():
            previous = None if result.previous is None else entry_fields(result.previous)
            return {"put": {"previous": previous}}
        case GetResult():
            return {"get": {"count": result.count, "keys": [*map(entry_fields, result.entries)]}}
        case DeleteResult():
            previous_keys = [*map(entry_fields, result.previous)]
            return {"del": {"deleted": result.deleted, "previous": previous_keys}}
        case TransactionResult():
            return {"txn": _fields(result)}


def _lines(result: OperationResult, hexadecimal: bool) -> Iterator[str]:
    """What was read, or was there before, between the words that say what was done."""
    entries: tuple[KeyValue, ...] = ()
    match result:
        case PutResult():
            yield "put"
            entries = () if result.previous is None else (result.previous,)
        case GetResult():
            yield f"get {result.count}"
            entries = result.entries
        case DeleteResult():
            yield f"deleted {result.deleted}"
            entries = result.previous
    for entry in entries:
        key = in_words(entry.key, hexadecimal=hexadecimal)
        yield f"{key}\t{in_words(entry.value, hexadecimal=hexadecimal)}"
