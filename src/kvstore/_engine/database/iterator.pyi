from collections.abc import Iterable
from typing import Any, Self

_Bytes = bytes | bytearray | memoryview

def joined(prefix: bytes, key: _Bytes) -> bytes:
    """``prefix + key`` for any bytes-like key; TypeError says what was wrong with it."""

def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key after all that begin with ``prefix``; None if there is none."""

class Iterator:
    """Walks a range of one moment.

    Stands between entries, as plyvel's: :meth:`__next__` returns the entry after the place and
    moves past it, :meth:`prev` the one before it and moves before it. One thread at a time; a
    second one is refused.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> Any:
        """The entry after the place; raises CorruptionError, StorageError, ClosedError."""
    def next(self) -> Any:
        """The same as ``next(iterator)``."""
    def prev(self) -> Any:
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

class Snapshot:
    """One moment of the database; reads what was there then until it is closed."""

    @property
    def sequence(self) -> int:
        """The sequence of the newest write that it sees."""
    def get(
        self,
        key: _Bytes,
        default: Any = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> Any:
        """As :meth:`DB.get`, of that moment."""
    def multi_get(self, keys: Iterable[_Bytes], default: Any = None) -> list[Any]:
        """As :meth:`DB.multi_get`, of that moment."""
    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: _Bytes) -> bytes: ...
    def __iter__(self) -> Iterator: ...
    def keys(self) -> Iterator:
        """All keys, in order."""
    def values(self) -> Iterator:
        """The values of all keys, in the order of the keys."""
    def items(self) -> Iterator:
        """All pairs, in the order of the keys."""
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
    ) -> Iterator:
        """As :meth:`DB.iterator`, of that moment. It outlives the snapshot."""
    def raw_iterator(
        self, *, verify_checksums: bool = False, fill_cache: bool = True
    ) -> RawIterator:
        """As :meth:`DB.raw_iterator`, of that moment; a prefixed snapshot has none."""
    def close(self) -> None:
        """Let go of the moment; any later use raises ClosedError. Closing twice is fine."""
    def release(self) -> None:
        """The same as :meth:`close`, by LevelDB's name."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
