"""A checkpoint's files as one stream of bytes, to members and into backup files.

The stream is a header, then the files' contents one after the other (little-endian)::

    u32 "KVSN"   u32 version (1)   u32 number of files
    for each file: u16 size of its name, u64 size of the file, the name

Whoever carries the stream adds the checksums; inside, each block of each table has its own.
"""

from __future__ import annotations

import struct

from kvstore._engine.files.native import FileSystem
from kvstore.errors import CorruptionError, IntegrityCode

__all__ = ["CheckpointReader", "CheckpointWriter"]

FILES_MAX = 1 << 20
HEADER_BYTES_MAX = 64 << 20

_MAGIC = 0x4E53564B
_VERSION = 1
_HEAD = struct.Struct("<III")
_FILE = struct.Struct("<HQ")


class CheckpointReader:
    """The stream of the directory ``path``, whose files must not change any more."""

    def __init__(self, filesystem: FileSystem, path: str) -> None:
        """Take note of the files. Raises StorageError."""
        self._filesystem = filesystem
        self._path = path
        names = filesystem.names(path)
        self._files = [(name, filesystem.size(f"{path}/{name}")) for name in names]
        parts = [_HEAD.pack(_MAGIC, _VERSION, len(self._files))]
        for name, size in self._files:
            encoded = name.encode()
            parts.append(_FILE.pack(len(encoded), size) + encoded)
        self._header = b"".join(parts)
        self.total = len(self._header) + sum(size for _, size in self._files)
        """Bytes of the whole stream."""

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer only at the end. Raises StorageError."""
        size = min(size, self.total - offset)
        parts = [self._header[offset : offset + size]]
        got = len(parts[0])
        start = len(self._header)
        for name, length in self._files:
            if got == size:
                break
            inside = offset + got - start
            if inside < length:
                data = self._filesystem.read(
                    f"{self._path}/{name}", inside, min(size - got, length - inside)
                )
                parts.append(data)
                got += len(data)
            start += length
        return b"".join(parts)


class CheckpointWriter:
    """Makes files in the directory ``path`` of a stream of ``total`` bytes; see :meth:`write`.

    Without ``filesystem`` nothing is written: the stream is only looked at, and ``path`` names it.
    """

    def __init__(self, filesystem: FileSystem | None, path: str, total: int) -> None:
        self._filesystem = filesystem
        self._path = path
        self._total = total
        self._next = 0
        self._header = bytearray()
        self._header_bytes = 0
        self.files: list[tuple[str, int]] | None = None
        """Names and sizes; None while the stream's header isn't whole."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises CorruptionError for what makes no sense, StorageError."""
        offset = self._next
        self._next += len(data)
        if self.files is None:
            self._header += data
            self.files = self._parse_header()
            if self.files is None:
                if len(self._header) > HEADER_BYTES_MAX:
                    raise self._bad("snapshot with too many names", IntegrityCode.INVALID_RECORD)
                return
            offset = self._header_bytes
            data = bytes(self._header[self._header_bytes :])
            self._header = bytearray()
        start = self._header_bytes
        for name, size in self.files:
            inside = offset - start
            if data and 0 <= inside < size:
                here = data[: size - inside]
                if self._filesystem is not None:
                    self._filesystem.write(f"{self._path}/{name}", inside, here)
                data = data[len(here) :]
                offset += len(here)
            start += size
        if data:
            raise self._bad("bytes after the snapshot's last file", IntegrityCode.INVALID_RECORD)

    def finish(self) -> None:
        """All bytes are here. Raises CorruptionError when they are no whole stream."""
        if self.files is None or self._next != self._total:
            raise self._bad("snapshot without a header", IntegrityCode.TRUNCATED_RECORD)
        if self._filesystem is None:
            return
        for name, size in self.files:
            if size == 0:
                self._filesystem.write(f"{self._path}/{name}", 0, b"")

    def _parse_header(self) -> list[tuple[str, int]] | None:
        """The files, or None while the header isn't whole. Sets its size."""
        header = self._header
        if len(header) < _HEAD.size:
            return None
        magic, version, count = _HEAD.unpack_from(header)
        if magic != _MAGIC:
            raise self._bad("not a snapshot", IntegrityCode.INVALID_MAGIC)
        if version != _VERSION:
            raise self._bad(f"snapshot of version {version}", IntegrityCode.UNSUPPORTED_VERSION)
        if count > FILES_MAX:
            raise self._bad(f"snapshot of {count} files", IntegrityCode.INVALID_RECORD)
        at = _HEAD.size
        files: dict[str, int] = {}
        for _ in range(count):
            if at + _FILE.size > len(header):
                return None
            name_size, size = _FILE.unpack_from(header, at)
            at += _FILE.size
            if at + name_size > len(header):
                return None
            name = bytes(header[at : at + name_size]).decode(errors="replace")
            if not name or "/" in name or "\0" in name or name in (".", "..") or name in files:
                raise self._bad(
                    f"snapshot with a file named {name!r}", IntegrityCode.INVALID_RECORD
                )
            files[name] = size
            at += name_size
        if at + sum(files.values()) != self._total:
            raise self._bad("snapshot whose sizes don't add up", IntegrityCode.INVALID_RECORD)
        self._header_bytes = at
        return list(files.items())

    def _bad(self, message: str, code: IntegrityCode) -> CorruptionError:
        return CorruptionError(message, code=code, path=self._path)
