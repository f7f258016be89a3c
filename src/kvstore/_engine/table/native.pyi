"""Types of the room table."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from kvstore._engine.files.native import FileSystem
from kvstore._engine.primitives.native import CursorFace

# block_face.pyx

Entry = tuple[bytes, int, int, bytes]

def build_block(entries: Sequence[Entry], restart_interval: int) -> bytes: ...

class BlockFace:
    def __init__(self, data: bytes) -> None: ...
    def check(self) -> None: ...
    def get(self, key: bytes, sequence: int) -> tuple[int, int, bytes] | None: ...
    def first(self) -> Entry | None: ...
    def last(self) -> Entry | None: ...
    def seek(self, key: bytes, sequence: int, kind: int = ...) -> Entry | None: ...
    def next(self) -> Entry | None: ...
    def prev(self) -> Entry | None: ...

def scan_table(
    file: TableFile, window_bytes: int, target: tuple[bytes, int] | None = None
) -> list[tuple[bytes, int, int, bytes, int]]: ...

class FilterFace:
    def __init__(self, keys: Sequence[bytes], bits_per_key: int) -> None: ...
    def __contains__(self, key: bytes) -> bool: ...
    def __len__(self) -> int: ...

class Pin:
    data: bytes
    def release(self) -> None: ...

def cache_put(cache: object, table_id: int, offset: int, data: bytes) -> Pin: ...
def cache_find(cache: object, table_id: int, offset: int) -> Pin | None: ...
def cache_wants(cache: object, table_id: int, offset: int, size: int) -> bool: ...
def cache_forget(cache: object, table_id: int) -> None: ...

# compression.pyx

def compression_of(name: str | None) -> int:
    """The number in frames of ``"none"`` (or ``None``), ``"lz4"``, ``"zstd"`` or ``"snappy"``.

    Raises InvalidArgumentError for any other name and ConfigurationError where neither the C
    library nor the Python package that does it is installed.
    """

def does_without_gil(name: str) -> bool:
    """Whether the codec's C library was found, so that it runs without the GIL."""

def only_packages(only: bool) -> None:
    """For tests: whether the Python packages do the work although the C libraries are there."""

def packed(name: str, data: bytes) -> bytes | None:
    """For tests: a payload as it would be stored; None where that doesn't save an eighth."""

def unpacked(name: str, data: bytes, raw_size: int) -> bytes:
    """For tests: the payload again; ValueError where it is not one of so many bytes."""

# sstable_salvage.pyx

class LostRange(NamedTuple):
    """Bytes of the file that check nowhere, and the user keys of the entries around them."""

    offset: int
    size: int
    after: bytes | None
    before: bytes | None

class Salvaged(NamedTuple):
    """What salvage_table found.

    ``summary`` is that of TableWriter.finish, with the internal keys that bound the fresh table;
    all three are None where nothing was whole, and there is no fresh table then.
    """

    file_id: bytes
    blocks: int
    entries: int
    lost: list[LostRange]
    summary: dict[str, Any] | None
    smallest: bytes | None
    largest: bytes | None
    range_deletes_lost: bool

def salvage_table(
    filesystem: FileSystem,
    path: str,
    file_number: int,
    target: str,
    target_number: int,
    *,
    file_id: bytes | None = ...,
    block_bytes: int = ...,
    restart_interval: int = ...,
    bloom_bits: int = ...,
    compression: str | None = ...,
) -> Salvaged:
    """Write a fresh table of all that is whole in a damaged one, which stays as it is.

    What is whole is proved by the checksums; entries keep their sequences. ``file_id`` is what the
    manifest says of the table, for the case that both of its ends are damaged. Raises
    CorruptionError where nothing can be proved (no id, another table, another format), StorageError
    where the disk fails.
    """

# table_file.pyx

class CacheFace:
    def __init__(self, capacity_bytes: int) -> None: ...
    def stats(self) -> dict[str, int]: ...

class TableFile:
    path: str
    def __init__(
        self,
        filesystem: FileSystem,
        path: str,
        file_number: int,
        cache: CacheFace | None = ...,
    ) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> TableFile: ...
    def __exit__(self, *exc: object) -> None: ...
    @property
    def properties(self) -> dict[str, int | bytes]: ...
    def meta(self, name: str) -> bytes | None: ...
    def get(self, key: bytes, sequence: int) -> tuple[int, bytes | None] | None: ...
    def cursor(self, *, fill_cache: bool = ..., read_ahead: int = ...) -> CursorFace: ...
    def verify(self) -> None: ...
    def offset_of(self, key: bytes, sequence: int) -> int: ...

class TableWriter:
    path: str
    def __init__(
        self,
        filesystem: FileSystem,
        path: str,
        file_number: int,
        *,
        block_bytes: int = ...,
        restart_interval: int = ...,
        bloom_bits: int = ...,
        compression: str | None = ...,
        file_id: bytes | None = ...,
    ) -> None: ...
    def add(self, key: bytes, sequence: int, kind: int, value: bytes) -> None: ...
    def add_meta(self, name: str, payload: bytes, *, may_be_skipped: bool = ...) -> None: ...
    def cover(
        self, smallest: bytes, largest: bytes, lowest: int, highest: int, count: int
    ) -> None: ...
    @property
    def bytes(self) -> int: ...
    def finish(self) -> dict[str, Any]: ...
    def discard(self) -> None: ...
