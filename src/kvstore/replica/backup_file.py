"""The file that a snapshot is saved in, written and read as a stream (little-endian).

    head    "KVBACKUP"   u32 version (1)   u32 bytes of the description   the description
            u32 CRC-32C of all before
    chunk   u32 bytes of the payload, 1 to 1 MiB   u32 CRC-32C of those bytes' number (u32), their
            place in the stream (u64) and the payload   the payload
    end     u32 zero   SHA-256 of all before

    description   u64 index, u64 term, u64 revision, u32 hash of all applied, u64 member that saved
                  it, u64 time (Unix seconds), u64 bytes of the stream, u16 bytes of the cluster's
                  name, the name

    seal    where etcd's Snapshot gave the file, and only there: zeros up to a multiple of 512
            bytes, if any   SHA-256 of all before

The payloads together are the stream of a checkpoint (``checkpoint_stream``). A file that was cut,
changed, or put together from two is never taken for a snapshot.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kvstore._engine.primitives.native import crc32c
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.replica.checkpoint_stream import CheckpointWriter

__all__ = [
    "CHUNK_BYTES",
    "SEAL_BYTES",
    "BackupInfo",
    "BackupParser",
    "encode_backup",
    "read_backup",
    "sealed",
    "sealed_bytes",
]

CHUNK_BYTES = 1 << 20
DESCRIPTION_BYTES_MAX = 4096

_MAGIC = b"KVBACKUP"
_VERSION = 1
_HEAD = struct.Struct("<8sII")
_DESCRIPTION = struct.Struct("<QQQIQQQH")
_U32 = struct.Struct("<I")
_CHUNK = struct.Struct("<II")
_PLACE = struct.Struct("<IQ")
_DIGEST_BYTES = SEAL_BYTES = 32
_SEALED_MULTIPLE = 512
_TIME_MAX = 253_402_300_799


class BackupInfo(NamedTuple):
    """What a backup is of. ``index`` and ``term`` are the last applied entry's."""

    cluster: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    revision: int
    state_hash: int
    member: int
    saved_at: int
    stream_bytes: int


SinkOf = Callable[[BackupInfo], CheckpointWriter]


def encode_backup(
    info: BackupInfo, read: Callable[[int, int], bytes], *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """The file in pieces of a little over ``chunk_bytes``; ``read(offset, size)`` gives the stream.

    Raises what ``read`` raises.
    """
    cluster = info.cluster.encode()
    description = _DESCRIPTION.pack(*info[1:], len(cluster)) + cluster
    head = _HEAD.pack(_MAGIC, _VERSION, len(description)) + description
    head += _U32.pack(crc32c(head))
    digest = hashlib.sha256(head)
    yield head
    for offset in range(0, info.stream_bytes, chunk_bytes):
        payload = read(offset, min(chunk_bytes, info.stream_bytes - offset))
        chunk = _CHUNK.pack(len(payload), _checksum(offset, payload)) + payload
        digest.update(chunk)
        yield chunk
    end = _U32.pack(0)
    digest.update(end)
    yield end + digest.digest()


def sealed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a file, and those of its seal."""
    digest = hashlib.sha256()
    size = 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        yield piece
    padding = bytes(-size % _SEALED_MULTIPLE)
    digest.update(padding)
    yield padding + digest.digest()


def sealed_bytes(head: bytes) -> int:
    """Of the whole sealed file that begins with ``head``, the first piece of
    :func:`encode_backup`."""
    stream_bytes = _DESCRIPTION.unpack_from(head, _HEAD.size)[6]
    chunks = -(-stream_bytes // CHUNK_BYTES)
    size: int = len(head) + stream_bytes + chunks * _CHUNK.size + _U32.size + _DIGEST_BYTES
    return size + -size % _SEALED_MULTIPLE + SEAL_BYTES


def _checksum(offset: int, payload: bytes) -> int:
    return crc32c(payload, crc32c(_PLACE.pack(len(payload), offset)))


class BackupParser:
    """Takes a file's bytes as they come and hands its stream on, checked.

    :meth:`feed` and :meth:`finish` raise CorruptionError with file, offset and code at the first
    byte that can't be right. Only after :meth:`finish` is anything that was handed on good.
    """

    def __init__(self, path: str, sink_of: SinkOf | None = None) -> None:
        """``sink_of`` gives, once it is known what the backup is of, where its stream goes; without
        it everything is checked and nothing written. ``path`` names the file in errors."""
        self._path = path
        self._sink_of = sink_of or (lambda info: CheckpointWriter(None, path, info.stream_bytes))
        self._sink: CheckpointWriter | None = None
        self._digest = hashlib.sha256()
        self._sealed = False
        self._buffer = bytearray()
        self._at = 0  # of the buffer's first byte, in the file
        self._offset = 0  # in the stream
        self._ended = False
        self.info: BackupInfo | None = None
        """What the backup is of; None while the head isn't whole."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> BackupInfo:
        """The file ends here: was it whole?"""
        if not self._ended or self._buffer:
            raise self._bad("snapshot file cut short", IntegrityCode.TRUNCATED_RECORD)
        assert self.info is not None, "the head comes before the end"
        assert self._sink is not None, "made with the info"
        self._sink.finish()
        return self.info

    def _step(self) -> bool:
        """Take one part from the buffer; False while it isn't whole."""
        if self.info is None:
            return self._take_head()
        if self._ended:
            return self._take_seal()
        if len(self._buffer) < _U32.size:
            return False
        (size,) = _U32.unpack_from(self._buffer)
        return self._take_chunk(size) if size else self._take_end()

    def _take_head(self) -> bool:
        buffer = self._buffer
        if buffer[: len(_MAGIC)] != _MAGIC[: len(buffer)]:
            raise self._bad("not a snapshot file", IntegrityCode.INVALID_MAGIC)
        if len(buffer) < _HEAD.size:
            return False
        _, version, size = _HEAD.unpack_from(buffer)
        if version != _VERSION:
            raise self._bad(
                f"snapshot file of version {version}; this kvstore knows {_VERSION}",
                IntegrityCode.UNSUPPORTED_VERSION,
            )
        if not _DESCRIPTION.size <= size <= DESCRIPTION_BYTES_MAX:
            raise self._bad(f"description of {size} bytes", IntegrityCode.INVALID_RECORD)
        end = _HEAD.size + size
        if len(buffer) < end + _U32.size:
            return False
        if _U32.unpack_from(buffer, end)[0] != crc32c(buffer[:end]):
            raise self._bad("checksum does not match", IntegrityCode.CHECKSUM_MISMATCH)
        *fields, name_size = _DESCRIPTION.unpack_from(buffer, _HEAD.size)
        name = bytes(buffer[_HEAD.size + _DESCRIPTION.size : end])
        if len(name) != name_size:
            raise self._bad("name of another length", IntegrityCode.INVALID_RECORD)
        self.info = BackupInfo(name.decode(errors="replace"), *fields)
        if self.info.saved_at > _TIME_MAX:
            raise self._bad("time after the year 9999", IntegrityCode.INVALID_RECORD)
        self._sink = self._sink_of(self.info)
        self._take(end + _U32.size)
        return True

    def _take_chunk(self, size: int) -> bool:
        assert self.info is not None, "the head comes first"
        assert self._sink is not None, "made with the info"
        if size > CHUNK_BYTES or self._offset + size > self.info.stream_bytes:
            raise self._bad(f"chunk of {size} bytes", IntegrityCode.INVALID_RECORD)
        if len(self._buffer) < _CHUNK.size + size:
            return False
        _, checksum = _CHUNK.unpack_from(self._buffer)
        payload = bytes(self._buffer[_CHUNK.size : _CHUNK.size + size])
        if checksum != _checksum(self._offset, payload):
            raise self._bad("checksum does not match", IntegrityCode.CHECKSUM_MISMATCH)
        self._sink.write(payload)
        self._offset += size
        self._take(_CHUNK.size + size)
        return True

    def _take_end(self) -> bool:
        assert self.info is not None, "the head comes first"
        if len(self._buffer) < _U32.size + _DIGEST_BYTES:
            return False
        self._take(_U32.size)
        if bytes(self._buffer[:_DIGEST_BYTES]) != self._digest.digest():
            raise self._bad(
                "the whole file's checksum does not match", IntegrityCode.CHECKSUM_MISMATCH
            )
        if self._offset != self.info.stream_bytes:
            raise self._bad("snapshot that ends too early", IntegrityCode.TRUNCATED_RECORD)
        self._take(_DIGEST_BYTES)
        self._ended = True
        return True

    def _take_seal(self) -> bool:
        """What may come after the end, once."""
        buffer = self._buffer
        padding = -self._at % _SEALED_MULTIPLE
        if self._sealed or any(buffer[:padding]):
            if buffer:
                raise self._bad("bytes after the end", IntegrityCode.INVALID_RECORD)
            return False
        if len(buffer) < padding + _DIGEST_BYTES:
            return False
        self._take(padding)
        if bytes(buffer[:_DIGEST_BYTES]) != self._digest.digest():
            raise self._bad("the seal does not match", IntegrityCode.CHECKSUM_MISMATCH)
        self._take(_DIGEST_BYTES)
        self._sealed = True
        return True

    def _take(self, size: int) -> None:
        self._digest.update(self._buffer[:size])
        del self._buffer[:size]
        self._at += size

    def _bad(self, message: str, code: IntegrityCode) -> CorruptionError:
        return CorruptionError(message, code=code, path=self._path, offset=self._at)


def read_backup(path: str, sink_of: SinkOf | None = None) -> BackupInfo:
    """Read and check the whole file ``path``; see :class:`BackupParser`.

    Raises CorruptionError, and StorageError for what can't be read or written.
    """
    parser = BackupParser(path, sink_of)
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(CHUNK_BYTES):
                parser.feed(piece)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"failed to read: {error.strerror}", path=path, errno=error.errno
        ) from error
    return parser.finish()
