"""Columns of text, and sizes in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvstore.cli.interface.data_bytes import in_line

__all__ = ["size", "table"]

NUMBER = re.compile(r"[0-9]+|[0-9.]+[KMGTPE]iB|[0-9]+B|-")


def size(count: int) -> str:
    """Return a number of bytes in three digits or so: ``0B``, ``1.5MiB``, ``120GiB``."""
    if count < 1024:
        return f"{count}B"
    amount = float(count)
    for unit in "KMGTPE":
        amount /= 1024
        if amount < 1000 or unit == "E":
            break
    return f"{amount:.{0 if amount >= 99.95 else 1}f}{unit}iB"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns; numbers to the right, words to the left.

    What comes from a server can't move a cursor, nor begin a line of its own.
    """
    rows = [[in_line(cell) for cell in row] for row in rows]
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    numeric = [
        bool(rows) and all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(columns))
    ]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
