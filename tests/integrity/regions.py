"""What each byte of a file is for, by docs/storage-format.md alone: no code of the engine is used.

A region's name has the kind of file before the colon. Those in ``EXHAUSTIVE`` have every byte
damaged; of the others the edges and a sample.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Region", "is_exhaustive", "kind_of_file", "regions"]


class Region(NamedTuple):
    """Bytes ``start`` to ``stop`` (not included) of a file."""

    start: int
    stop: int
    name: str


EXHAUSTIVE = frozenset(
    {
        "log: segment header",
        "log: record header",
        "log: padding",
        "log: end",
        "table: header",
        "table: frame header",
        "table: root",
        "table: properties and meta-index",
        "table: footer",
        "manifest: header",
        "manifest: edit header",
        "manifest: edit",
        "manifest: last edit",
        "backup: head",
        "backup: chunk header",
        "backup: end",
    }
)

SMALL_FILE_BYTES = 4096
"""Files of no other kind are damaged at every byte up to this size."""

_LOG_HEADER, _RECORD_HEADER, _END_MARK = 128, 48, 8
_TABLE_ENDS, _FRAME_HEADER = 96, 16
_MANIFEST_HEADER, _EDIT_HEADER = 96, 20
_FRAMES = {
    1: "table: data",
    2: "table: filter and partition index",
    3: "table: root",
    4: "table: properties and meta-index",
    5: "table: properties and meta-index",
}


def kind_of_file(path: str) -> str:
    """What kind of file it is, by its name."""
    name = path.rpartition("/")[2]
    for ending, kind in (
        (".wal", "log"),
        (".spare", "spare"),
        (".sst", "table"),
        (".kvs", "backup"),
    ):
        if name.endswith(ending):
            return kind
    return "manifest" if name.startswith("MANIFEST-") else name


@functools.lru_cache(maxsize=512)
def regions(path: str, content: bytes) -> list[Region]:
    """The regions of a whole file, ascending, without gaps."""
    kind = kind_of_file(path)
    parse = {"log": _log, "table": _table, "manifest": _manifest, "backup": _backup}.get(kind)
    found = [Region(0, len(content), kind)] if parse is None else list(parse(content))
    return [region for region in found if region.start < region.stop]


def is_exhaustive(region: Region) -> bool:
    """Every byte of it is damaged, each in a case of its own."""
    if ":" in region.name:
        return region.name in EXHAUSTIVE
    unused = ("RESERVE", "spare")
    return region.name not in unused and region.stop - region.start <= SMALL_FILE_BYTES


def _log(content: bytes) -> Iterator[Region]:
    yield Region(0, min(_LOG_HEADER, len(content)), "log: segment header")
    at = _LOG_HEADER
    while content[at : at + 2] == b"KR" and at + _RECORD_HEADER <= len(content):
        (size,) = struct.unpack_from("<I", content, at + 4)
        payload = at + _RECORD_HEADER
        stop = payload + (size + 7) // 8 * 8
        yield Region(at, payload, "log: record header")
        yield Region(payload, payload + size, "log: payload")
        yield Region(payload + size, stop, "log: padding")
        at = stop
    end = min(at + _END_MARK, len(content))
    yield Region(at, end, "log: end")
    yield Region(end, len(content), "log: unused space")


def _table(content: bytes) -> Iterator[Region]:
    footer = len(content) - _TABLE_ENDS
    yield Region(0, _TABLE_ENDS, "table: header")
    at = _TABLE_ENDS
    while at < footer:
        kind = content[at]
        (size,) = struct.unpack_from("<I", content, at + 4)
        yield Region(at, at + _FRAME_HEADER, "table: frame header")
        yield Region(at + _FRAME_HEADER, at + _FRAME_HEADER + size, _FRAMES[kind])
        at += _FRAME_HEADER + size
    yield Region(footer, len(content), "table: footer")


def _manifest(content: bytes) -> Iterator[Region]:
    yield Region(0, _MANIFEST_HEADER, "manifest: header")
    at = _MANIFEST_HEADER
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        stop = at + _EDIT_HEADER + size
        if stop >= len(content):
            yield Region(at, len(content), "manifest: last edit")
        else:
            yield Region(at, at + _EDIT_HEADER, "manifest: edit header")
            yield Region(at + _EDIT_HEADER, stop, "manifest: edit")
        at = stop


def _backup(content: bytes) -> Iterator[Region]:
    (described,) = struct.unpack_from("<I", content, 12)
    at = 16 + described + 4
    yield Region(0, at, "backup: head")
    while True:
        (size,) = struct.unpack_from("<I", content, at)
        if size == 0:
            break
        yield Region(at, at + 8, "backup: chunk header")
        yield Region(at + 8, at + 8 + size, "backup: payload")
        at += 8 + size
    yield Region(at, len(content), "backup: end")
