"""Bulk calls: keys and values in NumPy arrays, with no Python object for each of them.

A column of keys or values is given as one of

- a 2-D array of bytes, ``(rows, width)``: every row has ``width`` bytes;
- a 1-D array of ``S``: rows without the zero bytes at their end, as NumPy itself shows them;
- a 1-D array of any other type wider than a byte: the bytes of each item as they are (``">u8"``
  makes integers sort as keys, little-endian ones don't);
- a pair ``(data, offsets)``, as Arrow has it: row i is ``data[offsets[i]:offsets[i + 1]]``, with
  one more offset than rows, in int64 or int32.

Arrays must be C-contiguous; they are read in place, and must not be written meanwhile. Columns that
are made are 2-D arrays where a width is given, else :class:`Runs`.
"""

from __future__ import annotations

from collections.abc import Iterator as Iteration
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore._engine.database import native
from kvstore._engine.database.native import Database, Iterator, Sink
from kvstore.errors import InvalidArgumentError
from kvstore.extras import install_line

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Bytes2D = NDArray[numpy.uint8]
    Column = NDArray[Any] | tuple[Any, NDArray[numpy.int64] | NDArray[numpy.int32]]

__all__ = ["ROWS", "Runs", "get_many", "put_many", "scan"]

ROWS = 1 << 16
"""Rows that one step of a scan reads at most, unless told."""

MAX_WIDTH = 1 << 30


class Runs(NamedTuple):
    """Rows of different sizes: row i is ``data[offsets[i]:offsets[i + 1]]``."""

    data: NDArray[numpy.uint8]
    offsets: NDArray[numpy.int64]

    def row(self, number: int) -> bytes:
        """Row ``number``, from 0 on, as bytes."""
        return self.data[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def rows(self) -> list[bytes]:
        """All rows as bytes."""
        data = self.data.tobytes()
        bounds = self.offsets.tolist()
        return [data[start:stop] for start, stop in pairwise(bounds)]


def arrays() -> Any:
    """NumPy, which only making arrays needs."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError(f"bulk reads make NumPy arrays: {install_line('numpy')}") from error
    return numpy


def put_many(db: Database, prefix: bytes, keys: Column, values: Column, sync: bool) -> int:
    return native.put_many(db, prefix, keys, values, sync)


def get_many(
    db: Database, prefix: bytes, keys: Column, value_width: int | None, sequence: int | None
) -> tuple[NDArray[numpy.bool_], Bytes2D | Runs]:
    numpy = arrays()
    count = native.count_rows(keys)
    found = numpy.zeros(count, numpy.uint8)
    values = Taken(numpy, count, value_width)
    native.get_many(db, prefix, keys, values.sink, found, sequence)
    return found.view(numpy.bool_), values.column()


def scan(
    entries: Iterator,
    rows: int,
    key_width: int | None,
    value_width: int | None,
    include_key: bool,
    include_value: bool,
) -> Iteration[tuple[Bytes2D | Runs | None, Bytes2D | Runs | None]]:
    numpy = arrays()
    if not 1 <= rows <= 1 << 30:
        raise InvalidArgumentError(f"rows={rows} is outside [1, 2**30]")
    with entries:
        while True:
            keys = Taken(numpy, rows, key_width) if include_key else None
            values = Taken(numpy, rows, value_width) if include_value else None
            count = native.read_rows(
                entries,
                rows,
                None if keys is None else keys.sink,
                None if values is None else values.sink,
            )
            if not count:
                return
            yield (
                None if keys is None else keys.column(),
                None if values is None else values.column(),
            )
            if count < rows:
                return


class Taken:
    """A column that is being filled."""

    def __init__(self, numpy: Any, rows: int, width: int | None) -> None:
        if width is not None and not 0 <= width <= MAX_WIDTH:
            raise InvalidArgumentError(f"a width of {width} is outside [0, {MAX_WIDTH}]")
        self.numpy = numpy
        self.array = None if width is None else numpy.empty((rows, width), numpy.uint8)
        self.sink = Sink(self.array)

    def column(self) -> Any:
        """What was taken, as an array or as runs."""
        numpy = self.numpy
        if self.array is not None:
            return self.array[: self.sink.rows]
        return Runs(
            numpy.frombuffer(self.sink.data, numpy.uint8),
            numpy.frombuffer(self.sink.offsets, numpy.int64),
        )
