"""What kvctl prints: the one place that knows of ``--output``, and that writes.

``text``: for people, and for pipes where there is one value. ``json``: one document, also of many
results. ``jsonl``: a document a line, as results come. ``table``: columns with a heading. ``raw``:
the bytes themselves, unescaped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import click

from kvstore.cli.interface.connection import settings_of
from kvstore.cli.interface.data_bytes import all_utf8, in_line, plain_fields
from kvstore.cli.interface.tables import table

__all__ = [
    "OutputError",
    "Results",
    "document",
    "flush_output",
    "is_json",
    "tell",
    "tell_data",
    "write_line",
    "write_out",
]

# So many rows say how wide the columns of a table are; what comes after is printed as it comes.
TABLE_ROWS = 1000


class OutputError(Exception):
    """Standard output takes no more. ``closed``: whoever read it has gone."""

    def __init__(self, reason: str, *, closed: bool) -> None:
        super().__init__(reason)
        self.closed = closed


def write_out(data: bytes) -> None:
    """Write to standard output. Raises OutputError."""
    if sys.stdout is None:
        raise OutputError("standard output is closed", closed=False)
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    except OSError as error:
        raise _refused(error) from error


def flush_output() -> None:
    """Have all that was written go its way. Raises OutputError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.flush()
    except OSError as error:
        raise _refused(error) from error


def _refused(error: OSError) -> OutputError:
    reason = f"can't write to standard output: {error.strerror}"
    return OutputError(reason, closed=isinstance(error, BrokenPipeError))


def write_line(line: str) -> None:
    """Write a line, and have it seen. Raises OutputError."""
    write_out(line.encode("utf-8", "surrogateescape") + b"\n")
    flush_output()


def is_json(context: click.Context) -> bool:
    """Whether documents are asked for: of a single result, ``json`` and ``jsonl`` are the same."""
    return settings_of(context).output in ("json", "jsonl")


def tell(context: click.Context, fields: object, *lines: str) -> None:
    """Print a result: ``fields`` where documents are asked for, else ``lines``, made harmless."""
    if is_json(context):
        write_line(json.dumps(fields))
        return
    for line in lines:
        write_line(in_line(line, keep="\t"))


def document(fields: dict[str, object], *, hexadecimal: bool) -> str:
    """A JSON object; its bytes as text where all of them are UTF-8, else as hexadecimal.

    ``encoding`` in the object says which of the two it is. Fields may have lists and objects.
    """
    encoding = "hex" if hexadecimal or not all_utf8(fields) else "utf-8"
    return json.dumps({**plain_fields(fields, encoding), "encoding": encoding})


def tell_data(
    context: click.Context, fields: dict[str, object], *lines: str, hexadecimal: bool
) -> None:
    """Print a result that has bytes, as :func:`document` says; else ``lines``."""
    if is_json(context):
        write_line(document(fields, hexadecimal=hexadecimal))
        return
    for line in lines:
        write_line(in_line(line, keep="\t"))


class Results:
    """Many results, printed as they come; with ``json`` as one list.

    ``columns`` are those of a table. Use as a context manager: the list ends with the block. With
    ``live`` each is seen at once, and ``json`` is the same as ``jsonl``: such a list has no end.
    """

    def __init__(
        self,
        context: click.Context,
        columns: Sequence[str],
        *,
        hexadecimal: bool = False,
        live: bool = False,
    ) -> None:
        self._output = settings_of(context).output
        if live and self._output == "json":
            self._output = "jsonl"
        self._columns: Final = columns
        self._hexadecimal = hexadecimal
        self._live = live or (sys.stdout is not None and sys.stdout.isatty())
        self._rows: list[Sequence[str]] = []
        self._widths: list[int] | None = None
        self.count = 0

    def add_document(self, fields: dict[str, object]) -> None:
        """The only result, where documents are asked for: no list."""
        if self._output == "json":
            self._output = "jsonl"
        self.add(fields, (), b"")

    def add(self, fields: dict[str, object], cells: Sequence[str], raw: bytes) -> None:
        """A result: for documents, for lines and tables, and by itself."""
        match self._output:
            case "json":
                begin = ",\n " if self.count else "["
                write_out((begin + document(fields, hexadecimal=self._hexadecimal)).encode())
            case "jsonl":
                write_out((document(fields, hexadecimal=self._hexadecimal) + "\n").encode())
            case "table":
                self._tabulate(cells)
            case "raw":
                write_out(raw + b"\n")
            case _:
                write_out("\t".join(map(in_line, cells)).encode() + b"\n")
        self.count += 1
        if self._live:
            flush_output()

    def _tabulate(self, cells: Sequence[str]) -> None:
        if self._widths is None:
            self._rows.append([in_line(cell) for cell in cells])
            if self._live or len(self._rows) >= TABLE_ROWS:
                self._begin_table()
            return
        # Wider ones push the rest of their line.
        padded = zip(map(in_line, cells), self._widths, strict=True)
        line = "  ".join(cell.ljust(width) for cell, width in padded)
        write_out(line.rstrip().encode() + b"\n")

    def _begin_table(self) -> None:
        lines = table(self._columns, self._rows)
        self._widths = [
            max(len(row[i]) for row in [self._columns, *self._rows])
            for i in range(len(self._columns))
        ]
        self._rows = []
        write_out("\n".join(lines).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A document that was cut short is none: it is left without its end.
        if error is not None:
            return
        if self._output == "json":
            write_out(b"]\n" if self.count else b"[]\n")
        elif self._output == "table" and self._widths is None:
            self._begin_table()
        flush_output()
