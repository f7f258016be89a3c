"""PrefixedDB: the keys under one prefix as a database of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Iterator as Iteration
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from kvstore._engine.database.bounds import VersionedBounds
from kvstore._engine.database.native import (
    count_within,
    joined,
    new_batch,
    new_iterator,
    new_snapshot,
    prefix_end,
)
from kvstore.engine import bulk
from kvstore.engine.changes import ChangeFeed

if TYPE_CHECKING:
    from asyncio import Future

    import numpy
    from numpy.typing import NDArray

    from kvstore._engine.database.native import Iterator, Snapshot, WriteBatch
    from kvstore.engine.bulk import Bytes2D, Column, Runs
    from kvstore.engine.database import DB

__all__ = ["PrefixedDB"]

Bytes = bytes | bytearray | memoryview
D = TypeVar("D")


class PrefixedDB:
    """A view of the keys of :attr:`db` that begin with :attr:`prefix`, shown without it.

    Made by :meth:`DB.prefixed_db`; nests. It costs nothing to make and keeps nothing open, so it
    has no ``close``: it ends with its database. Its methods are those of :class:`DB`, keys and
    bounds always without the prefix; what concerns the whole database (flush, verify, checkpoint,
    stats) is done on :attr:`db`.
    """

    __slots__ = ("db", "prefix")

    def __init__(self, db: DB, prefix: Bytes) -> None:
        self.db = db
        """The database below, never itself a PrefixedDB."""
        self.prefix = joined(b"", prefix)
        """The whole prefix, those of the views that it was nested in included."""

    @property
    def closed(self) -> bool:
        """Whether the database below is closed."""
        return self.db.closed

    @overload
    def get(
        self,
        key: Bytes,
        default: None = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> bytes | None: ...
    @overload
    def get(
        self,
        key: Bytes,
        default: D,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> bytes | D: ...
    def get(
        self,
        key: Bytes,
        default: object = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> object:
        """As :meth:`DB.get`."""
        return self.db.get(
            joined(self.prefix, key),
            default,
            verify_checksums=verify_checksums,
            fill_cache=fill_cache,
            sequence=sequence,
        )

    def get_versioned(
        self, key: Bytes, sequence: int | None = None, *, fill_cache: bool = True
    ) -> tuple[bytes, int] | None:
        """As :meth:`DB.get_versioned`."""
        return self.db.get_versioned(joined(self.prefix, key), sequence, fill_cache=fill_cache)

    @overload
    def multi_get(
        self, keys: Iterable[Bytes], default: None = None, *, sequence: int | None = None
    ) -> list[bytes | None]: ...
    @overload
    def multi_get(
        self, keys: Iterable[Bytes], default: D, *, sequence: int | None = None
    ) -> list[bytes | D]: ...
    def multi_get(
        self, keys: Iterable[Bytes], default: object = None, *, sequence: int | None = None
    ) -> object:
        """As :meth:`DB.multi_get`."""
        prefix = self.prefix
        return self.db.multi_get([joined(prefix, key) for key in keys], default, sequence=sequence)

    def put(self, key: Bytes, value: Bytes, *, sync: bool = False) -> None:
        """As :meth:`DB.put`."""
        self.db.put(joined(self.prefix, key), value, sync=sync)

    def delete(self, key: Bytes, *, sync: bool = False) -> None:
        """As :meth:`DB.delete`."""
        self.db.delete(joined(self.prefix, key), sync=sync)

    def put_async(self, key: Bytes, value: Bytes, *, sync: bool = True) -> Future[None]:
        """As :meth:`DB.put_async`."""
        return self.db.put_async(joined(self.prefix, key), value, sync=sync)

    def delete_async(self, key: Bytes, *, sync: bool = True) -> Future[None]:
        """As :meth:`DB.delete_async`."""
        return self.db.delete_async(joined(self.prefix, key), sync=sync)

    def delete_range(
        self, start: Bytes | None = None, stop: Bytes | None = None, *, sync: bool = False
    ) -> None:
        """As :meth:`DB.delete_range`; without bounds it empties the view and nothing else."""
        low, high = self._bounds(start, stop)
        self.db.delete_range(low, high, sync=sync)

    def update(
        self, items: Mapping[bytes, Bytes] | Iterable[tuple[Bytes, Bytes]], *, sync: bool = False
    ) -> None:
        """As :meth:`DB.update`."""
        batch = self.write_batch(sync=sync)
        for key, value in items.items() if isinstance(items, Mapping) else items:
            batch.put(key, value)
        batch.write()

    def put_many(self, keys: Column, values: Column, *, sync: bool = False) -> int:
        """As :meth:`DB.put_many`."""
        return bulk.put_many(self.db, self.prefix, keys, values, sync)

    def get_many(
        self, keys: Column, *, value_width: int | None = None, sequence: int | None = None
    ) -> tuple[NDArray[numpy.bool_], Bytes2D | Runs]:
        """As :meth:`DB.get_many`."""
        return bulk.get_many(self.db, self.prefix, keys, value_width, sequence)

    def scan(
        self,
        *,
        rows: int = bulk.ROWS,
        key_width: int | None = None,
        value_width: int | None = None,
        include_key: bool = True,
        include_value: bool = True,
        **bounds: Unpack[VersionedBounds],
    ) -> Iteration[tuple[Bytes2D | Runs | None, Bytes2D | Runs | None]]:
        """As :meth:`DB.scan`."""
        entries = self.iterator(**bounds)
        return bulk.scan(entries, rows, key_width, value_width, include_key, include_value)

    def __contains__(self, key: object) -> bool:
        inner = joined(self.prefix, key)  # type: ignore[arg-type]
        return inner in self.db

    def __getitem__(self, key: Bytes) -> bytes:
        value: bytes | None = self.db.get(joined(self.prefix, key))
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Bytes, value: Bytes) -> None:
        self.db.put(joined(self.prefix, key), value)

    def __delitem__(self, key: Bytes) -> None:
        if joined(self.prefix, key) not in self.db:
            raise KeyError(key)
        self.db.delete(joined(self.prefix, key))

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """As :meth:`DB.write_batch`; keys put into the batch get the prefix."""
        return new_batch(self.db, self.prefix, transaction, sync)

    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[True] = True,
        include_sequence: Literal[False] = False,
        **bounds: Unpack[VersionedBounds],
    ) -> Iterator[tuple[bytes, bytes]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[False],
        include_sequence: Literal[False] = False,
        **bounds: Unpack[VersionedBounds],
    ) -> Iterator[bytes]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[False],
        include_value: Literal[True] = True,
        include_sequence: Literal[False] = False,
        **bounds: Unpack[VersionedBounds],
    ) -> Iterator[bytes]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[True] = True,
        include_sequence: Literal[True],
        **bounds: Unpack[VersionedBounds],
    ) -> Iterator[tuple[bytes, bytes, int]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[False],
        include_sequence: Literal[True],
        **bounds: Unpack[VersionedBounds],
    ) -> Iterator[tuple[bytes, int]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: bool = True,
        include_value: bool = True,
        include_sequence: bool = False,
        **bounds: Unpack[VersionedBounds],
    ) -> Iterator[object]: ...
    def iterator(
        self,
        *,
        reverse: bool = False,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        include_start: bool = True,
        include_stop: bool = False,
        prefix: Bytes | None = None,
        include_key: bool = True,
        include_value: bool = True,
        include_sequence: bool = False,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """As :meth:`DB.iterator`."""
        return new_iterator(
            self.db,
            self.prefix,
            reverse=reverse,
            start=start,
            stop=stop,
            include_start=include_start,
            include_stop=include_stop,
            prefix=prefix,
            include_key=include_key,
            include_value=include_value,
            include_sequence=include_sequence,
            fill_cache=fill_cache,
            sequence=sequence,
            limit=limit,
        )

    def count(
        self,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        sequence: int | None = None,
        *,
        prefix: Bytes | None = None,
        fill_cache: bool = True,
    ) -> int:
        """As :meth:`DB.count`."""
        return count_within(self.db, self.prefix, start, stop, sequence, prefix, fill_cache)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def keys(self) -> Iterator[bytes]:
        """As :meth:`DB.keys`."""
        return self.iterator(include_value=False)

    def values(self) -> Iterator[bytes]:
        """As :meth:`DB.values`."""
        return self.iterator(include_key=False)

    def items(self) -> Iterator:
        """As :meth:`DB.items`."""
        return self.iterator()

    def snapshot(self, *, sequence: int | None = None) -> Snapshot:
        """As :meth:`DB.snapshot`: of this view only."""
        return new_snapshot(self.db, self.prefix, sequence)

    def changes(
        self,
        since: int | None = None,
        *,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        prefix: Bytes | None = None,
        timeout: float | None = None,
    ) -> ChangeFeed:
        """As :meth:`DB.changes`, of this view's keys."""
        return ChangeFeed(self.db, self.prefix, since, start, stop, prefix, timeout)

    def prefixed_db(self, prefix: Bytes) -> PrefixedDB:
        """The keys of this view that begin with ``prefix``."""
        return PrefixedDB(self.db, joined(self.prefix, prefix))

    def approximate_size(self, start: Bytes, stop: Bytes) -> int:
        """As :meth:`DB.approximate_size`."""
        return self.approximate_sizes((start, stop))[0]

    def approximate_sizes(self, *ranges: tuple[Bytes, Bytes]) -> list[int]:
        """As :meth:`DB.approximate_sizes`."""
        return self.db.approximate_sizes(
            *((joined(self.prefix, start), joined(self.prefix, stop)) for start, stop in ranges)
        )

    def compact_range(self, *, start: Bytes | None = None, stop: Bytes | None = None) -> None:
        """As :meth:`DB.compact_range`, of this view's keys."""
        low, high = self._bounds(start, stop)
        self.db.compact_range(start=low, stop=high)

    def _bounds(self, start: Bytes | None, stop: Bytes | None) -> tuple[bytes, bytes | None]:
        return (
            self.prefix if start is None else joined(self.prefix, start),
            prefix_end(self.prefix) if stop is None else joined(self.prefix, stop),
        )

    def __repr__(self) -> str:
        return f"<kvstore.PrefixedDB {self.prefix!r} of {self.db!r}>"
