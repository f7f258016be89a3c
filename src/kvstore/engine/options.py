"""The options of a database: defaults, bounds and what each is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from kvstore.errors import InvalidArgumentError

__all__ = ["Options", "Settings"]

HISTORY_PREFIXES_MAX = 1024

COMPRESSIONS = (None, "none", "lz4", "zstd", "snappy")

_BOUNDS: dict[str, tuple[int, int]] = {
    "write_buffer_size": (64 << 10, 4 << 30),
    "max_write_buffers": (2, 64),
    "max_open_files": (16, 1 << 20),
    "lru_cache_size": (0, 1 << 40),
    "block_size": (256, 4 << 20),
    "block_restart_interval": (1, 1024),
    "max_file_size": (64 << 10, 4 << 30),
    "bloom_filter_bits": (0, 32),
    "level_size_base": (256 << 10, 1 << 40),
    "level_size_multiplier": (2, 100),
    "compaction_trigger": (2, 64),
    "compaction_threads": (1, 16),
    "compaction_rate_limit": (0, 1 << 40),
    "slowdown_files": (4, 256),
    "stop_files": (6, 512),
    "changes_kept_size": (0, 1 << 40),
    "changes_behind_size": (0, 1 << 40),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything :class:`kvstore.DB` can be told; sizes in bytes.

    The first block has LevelDB's names (as plyvel spells them), the second is ours.
    """

    create_if_missing: bool = True
    """Create the database if the directory is absent or empty."""
    error_if_exists: bool = False
    """Refuse a directory that already holds a database."""
    paranoid_checks: bool = False
    """Verify every byte of every table when opening."""
    read_only: bool = False
    """Write nothing into the directory: for a disk that is full or can't be written."""
    write_buffer_size: int = 64 << 20
    """A memtable that has grown to this is frozen and flushed."""
    max_open_files: int = 1000
    """Tables kept open at most."""
    lru_cache_size: int = 64 << 20
    """Uncompressed blocks kept in memory at most."""
    block_size: int = 4096
    """Target size of a data block before compression."""
    block_restart_interval: int = 16
    """Keys between two that are stored whole."""
    max_file_size: int = 32 << 20
    """A table that has grown to this is closed and the next begun."""
    compression: str | None = None
    """``None``, ``"lz4"``, ``"zstd"`` or ``"snappy"``, for data blocks that shrink by it."""
    bloom_filter_bits: int = 10
    """Bits a key in the filter of each table; 0 for none."""
    mmap_reads: bool = False
    """Look keys up in maps of the tables, without a call, a copy or the block cache: faster where
    the cache is smaller than the data. What it costs: docs/engine.md, "Mapped tables"."""

    history_prefixes: tuple[bytes, ...] | None = None
    """Of these keys alone ``retain_from`` keeps history; ``None``: of all, ``()``: of none."""
    wal: bool = True
    """Log each write; without, what was not flushed is gone after a crash or close."""
    write_through: bool = False
    """Hand each write to the operating system before it returns, so that it survives the process;
    else a thread does within about a millisecond (none without `background`)."""
    background: bool = True
    """Flush and compact on threads; without, inside the write that makes it necessary."""
    max_write_buffers: int = 4
    """Memtables in memory at most, the mutable one included; then writers wait for a flush."""
    level_size_base: int = 256 << 20
    """Size of level 1; each level below is `level_size_multiplier` times the one above it. The
    lowest one may have more: four times `compaction_trigger` write buffers."""
    level_size_multiplier: int = 10
    compaction_trigger: int = 4
    """Tables in level 0 that start a compaction; up to twice as many where they are few beside what
    they are to be merged with."""
    compaction_threads: int = 1
    compaction_rate_limit: int = 0
    """Bytes a second that compaction may write; 0 for no limit."""
    slowdown_files: int = 12
    """Tables in level 0 from which writers are held back, a little more with each table."""
    stop_files: int = 24
    """Tables in level 0 at which writers wait."""
    changes_kept_size: int = 0
    """So much of the log is kept at least, for feeds of the past (:meth:`kvstore.DB.changes`)."""
    changes_behind_size: int = 1 << 30
    """An open feed may be so far behind in the log; of one that is further, it lets go."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _BOUNDS:
                low, high = _BOUNDS[field.name]
                if isinstance(value, bool) or not isinstance(value, int):
                    raise TypeError(f"{field.name} must be an int, not {value!r}")
                if not low <= value <= high:
                    raise InvalidArgumentError(f"{field.name}={value} is outside [{low}, {high}]")
            elif field.name == "compression":
                if value is not None and not isinstance(value, str):
                    raise TypeError(f"compression must be a str or None, not {value!r}")
                if value not in COMPRESSIONS:
                    raise InvalidArgumentError(
                        f"compression={value!r}; expected None, 'lz4', 'zstd' or 'snappy'"
                    )
            elif field.name == "history_prefixes":
                _check_prefixes(value)
            elif not isinstance(value, bool):
                raise TypeError(f"{field.name} must be a bool, not {value!r}")
        if self.stop_files <= self.slowdown_files:
            raise InvalidArgumentError("stop_files must be larger than slowdown_files")
        if self.compaction_trigger > self.slowdown_files:
            # Else writers would wait for a compaction that isn't due.
            raise InvalidArgumentError("compaction_trigger must not be over slowdown_files")


def _check_prefixes(value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, tuple) or not all(type(prefix) is bytes for prefix in value):
        raise TypeError(f"history_prefixes must be a tuple of bytes or None, not {value!r}")
    if len(value) > HISTORY_PREFIXES_MAX:
        raise InvalidArgumentError(
            f"{len(value)} history_prefixes are over {HISTORY_PREFIXES_MAX}, the most there may be"
        )


class OtherSettings(TypedDict, total=False):
    """The fields of :class:`Options`, but the one that :class:`kvstore.DB` also takes by place."""

    error_if_exists: bool | None
    paranoid_checks: bool | None
    read_only: bool | None
    write_buffer_size: int | None
    max_open_files: int | None
    lru_cache_size: int | None
    block_size: int | None
    block_restart_interval: int | None
    max_file_size: int | None
    compression: str | None
    bloom_filter_bits: int | None
    mmap_reads: bool | None
    history_prefixes: tuple[bytes, ...] | None
    wal: bool | None
    write_through: bool | None
    background: bool | None
    max_write_buffers: int | None
    level_size_base: int | None
    level_size_multiplier: int | None
    compaction_trigger: int | None
    compaction_threads: int | None
    compaction_rate_limit: int | None
    slowdown_files: int | None
    stop_files: int | None
    changes_kept_size: int | None
    changes_behind_size: int | None


class Settings(OtherSettings, total=False):
    """The fields of :class:`Options` as keyword arguments; ``None`` stands for the default."""

    create_if_missing: bool | None


_NAMES = frozenset(field.name for field in fields(Options))


def options_of(settings: Mapping[str, Any]) -> Options:
    """Options from keyword arguments as :class:`kvstore.DB` takes them.

    ``None`` stands for the default, as in plyvel (for ``compression`` it means none). Raises
    TypeError for names that are no options and values of a wrong type, InvalidArgumentError for
    values out of bounds.
    """
    given = {}
    for name, value in settings.items():
        if name in ("comparator", "comparator_name"):
            if value is not None:
                raise InvalidArgumentError(
                    "custom comparators are not offered: keys are in the order of their bytes"
                )
        elif name not in _NAMES:
            raise TypeError(f"there is no option {name!r}; there are {', '.join(sorted(_NAMES))}")
        elif value is not None or name == "compression":
            given[name] = value
    return Options(**given)
