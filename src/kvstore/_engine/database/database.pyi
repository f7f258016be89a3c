from collections.abc import Iterable
from typing import Any

from kvstore._engine.database.batch import WriteBatch
from kvstore._engine.database.iterator import Iterator, RawIterator, Snapshot
from kvstore._engine.files.file import FileSystem

_Bytes = bytes | bytearray | memoryview

class Database:
    """The part of :class:`kvstore.DB` that must be fast; see there."""

    name: str
    """The directory as it was given."""
    path: str
    """The directory from the root on, found once at opening: it doesn't follow ``chdir``."""

    @property
    def closed(self) -> bool: ...
    @property
    def last_sequence(self) -> int:
        """The sequence of the newest visible write; 0 while nothing was written."""
    @property
    def flushed_index(self) -> int:
        """The highest ``applied_index`` whose write, and all before it, are durable in tables.

        Only meaningful with ``wal=False``: the caller's own log is to be replayed from the index
        after it.
        """
    @property
    def retained_sequence(self) -> int | None:
        """From where on history is kept, ``None`` while only the present is."""
    def get(
        self,
        key: _Bytes,
        default: Any = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> Any:
        """The value of ``key`` as ``bytes``, or ``default`` when there is none.

        ``sequence`` reads as of that sequence: it must be covered by :meth:`retain_from` or an
        open snapshot, and at most :attr:`last_sequence`. With ``fill_cache=False`` a block that has
        to be read from disk isn't kept in the cache. Checksums are always verified when a block
        comes from disk, so ``verify_checksums`` changes nothing.

        Raises InvalidArgumentError (history no longer kept), CorruptionError, StorageError,
        ClosedError.
        """
    def put(self, key: _Bytes, value: _Bytes, *, sync: bool = False) -> None:
        """Set ``key`` to ``value``. With ``sync`` it is durable when the call returns.

        Raises StorageError when the write failed; the database is then read-only until it is
        reopened. Raises ClosedError when closed, InvalidArgumentError for a key over 1 MiB or a
        value over 1 GiB (with a log, 64 bytes less together with its key).
        """
    def delete(self, key: _Bytes, *, sync: bool = False) -> None:
        """Remove ``key``; no error when it is not there. Otherwise as :meth:`put`."""
    def write(
        self,
        batch: WriteBatch,
        *,
        sync: bool = False,
        sequence: int | None = None,
        applied_index: int | None = None,
    ) -> int:
        """Apply all operations of ``batch`` atomically, in order; returns :attr:`last_sequence`.

        Without ``sequence`` each operation takes the next one. With ``sequence`` (``wal=False``
        only) the caller numbers versions: an operation that was added with ``sequence=`` has that
        one, any other has the sequence of the operation before it in the batch (the first:
        ``sequence``). Sequences must not descend, nor lie below :attr:`last_sequence`; they may
        repeat, within a batch and across batches, and of two operations with the same key and
        sequence the later one stands. :attr:`last_sequence` becomes the highest.

        ``applied_index`` (``wal=False`` only, never descending) is remembered with the tables that
        this write ends up in, see :attr:`flushed_index`. An empty batch may carry it too.
        """
    def multi_get(
        self, keys: Iterable[_Bytes], default: Any = None, *, sequence: int | None = None
    ) -> list[Any]:
        """The values of ``keys``, in their order, all of one moment."""
    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: _Bytes) -> bytes: ...
    def __setitem__(self, key: _Bytes, value: _Bytes) -> None: ...
    def __delitem__(self, key: _Bytes) -> None: ...
    def __iter__(self) -> Iterator: ...
    def iterator(
        self,
        *,
        reverse: bool = False,
        start: _Bytes | None = None,
        stop: _Bytes | None = None,
        include_start: bool = True,
        include_stop: bool = False,
        prefix: _Bytes | None = None,
        include_key: bool = True,
        include_value: bool = True,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> Iterator:
        """Walk a range of one moment, in key order (descending with ``reverse``).

        Yields ``(key, value)`` tuples, or keys, or values, or ``None`` with neither.
        """
    def raw_iterator(
        self, *, verify_checksums: bool = False, fill_cache: bool = True
    ) -> RawIterator:
        """LevelDB's own iterator over everything of this moment."""
    def snapshot(self, *, sequence: int | None = None) -> Snapshot:
        """One moment to read from until it is closed: now, or as of ``sequence``."""
    def retain_from(self, sequence: int) -> None:
        """Keep every version that a read at ``sequence`` or later can see; never goes back.

        Before the first call only the current moment and open snapshots are kept: where that has
        let go of history after ``sequence`` already, it is kept from there on, see
        :attr:`retained_sequence`. Survives reopening once a flush has followed it.
        """
    def sync(self) -> None:
        """Make every write that returned before durable; without a log (``wal=False``) nothing is.

        One sync, however many writes it is for. Raises as :meth:`put` does.
        """
    def flush(self) -> None:
        """Write everything up to now into tables and wait until they are durable."""
    def compact_range(self, *, start: _Bytes | None = None, stop: _Bytes | None = None) -> None:
        """Flush, then merge all tables that overlap [start, stop] down to the last level; waits."""
    def approximate_sizes(self, *ranges: tuple[_Bytes, _Bytes]) -> list[int]:
        """Bytes on disk for each (start, stop)."""
    def get_property(self, name: bytes | str) -> bytes | None:
        """One of LevelDB's properties, ``None`` for an unknown name; see docs/engine.md."""
    def verify(self) -> None:
        """Read and check every byte of every live table.

        Raises CorruptionError at the first bad one.
        """
    def close(self) -> None:
        """Flush nothing, sync the log, stop the background; any later use raises ClosedError.

        Open iterators and snapshots are closed with it. Closing twice is fine.
        """
    def checkpoint(self, path: str) -> None:
        """Flush, then make ``path`` (which must not exist) a database of this very state.

        Tables are hard links, so it costs nearly no time and space; durable when the call returns.
        """
    def stats(self) -> dict[str, Any]:
        """Counters and sizes, all since opening; see docs/engine.md."""
    def delete_range(self, start: _Bytes | None, stop: _Bytes | None, *, sync: bool = False) -> int:
        """Delete the keys in [start, stop) that exist when it is called, as one batch.

        Returns how many. Raises InvalidArgumentError where they are too many for one batch: then
        delete a part of the range at a time.
        """
    def _new_batch(self, transaction: bool, sync: bool, prefix: bytes = b"") -> WriteBatch: ...
    def _new_iterator(
        self,
        within: bytes,
        *,
        reverse: bool,
        start: _Bytes | None,
        stop: _Bytes | None,
        include_start: bool,
        include_stop: bool,
        prefix: _Bytes | None,
        include_key: bool,
        include_value: bool,
        fill_cache: bool,
        sequence: int | None,
    ) -> Iterator: ...
    def _new_snapshot(self, prefix: bytes, sequence: int | None) -> Snapshot: ...
    def __init__(
        self, name: str, filesystem: FileSystem, options: object, compression: int
    ) -> None: ...
