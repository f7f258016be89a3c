"""plyvel's interface over :class:`kvstore.DB`: ``import kvstore.compat.plyvel as plyvel``.

The names, defaults, errors and iterator movements of plyvel 1.5.1, custom comparators excepted. A
program that moves keeps its meaning; where plyvel contradicts its own documentation by losing
entries or leaving bounds, this does not. docs/coming-from/plyvel.md lists every
difference. New programs are better served by :mod:`kvstore` itself: faster calls, and errors that
say more.

Files are kvstore's own, not LevelDB's: copy a database with ``new.put`` of all of the old one.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypedDict, Unpack

from kvstore import engine, errors
from kvstore.extras import install_line

__all__ = [
    "DB",
    "CorruptionError",
    "Error",
    "IOError",
    "Iterator",
    "IteratorInvalidError",
    "PrefixedDB",
    "RawIterator",
    "Snapshot",
    "WriteBatch",
    "destroy_db",
    "repair_db",
]

__version__ = "1.5.1"
"""The version of plyvel whose interface this is."""
__leveldb_version__ = "1.22"
"""The LevelDB that its wheels hold."""

Bytes = bytes | bytearray | memoryview

# LevelDB's defaults, and the bounds that it quietly keeps its options within (ours where narrower).
_DEFAULTS = {"write_buffer_size": 4 << 20, "lru_cache_size": 8 << 20, "max_file_size": 2 << 20}
_BOUNDS = {
    "write_buffer_size": (64 << 10, 1 << 30),
    "max_open_files": (74, 50_000),
    "lru_cache_size": (0, 1 << 40),
    "block_size": (1 << 10, 4 << 20),
    "block_restart_interval": (1, 1024),
    "max_file_size": (1 << 20, 1 << 30),
    "bloom_filter_bits": (0, 32),
}


class Error(Exception):
    """Base of the errors below; itself for what LevelDB calls an invalid argument, or not found."""


class IOError(Error, OSError):
    """The disk failed, or the database is open already."""


class CorruptionError(Error):
    """Bytes were read that are not what was written; as in plyvel no :class:`IOError`."""


class IteratorInvalidError(Error):
    """A raw iterator stands on no entry."""


def _fail(error: errors.Error) -> NoReturn:
    """Raise what plyvel would raise in the place of ``error``."""
    kind: type[Exception] = Error
    if isinstance(error, errors.ClosedError):
        kind = RuntimeError
    elif isinstance(error, errors.IteratorInvalidError):
        kind = IteratorInvalidError
    elif isinstance(error, errors.CorruptionError):
        kind = CorruptionError
    elif isinstance(error, MemoryError):
        kind = MemoryError
    elif isinstance(error, errors.StorageError) and error.errno != errno.ENOENT:
        kind = IOError
    failure = kind(str(error))
    if isinstance(failure, IOError) and isinstance(error, errors.StorageError):
        failure.errno = error.errno
    raise failure from error


class Bounds(TypedDict, total=False):
    """What every ``iterator()`` takes."""

    reverse: bool
    start: Bytes | None
    stop: Bytes | None
    include_start: bool
    include_stop: bool
    prefix: Bytes | None
    include_key: bool
    include_value: bool
    verify_checksums: bool
    fill_cache: bool


class Settings(TypedDict, total=False):
    """What :class:`DB` and :func:`repair_db` take."""

    paranoid_checks: bool | None
    write_buffer_size: int | None
    max_open_files: int | None
    lru_cache_size: int | None
    block_size: int | None
    block_restart_interval: int | None
    max_file_size: int | None
    compression: str | bytes | None
    bloom_filter_bits: int
    comparator: Callable[[bytes, bytes], int] | None
    comparator_name: bytes | None


def _directory(name: str | bytes) -> str:
    if not isinstance(name, (str, bytes)):
        raise TypeError("name must be a str or bytes")
    return os.fsdecode(name)


def _compression(given: str | bytes | None) -> str | None:
    name = given.decode() if isinstance(given, bytes) else given
    if name is not None and not isinstance(name, str):
        raise TypeError("compression must be None or a string")
    if name not in (None, "snappy"):
        raise ValueError("compression must be None or 'snappy'")
    return name


def _refuse_comparator(comparator: object, name: object) -> None:
    if (comparator is None) != (name is None):
        raise ValueError("comparator and comparator_name are given together or not at all")
    if comparator is None:
        return
    if not callable(comparator) or not isinstance(name, bytes):
        raise TypeError("a comparator is callable, its name is bytes")
    raise Error("custom comparators are not offered: keys are in the order of their bytes")


def _settings(given: Settings) -> dict[str, Any]:
    """The settings as kvstore takes them: LevelDB's defaults, quietly kept within bounds."""
    if unknown := set(given) - set(Settings.__annotations__):
        raise TypeError(f"there is no option {unknown.pop()!r}")
    _refuse_comparator(given.get("comparator"), given.get("comparator_name"))
    if not isinstance(given.get("bloom_filter_bits", 0), int):
        raise TypeError("bloom_filter_bits must be an int")
    settings: dict[str, Any] = {
        "compression": _compression(given.get("compression", "snappy")),
        "paranoid_checks": bool(given.get("paranoid_checks")),
        "bloom_filter_bits": given.get("bloom_filter_bits", 0),
        # LevelDB has one memtable that is written and one that is flushed.
        "max_write_buffers": 2,
    }
    for name, (least, most) in _BOUNDS.items():
        value = settings.get(name, given.get(name))
        value = _DEFAULTS.get(name) if value is None else value
        if value is None:
            continue
        if not isinstance(value, int):
            raise TypeError(f"{name} must be an int")
        settings[name] = min(max(value, least), most)
    return settings


def _open(name: str, settings: dict[str, Any], asked: bool) -> engine.DB:
    try:
        return engine.DB(name, **settings)
    except errors.ConfigurationError:
        # As LevelDB without its codec does: it writes blocks as they are.
        if asked:
            warnings.warn(
                f"no snappy here ({install_line('snappy')}): blocks are stored uncompressed",
                RuntimeWarning,
                stacklevel=3,
            )
    return engine.DB(name, **{**settings, "compression": None})


class DB:
    """plyvel's ``DB`` over a :class:`kvstore.DB`."""

    __slots__ = ("__weakref__", "_name", "_store")

    def __init__(
        self,
        name: str | bytes,
        *,
        create_if_missing: bool = False,
        error_if_exists: bool = False,
        **settings: Unpack[Settings],
    ) -> None:
        self._name = name
        path = _directory(name)
        options = {
            "create_if_missing": bool(create_if_missing),
            "error_if_exists": bool(error_if_exists),
            **_settings(settings),
        }
        try:
            self._store = _open(path, options, "compression" in settings)
        except errors.InvalidArgumentError as error:
            # LevelDB locks first, and finds out then that there is nothing.
            if os.path.isdir(path) and not os.access(path, os.W_OK | os.X_OK):
                raise IOError(f"no lock in {path}: permission denied") from error
            _fail(error)
        except errors.Error as error:
            _fail(error)

    @property
    def name(self) -> str | bytes:
        """The name as it was given."""
        return self._name

    @property
    def closed(self) -> bool:
        return self._store.closed

    def close(self) -> None:
        try:
            self._store.close()
        except errors.Error as error:
            _fail(error)

    def get(
        self,
        key: Bytes,
        default: Any = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> Any:
        try:
            return self._store.get(
                key, default, verify_checksums=verify_checksums, fill_cache=fill_cache
            )
        except errors.Error as error:
            _fail(error)

    def put(self, key: Bytes, value: Bytes, *, sync: bool = False) -> None:
        try:
            self._store.put(key, value, sync=sync)
        except errors.Error as error:
            _fail(error)

    def delete(self, key: Bytes, *, sync: bool = False) -> None:
        try:
            self._store.delete(key, sync=sync)
        except errors.Error as error:
            _fail(error)

    def write_batch(self, *, transaction: bool = False, sync: bool | None = False) -> WriteBatch:
        if self.closed:
            raise RuntimeError("the database is closed")
        return WriteBatch(self, None, transaction, sync)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def iterator(self, **bounds: Unpack[Bounds]) -> Iterator:
        return Iterator(self._store.iterator, bounds)

    def raw_iterator(
        self, *, verify_checksums: bool = False, fill_cache: bool = True
    ) -> RawIterator:
        return RawIterator(self._store.raw_iterator, fill_cache)

    def snapshot(self) -> Snapshot:
        return Snapshot(db=self)

    def get_property(self, name: bytes) -> bytes | None:
        if not isinstance(name, bytes):
            raise TypeError(f"name must be bytes, not {type(name).__name__}")
        try:
            return self._store.get_property(name)
        except errors.Error as error:
            _fail(error)

    def compact_range(self, *, start: Bytes | None = None, stop: Bytes | None = None) -> None:
        try:
            self._store.compact_range(start=start, stop=stop)
        except errors.Error as error:
            _fail(error)

    def approximate_size(self, start: Bytes, stop: Bytes) -> int:
        return self.approximate_sizes((start, stop))[0]

    def approximate_sizes(self, *ranges: tuple[Bytes, Bytes]) -> list[int]:
        try:
            return self._store.approximate_sizes(*ranges)
        except errors.Error as error:
            _fail(error)

    def prefixed_db(self, prefix: bytes) -> PrefixedDB:
        return PrefixedDB(db=self, prefix=prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " (closed)" if self.closed else ""
        return f"<{__name__}.DB with name {self._name!r}{state} at {id(self):#x}>"


class PrefixedDB:
    """plyvel's ``PrefixedDB``: the keys of :attr:`db` under :attr:`prefix`, shown without it."""

    __slots__ = ("_db", "_view")

    def __init__(self, *, db: DB, prefix: bytes) -> None:
        self._db = db
        self._view = db._store.prefixed_db(prefix)

    @property
    def db(self) -> DB:
        """The database below, never itself a PrefixedDB."""
        return self._db

    @property
    def prefix(self) -> bytes:
        return self._view.prefix

    def get(
        self,
        key: Bytes,
        default: Any = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> Any:
        try:
            return self._view.get(
                key, default, verify_checksums=verify_checksums, fill_cache=fill_cache
            )
        except errors.Error as error:
            _fail(error)

    def put(self, key: Bytes, value: Bytes, *, sync: bool = False) -> None:
        try:
            self._view.put(key, value, sync=sync)
        except errors.Error as error:
            _fail(error)

    def delete(self, key: Bytes, *, sync: bool = False) -> None:
        try:
            self._view.delete(key, sync=sync)
        except errors.Error as error:
            _fail(error)

    def write_batch(self, *, transaction: bool = False, sync: bool | None = False) -> WriteBatch:
        return WriteBatch(self._db, self.prefix, transaction, sync)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def iterator(self, **bounds: Unpack[Bounds]) -> Iterator:
        return Iterator(self._view.iterator, bounds)

    def snapshot(self) -> Snapshot:
        return Snapshot(db=self._db, prefix=self.prefix)

    def prefixed_db(self, prefix: bytes) -> PrefixedDB:
        return PrefixedDB(db=self._db, prefix=self.prefix + prefix)

    def __repr__(self) -> str:
        return f"<{__name__}.PrefixedDB with prefix {self.prefix!r} at {id(self):#x}>"


class WriteBatch:
    """plyvel's ``WriteBatch``: as a context manager it writes at the end, and is empty then."""

    __slots__ = ("_batch", "_prefix", "_store", "_sync", "_transaction")

    def __init__(self, db: DB, prefix: bytes | None, transaction: bool, sync: bool | None) -> None:
        self._store = db._store
        self._prefix = prefix or b""
        self._transaction = transaction
        self._sync = bool(sync)
        self._batch = engine.WriteBatch()

    def _check(self) -> None:
        if self._store.closed:
            raise RuntimeError("the database is closed")

    def put(self, key: Bytes, value: Bytes) -> None:
        self._check()
        try:
            self._batch.put(self._prefix + key if self._prefix else key, value)
        except errors.Error as error:
            _fail(error)

    def delete(self, key: Bytes) -> None:
        self._check()
        try:
            self._batch.delete(self._prefix + key if self._prefix else key)
        except errors.Error as error:
            _fail(error)

    def clear(self) -> None:
        self._check()
        self._batch.clear()

    def append(self, source: WriteBatch) -> None:
        self._check()
        if not isinstance(source, WriteBatch):
            raise TypeError(f"source must be a WriteBatch, not {type(source).__name__}")
        try:
            self._batch.append(source._batch)
        except errors.Error as error:
            _fail(error)

    def approximate_size(self) -> int:
        self._check()
        return self._batch.approximate_size()

    def write(self) -> None:
        """Write it; the operations stay in it."""
        try:
            self._store.write(self._batch, sync=self._sync)
        except errors.Error as error:
            _fail(error)

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._transaction or kind is None:
            self.write()
        self.clear()


class Iterator:
    """plyvel's ``Iterator``: start and stop are the lower and the upper bound, reversed or not."""

    __slots__ = ("__weakref__", "_entries", "_next", "_reverse")

    def __init__(self, make: Callable[..., engine.Iterator], bounds: Bounds) -> None:
        try:
            self._entries = make(**bounds)
        except errors.Error as error:
            _fail(error)
        self._next = self._entries.next
        self._reverse = bool(bounds.get("reverse"))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._next()
        except errors.Error as error:
            _fail(error)

    def prev(self) -> Any:
        try:
            return self._entries.prev()
        except errors.Error as error:
            _fail(error)

    def seek(self, target: Bytes) -> None:
        try:
            self._entries.seek(target)
        except errors.Error as error:
            _fail(error)

    def seek_to_start(self) -> None:
        """Stand before the lower bound, where a reversed iterator ends."""
        entries = self._entries
        try:
            entries.seek_to_stop() if self._reverse else entries.seek_to_start()
        except errors.Error as error:
            _fail(error)

    def seek_to_stop(self) -> None:
        """Stand behind the upper bound, where a reversed iterator begins."""
        entries = self._entries
        try:
            entries.seek_to_start() if self._reverse else entries.seek_to_stop()
        except errors.Error as error:
            _fail(error)

    def close(self) -> None:
        self._entries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RawIterator:
    """plyvel's ``RawIterator``."""

    __slots__ = ("__weakref__", "_cursor")

    def __init__(self, make: Callable[..., engine.RawIterator], fill_cache: bool) -> None:
        try:
            self._cursor = make(fill_cache=fill_cache)
        except errors.Error as error:
            _fail(error)

    def valid(self) -> bool:
        try:
            return self._cursor.valid()
        except errors.Error as error:
            _fail(error)

    def seek_to_first(self) -> None:
        try:
            self._cursor.seek_to_first()
        except errors.Error as error:
            _fail(error)

    def seek_to_last(self) -> None:
        try:
            self._cursor.seek_to_last()
        except errors.Error as error:
            _fail(error)

    def seek(self, target: Bytes) -> None:
        try:
            self._cursor.seek(target)
        except errors.Error as error:
            _fail(error)

    def next(self) -> None:
        try:
            self._cursor.next()
        except errors.Error as error:
            _fail(error)

    def prev(self) -> None:
        try:
            self._cursor.prev()
        except errors.Error as error:
            _fail(error)

    def key(self) -> bytes:
        try:
            return self._cursor.key()
        except errors.Error as error:
            _fail(error)

    def value(self) -> bytes:
        try:
            return self._cursor.value()
        except errors.Error as error:
            _fail(error)

    def item(self) -> tuple[bytes, bytes]:
        try:
            return self._cursor.item()
        except errors.Error as error:
            _fail(error)

    def close(self) -> None:
        self._cursor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Snapshot:
    """plyvel's ``Snapshot``."""

    __slots__ = ("__weakref__", "_view", "_whole")

    def __init__(self, *, db: DB, prefix: bytes | None = None) -> None:
        try:
            self._whole = self._view = db._store.snapshot()
            if prefix:
                moment = self._whole.sequence
                self._view = db._store.prefixed_db(prefix).snapshot(sequence=moment)
        except errors.Error as error:
            _fail(error)

    def get(
        self,
        key: Bytes,
        default: Any = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> Any:
        try:
            return self._view.get(
                key, default, verify_checksums=verify_checksums, fill_cache=fill_cache
            )
        except errors.Error as error:
            _fail(error)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def iterator(self, **bounds: Unpack[Bounds]) -> Iterator:
        return Iterator(self._view.iterator, bounds)

    def raw_iterator(
        self, *, verify_checksums: bool = False, fill_cache: bool = True
    ) -> RawIterator:
        """Over the whole database, of a prefixed one's snapshot too."""
        return RawIterator(self._whole.raw_iterator, fill_cache)

    def close(self) -> None:
        self._view.close()
        self._whole.close()

    def release(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def repair_db(name: str | bytes, **settings: Unpack[Settings]) -> None:
    """As :func:`kvstore.repair_db`; the settings are checked, and change nothing."""
    path = _directory(name)
    _settings(settings)
    try:
        engine.repair_db(path)
    except errors.Error as error:
        _fail(error)


def destroy_db(name: str | bytes) -> None:
    """Remove a database. As in plyvel, what holds none is left alone without a word.

    But a directory of LevelDB's is an :class:`IOError`: it is meant, and is not removed.
    """
    path = _directory(name)
    try:
        engine.destroy_db(path)
    except errors.StorageError as error:
        nothing = error.code == errors.IntegrityCode.INVALID_MAGIC
        if not nothing or os.path.exists(os.path.join(path, "CURRENT")):
            _fail(error)
