"""Keys and values as lines of text: what ``export`` and ``db dump`` write, and ``import`` reads.

    jsonl   {"kvstore_export": 1, "revision": N}         first, and only of a whole file
            {"key": …, "value": …, "encoding": "utf-8"}  one for each key; or "hex"
            {"kvstore_export_end": COUNT}                last, where there was a first
    csv     key,value,encoding                           the columns' names, then a row for each key

Lines of ``list -o jsonl`` are read as well. A file with a first line and no last one was cut short,
and is refused; so is one without any line, which an export that failed leaves of standard output.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import click

__all__ = ["FORMATS", "DumpError", "Pair", "dumped", "form_of", "read_pairs"]

FORMATS: Final = ("jsonl", "csv")

# Of a value of 1 MiB each byte may take six characters.
LINE_BYTES_MAX = 16 << 20

VERSION = 1
_BEGIN = "kvstore_export"
_END = "kvstore_export_end"
_COLUMNS = ["key", "value", "encoding"]


class Pair(NamedTuple):
    """A key and its value."""

    key: bytes
    value: bytes


class DumpError(click.ClickException):
    """A file that isn't what it should be; says where."""


def dumped(form: str, pairs: Iterable[Pair], revision: int) -> Iterator[bytes]:
    """A whole file, piece by piece."""
    if form == "csv":
        yield _row(_COLUMNS)
    else:
        yield json.dumps({_BEGIN: VERSION, "revision": revision}).encode() + b"\n"
    count = 0
    for pair in pairs:
        yield _dumped(form, pair)
        count += 1
    if form == "jsonl":
        yield json.dumps({_END: count}).encode() + b"\n"


def _dumped(form: str, pair: Pair) -> bytes:
    """A line, or a row that may have line ends in it."""
    key, value, encoding = _encoded(pair)
    if form == "jsonl":
        fields = {"key": key, "value": value, "encoding": encoding}
        return json.dumps(fields).encode() + b"\n"
    return _row([key, value, encoding])


def _row(cells: list[str]) -> bytes:
    row = io.StringIO()
    csv.writer(row).writerow(cells)
    return row.getvalue().encode()


def _encoded(pair: Pair) -> tuple[str, str, str]:
    try:
        key, value = pair.key.decode(), pair.value.decode()
    except UnicodeDecodeError:
        return pair.key.hex(), pair.value.hex(), "hex"
    # What stands alone for an end of line would come back as another one from a CSV.
    if "\0" in key or "\0" in value or "\r" in key or "\r" in value:
        return pair.key.hex(), pair.value.hex(), "hex"
    return key, value, "utf-8"


def form_of(form: str | None, path: Path | None) -> str:
    """The format that was said, or that a file's name says."""
    if form is not None:
        return form
    return "csv" if path is not None and path.suffix == ".csv" else "jsonl"


def read_pairs(form: str, file: BinaryIO, name: str) -> Iterator[Pair]:
    """The pairs of a file. Raises DumpError at what isn't right, also where the end is missing."""
    return _read_csv(file, name) if form == "csv" else _read_jsonl(file, name)


def _read_jsonl(file: BinaryIO, name: str) -> Iterator[Pair]:
    count = number = 0
    begun = ended = False
    for number, line in enumerate(_lines(file, name), start=1):
        where = f"{name}, line {number}"
        if ended:
            raise DumpError(f"{where}: there is more after the end")
        fields = _fields(line, where)
        if _BEGIN in fields:
            if number > 1 or fields[_BEGIN] != VERSION:
                raise DumpError(f"{where}: an export of version {fields[_BEGIN]!r} begins here")
            begun = True
        elif _END in fields:
            if fields[_END] != count:
                raise DumpError(f"{where}: {count} keys came, of {fields[_END]!r}")
            ended = True
        else:
            yield _pair(fields, where)
            count += 1
    if not number:
        raise DumpError(f"{name} is empty: even an export of no key has a first line")
    if begun and not ended:
        raise DumpError(f"{name} was cut short after {count} keys")


def _lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        if len(line) == LINE_BYTES_MAX:
            raise DumpError(f"{name} has a line of more than {LINE_BYTES_MAX >> 20} MiB")
        if line.strip():
            yield line


def _fields(line: bytes, where: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DumpError(f"{where}: this is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DumpError(f"{where}: this is no JSON object")
    return fields


def _read_csv(file: BinaryIO, name: str) -> Iterator[Pair]:
    csv.field_size_limit(LINE_BYTES_MAX)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    try:
        rows = csv.reader(text)
        if next(rows, None) != _COLUMNS:
            raise DumpError(f"{name}: the first row names the columns {','.join(_COLUMNS)}")
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if len(row) != len(_COLUMNS):
                raise DumpError(f"{where}: a row has {len(_COLUMNS)} columns, and not {len(row)}")
            yield _pair(dict(zip(_COLUMNS, row, strict=True)), where)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DumpError(f"{name}: this is no CSV in UTF-8: {error}") from error
    finally:
        text.detach()


def _pair(fields: dict[str, object], where: str) -> Pair:
    encoding = fields.get("encoding", "utf-8")
    if encoding not in ("utf-8", "hex"):
        raise DumpError(f"{where}: the encoding is utf-8 or hex, and not {encoding!r}")
    key = _bytes_of(fields, "key", encoding, where)
    if not key:
        raise DumpError(f"{where}: a key has at least one byte")
    return Pair(key, _bytes_of(fields, "value", encoding, where))


def _bytes_of(fields: dict[str, object], name: str, encoding: object, where: str) -> bytes:
    text = fields.get(name)
    if not isinstance(text, str):
        raise DumpError(f"{where}: there is no {name}")
    try:
        return bytes.fromhex(text) if encoding == "hex" else text.encode()
    except (ValueError, UnicodeEncodeError) as error:
        raise DumpError(f"{where}: the {name} is not {encoding}: {error}") from error
