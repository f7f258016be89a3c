"""Moving a snapshot from a leader to a follower: a checkpoint's files as one stream of bytes.

The stream is a header, then the files' contents one after the other (little-endian)::

    u32 "KVSN"   u32 version (1)   u32 number of files
    for each file: u16 size of its name, u64 size of the file, the name

It travels in parts, each with a checksum of its own. The receiver answers each part with the offset
up to which it has everything, so a lost or doubled part costs one part, and a transfer that was cut
goes on where it stopped. Inside, each block of each table has its checksum too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from kvstore._engine.file import FileSystem
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import SnapshotMeta
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.packets import SnapshotPart, SnapshotProgress

__all__ = ["PART_BYTES", "SnapshotReceiver", "SnapshotSender"]

PART_BYTES = 1 << 20
RESEND_TICKS = 5
"""A part without an answer for this long is sent again."""
SILENT_TICKS = 100
"""A transfer without any answer for this long has failed, or at the receiver: may be replaced."""
FILES_MAX = 1 << 20

_MAGIC = 0x4E53564B
_VERSION = 1
_HEAD = struct.Struct("<III")
_FILE = struct.Struct("<HQ")


@dataclass(slots=True)
class SnapshotSender:
    """One transfer under way. ``path`` is the checkpoint; removed with :meth:`finish`."""

    filesystem: FileSystem
    path: str
    sender: int
    to: int
    term: int
    meta: SnapshotMeta
    part_bytes: int = PART_BYTES
    offset: int = 0
    silent_ticks: int = 0
    _files: list[tuple[str, int]] = field(default_factory=list)
    _header: bytes = b""
    _total: int = 0

    def __post_init__(self) -> None:
        names = self.filesystem.names(self.path)
        self._files = [(name, self.filesystem.size(f"{self.path}/{name}")) for name in names]
        parts = [_HEAD.pack(_MAGIC, _VERSION, len(self._files))]
        for name, size in self._files:
            encoded = name.encode()
            parts.append(_FILE.pack(len(encoded), size) + encoded)
        self._header = b"".join(parts)
        self._total = len(self._header) + sum(size for _, size in self._files)

    @property
    def total(self) -> int:
        """Bytes of the whole stream."""
        return self._total

    def part(self) -> SnapshotPart:
        """What stands at :attr:`offset`. Raises StorageError."""
        data = self._read(self.offset, min(self.part_bytes, self._total - self.offset))
        return SnapshotPart(
            self.sender, self.to, self.term, self.meta, self._total, self.offset, data
        )

    def _read(self, offset: int, size: int) -> bytes:
        parts = [self._header[offset : offset + size]]
        got = len(parts[0])
        start = len(self._header)
        for name, length in self._files:
            if got == size:
                break
            inside = offset + got - start
            if inside < length:
                data = self.filesystem.read(
                    f"{self.path}/{name}", inside, min(size - got, length - inside)
                )
                parts.append(data)
                got += len(data)
            start += length
        return b"".join(parts)

    def answered(self, progress: SnapshotProgress) -> bool:
        """Note an answer; True when it moves the transfer on."""
        if progress.index != self.meta.index or progress.next > self._total:
            return False
        self.silent_ticks = 0
        if progress.next == self.offset:
            return False
        self.offset = progress.next
        return True

    @property
    def done(self) -> bool:
        """The receiver has everything."""
        return self.offset == self._total

    def tick(self) -> bool:
        """True when the part should be sent again."""
        self.silent_ticks += 1
        return self.silent_ticks % RESEND_TICKS == 0

    @property
    def failed(self) -> bool:
        """Nothing was heard for too long."""
        return self.silent_ticks >= SILENT_TICKS

    def finish(self) -> None:
        """Remove the checkpoint."""
        self.filesystem.remove_tree(self.path)


class SnapshotReceiver:
    """What a follower has of a snapshot. The state machine is untouched until all is verified."""

    def __init__(self, directory: MemberDirectory, verify: Callable[[str], None]) -> None:
        """``verify`` raises CorruptionError unless all in a directory is what it should be."""
        self._directory = directory
        self._verify = verify
        self._meta: SnapshotMeta | None = None
        self._sender = 0
        self._term = 0
        self._total = 0
        self._next = 0
        self._silent_ticks = 0
        self._path = ""
        self._header = bytearray()
        self._files: list[tuple[str, int]] | None = None
        self._header_bytes = 0

    def received(self, part: SnapshotPart) -> int:
        """The offset up to which everything of the snapshot of ``part`` is here.

        0 while another one is being received: its sender must not go on from there.
        """
        return self._next if self._belongs(part) else 0

    def tick(self) -> None:
        """One tick has passed."""
        self._silent_ticks += 1

    def take(self, part: SnapshotPart) -> bool:
        """Take a part; True when the snapshot became whole, durable and ready to be installed.

        Parts out of order are ignored. Raises CorruptionError for a snapshot that is damaged or
        makes no sense (what came of it is forgotten), StorageError when it can't be written.
        """
        if not self._belongs(part):
            if part.offset != 0 or not self._may_begin(part):
                return False
            self._begin(part)
        self._silent_ticks = 0
        if part.offset != self._next or self._next == self._total:
            return False
        try:
            self._write(part.data)
            self._next += len(part.data)
            if self._next < self._total:
                return False
            self._finish()
        except CorruptionError:
            self._meta = None
            self._next = 0
            raise
        self._directory.incoming_is_whole(part.meta.index)
        return True

    def _finish(self) -> None:
        """All bytes are here: are they a snapshot? Parts were checked, what was sent was not."""
        if self._files is None:
            raise _bad("snapshot without a header", IntegrityCode.TRUNCATED_RECORD)
        for name, size in self._files:
            if size == 0:
                self._directory.filesystem.write(f"{self._path}/{name}", 0, b"")
        self._verify(self._path)

    def _belongs(self, part: SnapshotPart) -> bool:
        return self._meta == part.meta and self._sender == part.sender and self._total == part.total

    def _may_begin(self, part: SnapshotPart) -> bool:
        """One at a time, unless it is finished, has gone silent, or this one is newer.

        The leader of a later term has a say as well: the one before sends nothing more.
        """
        return (
            self._meta is None
            or self._next == self._total
            or self._silent_ticks >= SILENT_TICKS
            or part.term > self._term
            or part.meta.index > self._meta.index
        )

    def _begin(self, part: SnapshotPart) -> None:
        self._path = self._directory.make_incoming()
        self._meta = part.meta
        self._sender = part.sender
        self._term = part.term
        self._total = part.total
        self._next = 0
        self._header = bytearray()
        self._files = None

    def _write(self, data: bytes) -> None:
        offset = self._next
        if self._files is None:
            self._header += data
            self._files = self._parse_header()
            if self._files is None:
                return
            offset = self._header_bytes
            data = bytes(self._header[self._header_bytes :])
            self._header = bytearray()
        start = self._header_bytes
        for name, size in self._files:
            inside = offset - start
            if data and 0 <= inside < size:
                here = data[: size - inside]
                self._directory.filesystem.write(f"{self._path}/{name}", inside, here)
                data = data[len(here) :]
                offset += len(here)
            start += size
        if data:
            raise _bad("bytes after the snapshot's last file", IntegrityCode.INVALID_RECORD)

    def _parse_header(self) -> list[tuple[str, int]] | None:
        """The files, or None while the header isn't whole. Sets its size."""
        header = self._header
        if len(header) < _HEAD.size:
            return None
        magic, version, count = _HEAD.unpack_from(header)
        if magic != _MAGIC:
            raise _bad("not a snapshot", IntegrityCode.INVALID_MAGIC)
        if version != _VERSION:
            raise _bad(f"snapshot of version {version}", IntegrityCode.UNSUPPORTED_VERSION)
        if count > FILES_MAX:
            raise _bad(f"snapshot of {count} files", IntegrityCode.INVALID_RECORD)
        at = _HEAD.size
        files = []
        for _ in range(count):
            if at + _FILE.size > len(header):
                return None
            name_size, size = _FILE.unpack_from(header, at)
            at += _FILE.size
            if at + name_size > len(header):
                return None
            name = bytes(header[at : at + name_size]).decode(errors="replace")
            if not name or "/" in name or "\0" in name or name in (".", ".."):
                raise _bad(f"snapshot with a file named {name!r}", IntegrityCode.INVALID_RECORD)
            files.append((name, size))
            at += name_size
        if at + sum(size for _, size in files) != self._total:
            raise _bad("snapshot whose sizes don't add up", IntegrityCode.INVALID_RECORD)
        self._header_bytes = at
        return files


def _bad(message: str, code: IntegrityCode) -> CorruptionError:
    return CorruptionError(message, code=code, path="a snapshot being received")
