r"""Transactions as text: etcdctl's three paragraphs, or a JSON object. No I/O here.

In etcdctl's form there are conditions, what is done if they hold, and what is done if they don't,
each on a line of its own, and an empty line after each part::

    mod("stock") = "17"
    value("state") != "closed"

    put stock "41 pieces"
    get --prefix orders/

    get stock

Words are split at blanks. Between double quotes stands what Go has there (``\n``, ``\x00``,
``\u00e9``), between single ones everything as it is. The operand of ``lease`` is hexadecimal.

As JSON the same is::

    {"if": [{"key": "stock", "field": "mod_revision", "is": "==", "than": 17},
            {"key": "state", "field": "value", "is": "!=", "than": "closed"}],
     "then": [{"put": {"key": "stock", "value": "41 pieces"}}, {"get": {"prefix": "orders/"}}],
     "else": [{"get": {"key": "stock"}}]}

and ``"encoding": "hex"`` in it makes keys and values hexadecimal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import click

from kvstore.cli.holding.lease import lease_id
from kvstore.client import Compare, Delete, Get, Put
from kvstore.client.keys import Field, Relation, keys_of
from kvstore.errors import Error

__all__ = ["TxnText", "parse_compare", "parse_json", "parse_operation", "parse_text"]


class TxnText(NamedTuple):
    """What was read."""

    compares: list[Compare]
    then: list[Put | Get | Delete]
    else_: list[Put | Get | Delete]


_FIELDS: Final[dict[str, Field]] = {
    "ver": "version",
    "version": "version",
    "c": "create_revision",
    "create": "create_revision",
    "create_revision": "create_revision",
    "m": "mod_revision",
    "mod": "mod_revision",
    "mod_revision": "mod_revision",
    "val": "value",
    "value": "value",
    "lease": "lease",
}
_RELATIONS: Final[dict[str, Relation]] = {"=": "==", "==": "==", "!=": "!=", "<": "<", ">": ">"}

_QUOTED: Final = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_WORD: Final = re.compile(rf"\s*((?:{_QUOTED}|[^\s\"'])+)\s*")
_PIECE: Final = re.compile(rf"{_QUOTED}|[^\"']+")
_COMPARE: Final = re.compile(
    rf"\s*(\w+)\s*\(\s*({_QUOTED}|[^)\s]+)\s*\)\s*(!=|==?|<|>)\s*({_QUOTED}|\S+)\s*"
)
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_LETTERS: Final = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))


def parse_text(lines: Iterable[str]) -> TxnText:
    """etcdctl's form. Raises UsageError that names the line."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            parts[-1].append(line)
        elif len(parts) < 3:
            parts.append([])
        else:
            break
    parts += [[] for _ in range(3 - len(parts))]
    return TxnText(
        [parse_compare(line) for line in parts[0]],
        [parse_operation(line) for line in parts[1]],
        [parse_operation(line) for line in parts[2]],
    )


def parse_compare(line: str) -> Compare:
    """One condition. Raises UsageError."""
    found = _COMPARE.fullmatch(line)
    if found is None or found[1] not in _FIELDS:
        raise click.UsageError(
            f'{line.strip()!r} is no condition such as mod("key") = "17"; there are ver, create, '
            "mod, val and lease, and =, !=, < and >"
        )
    field, operand = _FIELDS[found[1]], _unquoted(found[4])
    with _named(line):
        keys = keys_of(_unquoted(found[2])).range
        number = field != "value"
        base = 16 if field == "lease" else 10
        return Compare(keys, field, _RELATIONS[found[3]], int(operand, base) if number else operand)


def parse_operation(line: str) -> Put | Get | Delete:
    """One put, get or del, with their options. Raises UsageError."""
    words = _words(line)
    command = _OPERATIONS.get(words[0])
    if command is None:
        raise click.UsageError(f"{line.strip()!r} is no put, get or del")
    with _named(line):
        made: Put | Get | Delete = command.invoke(command.make_context(words[0], words[1:]))
        return made


class _named:
    """Errors in its block are of this line."""

    def __init__(self, line: str) -> None:
        self._line = line.strip()

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        match error:
            case click.UsageError():
                raise click.UsageError(f"{self._line!r}: {error.format_message()}")
            case Error() | ValueError():
                raise click.UsageError(f"{self._line!r}: {error}")


def _words(line: str) -> list[str]:
    """Words as a program gets its arguments."""
    words, at = [], 0
    while at < len(line.rstrip()):
        found = _WORD.match(line, at)
        if found is None:
            raise click.UsageError(f"{line.strip()!r}: a quote without its end")
        words.append(os.fsdecode(b"".join(map(_unquoted, _PIECE.findall(found[1])))))
        at = found.end()
    return words


def _unquoted(word: str) -> bytes:
    if word.startswith("'"):
        return os.fsencode(word[1:-1])
    if not word.startswith('"'):
        return os.fsencode(word)
    out, at = b"", 0
    for escape in _ESCAPE.finditer(word[1:-1]):
        out += os.fsencode(word[1:-1][at : escape.start()]) + _escaped(escape)
        at = escape.end()
    return out + os.fsencode(word[1:-1][at:])


def _escaped(escape: re.Match[str]) -> bytes:
    byte, octal, short, long, letter = escape.groups()
    if byte is not None:
        return bytes([int(byte, 16)])
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if letter is not None:
        if letter not in _LETTERS:
            raise click.UsageError(f"there is no \\{letter} between double quotes")
        return _LETTERS[letter].encode()
    return chr(int(short or long, 16)).encode()


_PREFIX = click.option("--prefix", is_flag=True)
_FROM_KEY = click.option("--from-key", is_flag=True)
_PREV = click.option("--prev", "--prev-kv", is_flag=True)


@click.command("put", add_help_option=False)
@click.argument("key")
@click.argument("value")
@click.option("--lease", type=lease_id)
@_PREV
def _put(key: str, value: str, lease: int | None, prev: bool) -> Put:
    return Put(os.fsencode(key), os.fsencode(value), lease=lease, previous=prev)


@click.command("get", add_help_option=False)
@click.argument("key")
@click.argument("end", required=False)
@_PREFIX
@_FROM_KEY
@click.option("--limit", type=click.IntRange(min=0), default=0)
@click.option("--keys-only", is_flag=True)
@click.option("--count", "--count-only", is_flag=True)
def _get(
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    limit: int,
    keys_only: bool,
    count: bool,
) -> Get:
    keys = _keys(key, end, prefix, from_key)
    return Get(**keys, limit=limit, keys_only=keys_only, count_only=count)


@click.command("del", add_help_option=False)
@click.argument("key")
@click.argument("end", required=False)
@_PREFIX
@_FROM_KEY
@_PREV
def _del(key: str, end: str | None, prefix: bool, from_key: bool, prev: bool) -> Delete:
    return Delete(**_keys(key, end, prefix, from_key), previous=prev)


def _keys(key: str, end: str | None, prefix: bool, from_key: bool) -> dict[str, bytes]:
    first = os.fsencode(key)
    if prefix:
        return {"prefix": first}
    if end is not None:
        return {"start": first, "end": os.fsencode(end)}
    return {"start": first} if from_key else {"key": first}


_OPERATIONS: Final = {"put": _put, "get": _get, "del": _del}


def parse_json(text: str) -> TxnText:
    """The JSON form. Raises UsageError."""
    try:
        given = json.loads(text)
        decode = bytes.fromhex if given.pop("encoding", "utf-8") == "hex" else os.fsencode
        made = TxnText(
            [_json_compare(one, decode) for one in given.pop("if", [])],
            [_json_operation(one, decode) for one in given.pop("then", [])],
            [_json_operation(one, decode) for one in given.pop("else", [])],
        )
    except (ValueError, TypeError, KeyError, AttributeError, Error) as error:
        raise click.UsageError(f"this is no transaction as JSON: {error!r}") from error
    if given:
        raise click.UsageError(f"a transaction has if, then, else and encoding, not {[*given]}")
    return made


def _json_keys(given: dict[str, Any], decode: Callable[[str], bytes]) -> dict[str, bytes]:
    """What there is of key, prefix, start and end, taken out of ``given``."""
    names = ("key", "prefix", "start", "end")
    return {name: decode(given.pop(name)) for name in names if name in given}


def _json_compare(given: dict[str, Any], decode: Callable[[str], bytes]) -> Compare:
    keys = keys_of(**_json_keys(given, decode)).range
    field = _FIELDS[given.pop("field")]
    relation = _RELATIONS[given.pop("is")]
    operand: object = given.pop("than")
    if given:
        raise ValueError(f"a condition has no {[*given]}")
    if field == "value":
        return Compare(keys, field, relation, decode(str(operand)))
    if field == "lease" and isinstance(operand, str):
        return Compare(keys, field, relation, int(operand, 16))
    if not isinstance(operand, int):
        raise ValueError(f"{field} is compared with a number, not {operand!r}")
    return Compare(keys, field, relation, operand)


def _json_operation(
    given: dict[str, dict[str, Any]], decode: Callable[[str], bytes]
) -> Put | Get | Delete:
    ((name, rest),) = given.items()
    # What else is given must be arguments; which there are is said by their own names.
    arguments: dict[str, Any] = _json_keys(rest, decode) | rest
    match name:
        case "put":
            if (lease := arguments.pop("lease", None)) is not None:
                arguments["lease"] = int(lease, 16)
            arguments["value"] = decode(arguments["value"])
            return Put(**arguments)
        case "get":
            return Get(**arguments)
        case "del" | "delete":
            return Delete(**arguments)
        case _:
            raise ValueError(f"an operation is put, get or del, not {name!r}")
