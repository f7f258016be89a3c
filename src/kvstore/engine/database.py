"""DB: the store as a Python programmer sees it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from collections.abc import Iterator as Iteration
from typing import TYPE_CHECKING, Unpack

from kvstore._engine.database import native
from kvstore._engine.database.bounds import InterruptibleBounds
from kvstore._engine.database.native import Database, Iterator, WriteBatch, new_batch
from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore._engine.table.native import compression_of
from kvstore.engine import bulk
from kvstore.engine.awaiting import Awaiting
from kvstore.engine.changes import ChangeFeed
from kvstore.engine.options import Options, OtherSettings, Settings, options_of
from kvstore.engine.prefixed import PrefixedDB

if TYPE_CHECKING:
    from asyncio import Future

    import numpy
    from numpy.typing import NDArray

    from kvstore.engine.bulk import Bytes2D, Column, Runs

__all__ = ["DB", "open"]

Bytes = bytes | bytearray | memoryview


class DB(Database):
    """An ordered map of bytes to bytes in a directory.

    A superset of plyvel's ``DB``; only custom comparators are left out: keys are always in the
    order of their bytes. Any thread may use one DB. Keyword arguments are the fields of
    :class:`Options`, or one ``options=Options(...)``; ``filesystem`` is the disk it stands on.

    Raises :class:`~kvstore.errors.AlreadyOpenError` when the directory is in use,
    :class:`~kvstore.errors.CorruptionError` when it can't be trusted,
    :class:`~kvstore.errors.StorageError` when it can't be read or written or belongs to another
    program, :class:`~kvstore.errors.InvalidArgumentError` for options out of bounds, ``TypeError``
    for options of a wrong name or type.
    """

    _begun: Awaiting | None = None

    def __init__(
        self,
        name: str | bytes | os.PathLike[str],
        create_if_missing: bool | None = None,
        *,
        options: Options | None = None,
        filesystem: FileSystem | None = None,
        **settings: Unpack[OtherSettings],
    ) -> None:
        given: Settings = {"create_if_missing": create_if_missing, **settings}
        if options is None:
            options = options_of(given)
        elif not isinstance(options, Options):
            raise TypeError(
                f"options must be an Options, not a {type(options).__name__}: give single options "
                "as keyword arguments"
            )
        elif settings or create_if_missing is not None:
            raise TypeError("give either options= or single options, not both")
        self.options = options
        super().__init__(
            os.fsdecode(name),
            filesystem if filesystem is not None else PosixFileSystem(),
            options,
            compression_of(options.compression),
        )

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """A batch for this database; as a context manager it is written at the end of the block.

        With ``transaction`` a block left by an exception writes nothing.
        """
        return new_batch(self, b"", transaction, sync)

    def prefixed_db(self, prefix: Bytes) -> PrefixedDB:
        """A view of the keys that begin with ``prefix``, without it."""
        return PrefixedDB(self, prefix)

    def changes(
        self,
        since: int | None = None,
        *,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        prefix: Bytes | None = None,
        timeout: float | None = None,
    ) -> ChangeFeed:
        """What was written after sequence ``since``, in order, and what comes; see ChangeFeed.

        Without ``since`` from now on. Of keys from ``start`` on and below ``stop``, or that begin
        with ``prefix``. To go on where an earlier feed ended, of this opening or one before it,
        give its ``sequence``. ``timeout``: seconds that iteration waits for the next change; None:
        however long, 0: it ends where nothing more is there.

        The past reaches back as far as the log: up to what flushes have put into tables, and
        further with the option ``changes_kept_size``. Raises CompactedError, whose ``oldest`` is
        the oldest sequence that the log has, for what is gone; FutureRevisionError (an
        InvalidArgumentError) for a sequence that was never written, InvalidArgumentError where
        there is no log (``wal=False``).
        """
        return ChangeFeed(self, b"", since, start, stop, prefix, timeout)

    def approximate_size(self, start: Bytes, stop: Bytes) -> int:
        """Bytes on disk of the keys in [start, stop)."""
        return self.approximate_sizes((start, stop))[0]

    def update(
        self, items: Mapping[bytes, Bytes] | Iterable[tuple[Bytes, Bytes]], *, sync: bool = False
    ) -> None:
        """Put all of ``items``, a mapping or pairs of key and value, as one batch."""
        batch = self.write_batch(sync=sync)
        for key, value in items.items() if isinstance(items, Mapping) else items:
            batch.put(key, value)
        batch.write()

    def put_many(self, keys: Column, values: Column, *, sync: bool = False) -> int:
        """Put the rows of two columns, keys and values; returns how many there were.

        A column is an array or a pair (data, offsets), see :mod:`kvstore.engine.bulk`. Of equal
        keys the last row stands. Rows are written as batches of about 1 MiB (or one row), each
        atomic, one after another; with ``sync`` all are durable when the call returns.
        Lengths and offsets are checked before anything is written.

        Raises TypeError and InvalidArgumentError for what is no column, else as :meth:`put`; rows
        before the batch that failed are written.
        """
        return bulk.put_many(self, b"", keys, values, sync)

    def put_async(self, key: Bytes, value: Bytes, *, sync: bool = True) -> Future[None]:
        """Set ``key`` to ``value``, without waiting; await it to know that it is durable.

        The call makes the write, whether it is awaited or not: writes are made in the order of the
        calls, and cancelling the future takes nothing back. With ``sync=False`` the future is done
        when the write is made, with ``write_through`` or ``background=False`` when the operating
        system has it. Only where that has to wait for memory or the disk a thread makes
        it, and all that comes after it, in that order; up to then it isn't seen.

        Needs a running event loop (RuntimeError), and belongs to it. What is wrong with the
        arguments raises at the call; the future raises what else :meth:`put` does, and
        OverloadedError where 64 MiB of writes wait for that thread already. Where the sync has
        failed, or the database was closed without one, the write may be there after reopening.
        """
        return self._awaiting.write(self, sync, native.put_at_once, native.hold_put, key, value)

    def delete_async(self, key: Bytes, *, sync: bool = True) -> Future[None]:
        """Remove ``key``; otherwise as :meth:`put_async`."""
        return self._awaiting.write(self, sync, native.delete_at_once, native.hold_delete, key)

    def write_async(self, batch: WriteBatch, *, sync: bool = True) -> Future[int]:
        """Apply all operations of ``batch`` atomically, as :meth:`write` does, whose result is the
        future's; otherwise as :meth:`put_async`. The batch may be changed once the call returned.
        """
        return self._awaiting.write(self, sync, native.write_at_once, native.hold_batch, batch)

    def sync_async(self) -> Future[None]:
        """Make every write that was made before durable; otherwise as :meth:`put_async`.

        One that was refused tells its own future.
        """
        return self._awaiting.write(self, True, native.sync_at_once, native.hold_sync)

    @property
    def _awaiting(self) -> Awaiting:
        begun = self._begun
        if begun is None:
            # Another thread may be as far.
            begun = self.__dict__.setdefault("_begun", Awaiting())
            native.call_at_end(self, begun.end)
        return begun

    def get_many(
        self, keys: Column, *, value_width: int | None = None, sequence: int | None = None
    ) -> tuple[NDArray[numpy.bool_], Bytes2D | Runs]:
        """Whether each key of a column is there, and the column of their values.

        All are of one moment. With ``value_width`` the values are a 2-D array, zeros where there
        is none, and a value of another size raises InvalidArgumentError; else they are
        :class:`~kvstore.engine.bulk.Runs`. Needs NumPy.
        """
        return bulk.get_many(self, b"", keys, value_width, sequence)

    def scan(
        self,
        *,
        rows: int = bulk.ROWS,
        key_width: int | None = None,
        value_width: int | None = None,
        include_key: bool = True,
        include_value: bool = True,
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iteration[tuple[Bytes2D | Runs | None, Bytes2D | Runs | None]]:
        """Walk a range in steps of ``rows`` entries: yields a column of keys and one of values.

        All of one moment. ``bounds`` are the arguments of :meth:`iterator`. With a width a column
        is a 2-D array, and a row of another size raises InvalidArgumentError; else it is
        :class:`~kvstore.engine.bulk.Runs`, or ``None`` where it isn't included. Holds one step in
        memory. Needs NumPy.
        """
        entries = self.iterator(**bounds)
        return bulk.scan(entries, rows, key_width, value_width, include_key, include_value)

    def keys(self) -> Iterator[bytes]:
        """All keys of this moment, in order.

        Note that ``dict(db)`` looks each of them up by itself; ``dict(db.items())`` or
        ``dict(snapshot)`` copies one moment.
        """
        return self.iterator(include_value=False)

    def values(self) -> Iterator[bytes]:
        """The values of all keys of this moment, in the order of the keys."""
        return self.iterator(include_key=False)

    def items(self) -> Iterator:
        """All pairs of this moment in key order: the same as iterating over the database."""
        return self.iterator()

    def __repr__(self) -> str:
        return f"<kvstore.DB {self.name!r}{' (closed)' if self.closed else ''}>"


def open(
    name: str | bytes | os.PathLike[str],
    *,
    options: Options | None = None,
    filesystem: FileSystem | None = None,
    **settings: Unpack[Settings],
) -> DB:
    """Open the database in directory ``name``, creating it where there is none; see :class:`DB`."""
    return DB(name, options=options, filesystem=filesystem, **settings)
