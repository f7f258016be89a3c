"""Types of the room database."""

from collections.abc import Callable, Iterable
from collections.abc import Iterator as _Iteration
from typing import Any, Literal, Self, Unpack, overload

from typing_extensions import TypeVar

from kvstore._engine.database.bounds import Bounds, InterruptibleBounds
from kvstore._engine.database.change import Change
from kvstore._engine.database.repair_report import RepairReport
from kvstore._engine.files.native import FileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import StorageError

_Bytes = bytes | bytearray | memoryview
_D = TypeVar("_D")
_C = TypeVar("_C")
_Entry = TypeVar("_Entry", default=tuple[bytes, bytes])

# event_count.pyx

class EventCount:
    """Wakes threads that wait for something that others change: see event_count.pxd."""

    count: int
    def advance(self) -> None: ...
    def wait(self, seen: int, seconds: float = ...) -> None:
        """Until it has advanced beyond ``seen``, at most ``seconds``, or until a handler raises."""

# batch.pyx

class WriteBatch:
    """Operations that are applied together, in order, or not at all.

    One thread at a time. Get one from :meth:`DB.write_batch` (then :meth:`write`, or leaving a
    ``with`` block, writes it), or make one and hand it to :meth:`DB.write`.
    """

    def __init__(self) -> None: ...
    def put(self, key: _Bytes, value: _Bytes, *, sequence: int | None = None) -> None:
        """Set ``key`` to ``value``. ``sequence``: see :meth:`DB.write`.

        Raises InvalidArgumentError for what is too long, ClosedError where the database that the
        batch came from is closed.
        """
    def delete(self, key: _Bytes, *, sequence: int | None = None) -> None:
        """Remove ``key``; no error when it is not there. ``sequence`` as for :meth:`put`."""
    def delete_range(
        self, start: _Bytes | None, stop: _Bytes | None, *, sequence: int | None = None
    ) -> None:
        """Remove every key from ``start`` on and below ``stop``, whatever is there by then.

        One operation however many keys there are; none where ``start`` isn't below ``stop``.
        Without ``start`` from the first key on. ``stop`` may only be None in the batch of a
        :class:`PrefixedDB`, where the prefix ends. ``sequence`` as for :meth:`put`, but each key of
        the range that was put or deleted before must have been at a lower one: those it hides.
        In the same batch that is checked; of what was written before it is the caller's word, and
        which of the two stands isn't said where it is broken.
        """
    @overload
    def expect(self, key: _Bytes, value: _Bytes | None, /) -> None: ...
    @overload
    def expect(self, key: _Bytes, /, *, sequence: int) -> None:
        """Have the batch written only if ``key`` then has that ``value``, isn't there (None), or
        has the value that the write with ``sequence`` made (:meth:`DB.get_versioned`).

        All conditions must hold, in the moment before the batch is written, of which nothing comes
        in between; else the write raises ConflictError, with the ``key``, and nothing is written.
        They stay in the batch as its operations do, and don't count in its length; a batch of
        conditions alone checks them.
        """
    def clear(self) -> None:
        """Forget all operations and conditions."""
    def append(self, source: WriteBatch) -> None:
        """Add the operations of another batch after those of this one, and its conditions."""
    def approximate_size(self) -> int:
        """Bytes that the batch takes in the log."""
    def __len__(self) -> int:
        """The number of operations."""
    def write(self) -> None:
        """Write to the database that the batch came from.

        The operations stay in the batch, as plyvel's do: :meth:`clear` it to go on with others.
        """
    def __enter__(self) -> WriteBatch: ...
    def __exit__(self, *exc: object) -> None: ...

# awaitable.pyx

_Made = tuple[int, bool, Any]
_Done = Callable[[_Made | None, BaseException | None], object]

def put_at_once(
    db: Database, sync: bool, key: _Bytes, value: _Bytes
) -> tuple[int, bool, None] | None:
    """Put unless that would have to wait: None then, else what it is done with.

    That is a ticket of the log, or 0 where nothing is to be waited for; whether all up to it is to
    be durable, or only in the file; and the result.
    """

def delete_at_once(db: Database, sync: bool, key: _Bytes) -> tuple[int, bool, None] | None: ...
def write_at_once(db: Database, sync: bool, batch: WriteBatch) -> tuple[int, bool, int] | None: ...
def sync_at_once(db: Database, sync: bool) -> tuple[int, bool, None] | None: ...
def hold_put(db: Database, sync: bool, done: _Done, key: _Bytes, value: _Bytes) -> None:
    """Put on a thread, after all that was held before; ``done`` is called there, see above."""

def hold_delete(db: Database, sync: bool, done: _Done, key: _Bytes) -> None: ...
def hold_batch(db: Database, sync: bool, done: _Done, batch: WriteBatch) -> None: ...
def hold_sync(db: Database, sync: bool, done: _Done) -> None: ...
def note_durable(db: Database) -> None:
    """The log was synced, or has failed."""

def check_open(db: Database) -> None:
    """Raises ClosedError where it is closed, or a child's of a fork."""

def log_of(db: Database) -> Log | None:
    """The write-ahead log, if there is one that can be written to."""

def new_event(db: Database) -> int:
    """An eventfd that doesn't block; raises StorageError where no descriptor is left for it."""

def call_at_end(db: Database, call: Callable[[], object]) -> None:
    """Have it called once the database is closed, before ``close`` returns."""

# bulk_read.pyx

def get_many(
    db: Database, prefix: bytes, keys: object, values: Sink, found: Any, sequence: int | None
) -> None:
    """The values of the keys into the sink; ``found``: a writable buffer of a byte for each key."""

def count_rows(keys: object) -> int:
    """The rows of an array or a pair (data, offsets)."""

def read_rows(rows: Iterator[Any], most: int, keys: Sink | None, values: Sink | None) -> int:
    """Up to ``most`` of the iterator's next entries into the sinks; how many there were."""

# bulk_write.pyx

def put_many(db: Database, prefix: bytes, keys: object, values: object, sync: bool) -> int:
    """Write the rows of two columns; how many there were."""

# column.pyx

class Memory:
    """A buffer; arrays are made of it without a copy."""

class Sink:
    """Takes rows: into a writable 2-D array of bytes, or of any size as data and offsets."""

    rows: int
    data: Memory
    offsets: Memory
    def __init__(self, array: Any = None) -> None: ...

# database.pyx

class Database:
    """The part of :class:`kvstore.DB` that must be fast; see there."""

    name: str
    """The directory as it was given."""
    path: str
    """The directory from the root on, found once at opening: it doesn't follow ``chdir``."""

    @property
    def closed(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
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
    @overload
    def get(
        self,
        key: _Bytes,
        default: None = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> bytes | None: ...
    @overload
    def get(
        self,
        key: _Bytes,
        default: _D,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
        sequence: int | None = None,
    ) -> bytes | _D:
        """The value of ``key`` as ``bytes``, or ``default`` when there is none.

        ``sequence`` reads as of that sequence: it must be covered by :meth:`retain_from` or an
        open snapshot, and at most :attr:`last_sequence`. With ``fill_cache=False`` a block that has
        to be read from disk isn't kept in the cache. Checksums are always verified when a block
        comes from disk, so ``verify_checksums`` changes nothing but with the option ``mmap_reads``:
        then the key isn't looked up in a map.

        Raises InvalidArgumentError (history no longer kept), CorruptionError, StorageError,
        ClosedError.
        """
    def get_cached(self, key: _Bytes, default: Any = None, *, cold: Any = None) -> Any:
        """As :meth:`get` of the present, but ``cold`` where that would have to ask the disk.

        Neither waits nor gives the GIL up. Raises as :meth:`get` does.
        """
    def get_versioned(
        self, key: _Bytes, sequence: int | None = None, *, fill_cache: bool = True
    ) -> tuple[bytes, int] | None:
        """The value of ``key`` and the sequence of the write that made it; None: there is none.

        A flush or compaction never changes that sequence, nor does a checkpoint. ``sequence``,
        ``fill_cache`` and what is raised: as for :meth:`get`.
        """
    def get_versioned_cached(
        self, key: _Bytes, sequence: int | None = None, *, cold: Any = None
    ) -> Any:
        """As :meth:`get_versioned`, but ``cold`` where that would ask the disk.

        Neither waits nor gives the GIL up. Raises as :meth:`get` does.
        """
    def contains_cached(self, key: _Bytes) -> bool | None:
        """As ``key in db``, but None where that would have to ask the disk."""
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

        With ``sync`` it is durable on return, with all that was written before; an empty batch
        makes that durable.

        Without ``sequence`` each operation takes the next one. With ``sequence`` (``wal=False``
        only) the caller numbers versions: an operation that was added with ``sequence=`` has that
        one, any other has the sequence of the operation before it in the batch (the first:
        ``sequence``). Sequences must not descend, nor lie below :attr:`last_sequence`; they may
        repeat, within a batch and across batches, and of two operations with the same key and
        sequence the later one stands. :attr:`last_sequence` becomes the highest.

        ``applied_index`` (``wal=False`` only, never descending) is remembered with the tables that
        this write ends up in, see :attr:`flushed_index`. An empty batch may carry it too.
        """
    @overload
    def multi_get(
        self, keys: Iterable[_Bytes], default: None = None, *, sequence: int | None = None
    ) -> list[bytes | None]: ...
    @overload
    def multi_get(
        self, keys: Iterable[_Bytes], default: _D, *, sequence: int | None = None
    ) -> list[bytes | _D]:
        """The values of ``keys``, in their order, all of one moment."""
    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: _Bytes) -> bytes: ...
    def __setitem__(self, key: _Bytes, value: _Bytes) -> None: ...
    def __delitem__(self, key: _Bytes) -> None: ...
    def __iter__(self) -> Iterator: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[True] = True,
        include_sequence: Literal[False] = False,
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iterator[tuple[bytes, bytes]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[False],
        include_sequence: Literal[False] = False,
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iterator[bytes]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[False],
        include_value: Literal[True] = True,
        include_sequence: Literal[False] = False,
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iterator[bytes]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[True] = True,
        include_sequence: Literal[True],
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iterator[tuple[bytes, bytes, int]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[False],
        include_sequence: Literal[True],
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iterator[tuple[bytes, int]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: bool = True,
        include_value: bool = True,
        include_sequence: bool = False,
        **bounds: Unpack[InterruptibleBounds],
    ) -> Iterator[object]:
        """Walk a range of one moment, in key order (descending with ``reverse``).

        Yields ``(key, value)`` tuples, or keys, or values, or ``None`` with neither. With
        ``include_sequence`` the sequence of the write that made the value comes last:
        ``(key, value, sequence)``, ``(key, sequence)``, ``(value, sequence)`` or the number alone.

        A step that passes over thousands of deleted keys or old versions lets other threads run
        every few thousand of them, and calls ``interrupt`` then; what that raises ends the step,
        and closes the iterator.

        ``limit``: so many entries it gives at most, wherever it is moved to in between by other
        means than ``next``.
        """
    def count(
        self,
        start: _Bytes | None = None,
        stop: _Bytes | None = None,
        sequence: int | None = None,
        *,
        prefix: _Bytes | None = None,
        fill_cache: bool = True,
        interrupt: Callable[[], object] | None = None,
    ) -> int:
        """How many keys there are from ``start`` on and below ``stop``; None: no bound.

        All of one moment: now, or as of ``sequence``, as for :meth:`get`. It looks at each of the
        keys, but at no value, makes no objects and gives the GIL up. Raises as :meth:`get` does;
        TypeError where ``prefix`` is given together with a bound. ``interrupt`` is called at least
        every 65,536 keys, and ends it by what it raises.
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
        :attr:`retained_sequence`. The first call is durable when it returns, and raises as
        :meth:`flush` does; a later one may be forgotten by a crash, and then more is kept.
        """
    def sync(self) -> None:
        """Make every write that returned before durable; without a log (``wal=False``) nothing is.

        One sync, however many writes it is for. Raises as :meth:`put` does.
        """
    def make_room(self, *, wait: bool = True) -> bool:
        """See to it that the next write finds room in memory; may wait for a flush, as it would.

        Without ``wait`` False says that it would have to be waited for. Raises what the write
        would, and nothing was written: StorageError, ``retryable``, where flushes lack room.
        """
    @property
    def write_delay(self) -> float:
        """Seconds that a write is delayed for compactions to catch up; mostly 0.

        One with an ``applied_index`` isn't: whoever has a log of its own is to hold writes back.
        """
    def resume(self) -> None:
        """Try at once what a full disk or a lack of descriptors or memory has put off.

        Flushes and compactions that failed for it are tried again by themselves, ever more rarely
        (every 5 s at last); this doesn't wait for that. Raises what still stands in the way, and
        StorageError where the failure is for good and the database must be opened anew.
        """
    def flush(self) -> None:
        """Write everything up to now into tables and wait until they are durable."""
    def compact_range(self, *, start: _Bytes | None = None, stop: _Bytes | None = None) -> None:
        """Flush, then merge all tables that overlap [start, stop] down to the last level; waits.

        Tables that are there already are written anew if they hold versions or deletes that nobody
        needs any more, so that it gives back all that :meth:`retain_from` has let go of.
        """
    def approximate_sizes(self, *ranges: tuple[_Bytes, _Bytes]) -> list[int]:
        """Bytes on disk for each (start, stop)."""
    def get_property(self, name: bytes | str) -> bytes | None:
        """One of LevelDB's properties, ``None`` for an unknown name; see docs/engine.md."""
    def verify(self) -> None:
        """Read and check every byte of every live table.

        Raises CorruptionError at the first bad one.
        """
    def rewrite_manifest(self) -> None:
        """Write a new manifest of what is known in memory, for one that is damaged on the disk.

        Durable when the call returns. Any thread. Raises StorageError.
        """
    def live_tables(self) -> list[tuple[int, int]]:
        """The number and the bytes of each table, ascending."""
    def check_table(self, number: int) -> TableChecking | None:
        """A check of one table, a piece at a time; None: there is no such table any more.

        While it is kept the table's file stays, whatever compaction has made of it.
        """
    def check_small_files(self) -> int:
        """Check what the disk now has as ``IDENTITY``, ``CURRENT`` and manifest; their bytes.

        Raises CorruptionError, StorageError, ClosedError.
        """
    def damage_of_table(self, number: int) -> tuple[bytes, bytes, int, int] | None:
        """What a damaged table may have lost: keys in [first, second); about how many bytes are
        stored of them, and how many in all tables. None: there is no such table any more.

        Reads the table, past the cache. Any thread. Raises ClosedError, OutOfMemoryError.
        """
    @property
    def damaged_tables_met(self) -> tuple[StorageError, ...]:
        """What compactions met in tables that they leave alone since."""
    def export_range(self, *, sequence: int, keep_from: int) -> RangeExport | None:
        """Hold what can be read at ``sequence``, and from ``keep_from`` up to it, for another
        database; None where some of that is gone already, or yet to come.
        """
    def replace_range(self, low: _Bytes, high: _Bytes, *, keep_from: int) -> RangeReplacement:
        """Begin to replace all that is stored in [low, high) by what a :class:`RangeExport` of this
        database's last sequence has of it. Nothing may be written until it is over.

        Raises InvalidArgumentError for a range without keys, ClosedError, StorageError.
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
    def delete_range(
        self, start: _Bytes | None = None, stop: _Bytes | None = None, *, sync: bool = False
    ) -> None:
        """Delete every key from ``start`` on and below ``stop``; None: no bound on that side.

        One operation with a sequence of its own, however many keys there are, atomic and in order
        with other writes. Readers of an earlier moment keep what they see. Nothing is written where
        ``start`` isn't below ``stop``. Raises as :meth:`put` does. What it costs: docs/engine.md.
        """
    def __init__(
        self, name: str, filesystem: FileSystem, options: object, compression: int
    ) -> None: ...

def new_iterator(
    db: Database,
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
    include_sequence: bool,
    fill_cache: bool,
    sequence: int | None,
    limit: int | None,
) -> Iterator[Any]:
    """As :meth:`Database.iterator`, of the keys that begin with ``within``, shown without it."""

def count_within(
    db: Database,
    within: bytes,
    start: _Bytes | None,
    stop: _Bytes | None,
    sequence: int | None,
    prefix: _Bytes | None,
    fill_cache: bool,
) -> int:
    """As :meth:`Database.count`, of the keys that begin with ``within``, bounds without it."""

def new_snapshot(db: Database, prefix: bytes, sequence: int | None) -> Snapshot:
    """As :meth:`Database.snapshot`, of the keys that begin with ``prefix``, shown without it."""

def new_batch(db: Database, prefix: bytes, transaction: bool, sync: bool) -> WriteBatch:
    """A batch that :meth:`WriteBatch.write` writes to ``db``, ``prefix`` before each key."""

# iterator.pyx

def joined(prefix: bytes, key: _Bytes) -> bytes:
    """``prefix + key`` for any bytes-like key; TypeError says what was wrong with it."""

def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key after all that begin with ``prefix``; None if there is none."""

class Iterator(_Iteration[_Entry]):
    """Walks a range of one moment.

    Stands between entries, as plyvel's: :meth:`__next__` returns the entry after the place and
    moves past it, :meth:`prev` the one before it and moves before it. One thread at a time; a
    second one is refused.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> _Entry:
        """The entry after the place; raises CorruptionError, StorageError, ClosedError."""
    def next(self) -> _Entry:
        """The same as ``next(iterator)``."""
    def prev(self) -> _Entry:
        """The entry before the place; raises StopIteration at the start."""
    def seek(self, target: _Bytes) -> None:
        """Stand before the first key >= ``target``, in key order also when reversed."""
    def seek_to_start(self) -> None:
        """Rewind: to where it stood when it was made."""
    def seek_to_stop(self) -> None:
        """Stand behind the last entry: :meth:`prev` gives it, ``next`` raises StopIteration."""
    def close(self) -> None:
        """Let go of what it keeps; any later use raises ClosedError. Closing twice is fine."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

class RawIterator:
    """LevelDB's own iterator: stands on an entry, or is not valid, as when it is made.

    One thread at a time; a second one is refused.
    """

    def valid(self) -> bool:
        """Whether it stands on an entry."""
    def seek_to_first(self) -> None:
        """Stand on the first entry, if there is one."""
    def seek_to_last(self) -> None:
        """Stand on the last entry, if there is one."""
    def seek(self, target: _Bytes) -> None:
        """Stand on the first entry whose key is >= ``target``, if there is one."""
    def next(self) -> None:
        """Move on to the next entry; raises IteratorInvalidError where it stands on none."""
    def prev(self) -> None:
        """Move back to the entry before; raises IteratorInvalidError where it stands on none."""
    def key(self) -> bytes:
        """The key stood on; raises IteratorInvalidError where there is none."""
    def value(self) -> bytes:
        """The value stood on; raises IteratorInvalidError where there is none."""
    def item(self) -> tuple[bytes, bytes]:
        """Key and value stood on; raises IteratorInvalidError where there is none."""
    def close(self) -> None:
        """Let go of what it keeps; any later use raises ClosedError. Closing twice is fine."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

# snapshot.pyx

class Snapshot:
    """One moment of the database; reads what was there then until it is closed."""

    @property
    def sequence(self) -> int:
        """The sequence of the newest write that it sees."""
    @overload
    def get(
        self,
        key: _Bytes,
        default: None = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> bytes | None: ...
    @overload
    def get(
        self,
        key: _Bytes,
        default: _D,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> bytes | _D:
        """As :meth:`DB.get`, of that moment."""
    def get_versioned(self, key: _Bytes, *, fill_cache: bool = True) -> tuple[bytes, int] | None:
        """As :meth:`DB.get_versioned`, of that moment."""
    @overload
    def multi_get(self, keys: Iterable[_Bytes], default: None = None) -> list[bytes | None]: ...
    @overload
    def multi_get(self, keys: Iterable[_Bytes], default: _D) -> list[bytes | _D]:
        """As :meth:`DB.multi_get`, of that moment."""
    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: _Bytes) -> bytes: ...
    def __iter__(self) -> Iterator: ...
    def keys(self) -> Iterator[bytes]:
        """All keys, in order."""
    def values(self) -> Iterator[bytes]:
        """The values of all keys, in the order of the keys."""
    def items(self) -> Iterator:
        """All pairs, in the order of the keys."""
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[True] = True,
        include_sequence: Literal[False] = False,
        **bounds: Unpack[Bounds],
    ) -> Iterator[tuple[bytes, bytes]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[False],
        include_sequence: Literal[False] = False,
        **bounds: Unpack[Bounds],
    ) -> Iterator[bytes]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[False],
        include_value: Literal[True] = True,
        include_sequence: Literal[False] = False,
        **bounds: Unpack[Bounds],
    ) -> Iterator[bytes]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[True] = True,
        include_sequence: Literal[True],
        **bounds: Unpack[Bounds],
    ) -> Iterator[tuple[bytes, bytes, int]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: Literal[True] = True,
        include_value: Literal[False],
        include_sequence: Literal[True],
        **bounds: Unpack[Bounds],
    ) -> Iterator[tuple[bytes, int]]: ...
    @overload
    def iterator(
        self,
        *,
        include_key: bool = True,
        include_value: bool = True,
        include_sequence: bool = False,
        **bounds: Unpack[Bounds],
    ) -> Iterator[object]:
        """As :meth:`DB.iterator`, of that moment. It outlives the snapshot."""
    def raw_iterator(
        self, *, verify_checksums: bool = False, fill_cache: bool = True
    ) -> RawIterator:
        """As :meth:`DB.raw_iterator`, of that moment; a prefixed snapshot has none."""
    def count(
        self,
        start: _Bytes | None = None,
        stop: _Bytes | None = None,
        *,
        prefix: _Bytes | None = None,
        fill_cache: bool = True,
    ) -> int:
        """As :meth:`DB.count`, of that moment."""
    def close(self) -> None:
        """Let go of the moment; any later use raises ClosedError. Closing twice is fine."""
    def release(self) -> None:
        """The same as :meth:`close`, by LevelDB's name."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

# changes.pyx

class ChangeReader:
    """The part of :class:`kvstore.ChangeFeed` that must be fast; see there."""

    sequence: int
    """All changes up to this sequence were given, or are of keys that weren't asked for: the
    ``since`` of a feed that goes on from here."""
    timeout: float | None
    """Seconds that iteration waits for the next change; None: however long."""
    closed: bool
    """Whether :meth:`close` was called."""
    def __init__(
        self,
        store: Database,
        within: bytes,
        since: int | None,
        start: _Bytes | None,
        stop: _Bytes | None,
        prefix: _Bytes | None,
        timeout: float | None,
    ) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Change: ...
    def poll(self, timeout: float | None = 0) -> Change | None:
        """The next change, waiting ``timeout`` seconds for it (None: however long), or None.

        Raises as iteration does; ClosedError where the feed was closed before.
        """
    def poll_batch(self, timeout: float | None = 0) -> list[Change] | None:
        """As :meth:`poll`, all changes of the next batch."""
    def close(self) -> None:
        """Let go of what it keeps; iteration ends, of another thread that waits too.

        :meth:`poll` raises ClosedError from then on. Closing twice is fine.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

# table_check.pyx

class TableChecking:
    """One table under check: see :meth:`DB.check_table`. One thread at a time."""

    def step(self, *, forget: bool = True) -> int:
        """Check the next piece, of a megabyte or two: returns its bytes, 0 after the last one.

        All that :meth:`DB.verify` looks at. It doesn't go through the block cache. With ``forget``
        what the system caches of the piece is dropped, before it so that the device is asked, and
        after it. Raises CorruptionError for damage, StorageError when it can't be read,
        ClosedError.
        """

# range_export.pyx

class RangeExport:
    """What a database holds at a sequence: see :meth:`DB.export_range`.

    It keeps that readable until it is closed.
    """

    def part(self, start: _Bytes, stop: _Bytes, bytes_max: int) -> tuple[bytes, bytes | None]:
        """What lies in [start, stop), or from ``start`` up to the key that is given besides, where
        the next part begins: about ``bytes_max`` bytes, at least one key with all its versions.

        Reads tables alone: flush once before the first. Any thread. Raises CorruptionError,
        StorageError (also where history that it needs is gone meanwhile, or the versions of one
        key take more than 8 MiB), InvalidArgumentError, ClosedError.
        """
    def close(self) -> None:
        """Let go of what it keeps. Closing twice is fine."""

# range_replace.pyx

class RangeReplacement:
    """See :meth:`DB.replace_range`. One thread at a time. What it wrote is of no consequence before
    :meth:`install`, and removed by :meth:`close`, or by the next opening."""

    @property
    def reached(self) -> bytes:
        """What lies before this key has come."""
    def add(self, start: _Bytes, stop: _Bytes | None, part: _Bytes) -> None:
        """Take the part of [start, stop), None: up to the range's end. ``start`` is
        :attr:`reached`.

        Raises CorruptionError for a part that isn't one of that range, StorageError,
        InvalidArgumentError, ClosedError.
        """
    def install(self) -> bool:
        """Put what came in the place of what is there, in one edit of the manifest; durable then.

        Flush before it. False, and nothing is done, while other jobs are at work, or a snapshot is
        open that is older than what came. Raises CorruptionError where another table that reaches
        into the range can't be read, and as :meth:`add`; after one that is ``retryable`` it may be
        tried again.
        """
    def close(self) -> None:
        """Be over. Closing twice is fine."""

# maintenance.pyx

def destroy(path: str, filesystem: FileSystem) -> None: ...

# repair.pyx

def repair(
    path: str, filesystem: FileSystem, progress: Callable[[str, int, int], object] | None
) -> RepairReport: ...
