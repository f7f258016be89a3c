"""What lies in a pool's namespace, byte for byte (docs/beyond.md says why it is so).

======================  =============================================================
object                  what it holds
======================  =============================================================
``kvstore``             the marker: one pair, ``marker``
``clock``               the pool's clock: one pair, ``ms``
``sweep``               when values were last swept, by that clock: one pair, ``ms``
``b.<bucket>``          a bucket: pairs, see below; ``<bucket>`` is five digits, hexadecimal
``v.<bucket>.<name>``   a value that is too large for a pair, as the object's data, and one pair,
                        ``key``; ``<name>``: 12 digits of the time of the pool's clock, a dot, 16
                        random ones
======================  =============================================================

A key's bucket is 20 bits of its hash under the pool's salt. Numbers are little-endian. Pairs of a
bucket::

    h                the head
                     0   u32  CRC-32C of the bucket's number (u32) and what follows
                     4   u8   version (1)
                     5   u8   requests remembered here
                     6   u16  bytes of the object, all zero: with each turn that has a put it
                              is one more than before, for a full pool refuses what has more
                              bytes, and takes pairs without end; 0 after 65,535
                     8   u64  time of the newest request that was forgotten; 0: none was
                     16  u64  keys in the bucket
                     24  u64  number of the oldest page of requests
                     32  u64  number of the next one
                     40  u64  values from before this time that no key names may be swept away
                     48  32 * requests, oldest first: 16 bytes digest of the id, u64 word, u64 time

    k<key>           an entry
                     0   u32  CRC-32C of u16 size of the key, the key, and what follows
                     4   u8   kind: 1 the value follows; 2 it is an object's data:
                     5   u32  its size
                     9   u32  CRC-32C of u16 size of the key, the key, and the value
                     13  29   the object's ``<name>``

    q<digest>        a request that was moved out of the head; digest in hexadecimal
                     0   u32  CRC-32C of the bucket's number, the digest, and what follows
                     4   u64  word
                     12  u64  time

    t<number>        a page: which requests were moved out together; 16 digits, hexadecimal
                     0   u32  CRC-32C of the bucket's number, u64 the page's, and what follows
                     4   u64  time of its newest request
                     12  16 * digests

librados ends keys at NUL: in ``<key>`` 00 is written as 01 01, and 01 as 01 02, which keeps the
order. A word is :func:`kvstore.state.requests.word_of` the write's fingerprint, its lowest bit the
result. Times are milliseconds of the pool's clock (:mod:`kvstore.beyond.rados.pool_clock`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from kvstore._engine.primitives.native import crc32c
from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode
from kvstore.state.commands import DIGEST_BYTES

__all__ = [
    "BUCKET_BITS",
    "CLOCK_KEY",
    "CLOCK_NAME",
    "HEAD_KEY",
    "INLINE_BYTES_MAX",
    "MARKER_KEY",
    "MARKER_NAME",
    "PAGES_MAX",
    "PAGE_REQUESTS",
    "SIZE_END",
    "SWEEP_NAME",
    "VALUE_KEY",
    "YOUNG_MAX",
    "Apart",
    "Entry",
    "Head",
    "Marker",
    "Remembered",
    "bucket_name",
    "bucket_of",
    "check_value",
    "decode_clock",
    "decode_entry",
    "decode_head",
    "decode_marker",
    "decode_page",
    "decode_request",
    "encode_apart",
    "encode_clock",
    "encode_head",
    "encode_inline",
    "encode_marker",
    "encode_page",
    "encode_request",
    "entry_key",
    "key_of_entry",
    "new_value",
    "page_key",
    "parse_name",
    "request_key",
    "time_of_value",
    "value_checksum",
    "value_name",
]

BUCKET_BITS = 20
SALT_BYTES = 16
MARKER_NAME = b"kvstore"
MARKER_KEY = b"marker"
CLOCK_NAME = b"clock"
CLOCK_KEY = b"ms"
SWEEP_NAME = b"sweep"
VALUE_KEY = b"key"
HEAD_KEY = b"h"

INLINE_BYTES_MAX = 4096
"""A larger value is an object of its own."""

YOUNG_MAX = 64
"""Requests in a bucket's head."""
PAGE_REQUESTS = 32
"""Of them, those that leave it together."""
PAGES_MAX = 2048
"""Of a bucket: 65,536 requests."""

SIZE_END = 1 << 16
"""A bucket's object has fewer bytes."""

VERSION = 1

_MAGIC = b"kvrados\n"
_INLINE, _OUTSIDE = b"\1", b"\2"
_CRC = struct.Struct("<I")
_MARKER = struct.Struct("<8sIB3x16s16s")
_HEAD = struct.Struct("<BBHQQQQQ")
_REQUEST = struct.Struct("<16sQQ")
_APART = struct.Struct("<II29s")
_WORD = struct.Struct("<QQ")
_U64 = struct.Struct("<Q")
_BUCKET = struct.Struct("<I")
_PAGE = struct.Struct("<IQ")
_KEY = struct.Struct("<H")
_OBJECT = re.compile(rb"(?:b\.([0-9a-f]{5})|v\.([0-9a-f]{5})\.([0-9a-f]{12}\.[0-9a-f]{16}))")


class Marker(NamedTuple):
    """What a namespace was made as. ``salt`` is its hash's, ``store`` its own name."""

    salt: bytes
    store: bytes


class Remembered(NamedTuple):
    """A request that was done: see :func:`kvstore.state.requests.word_of`."""

    digest: bytes
    word: int
    time_ms: int


class Apart(NamedTuple):
    """Where a value is that has an object of its own."""

    size: int
    checksum: int
    name: bytes


Entry = bytes | Apart
"""A value, or where it is."""


@dataclass(slots=True)
class Head:
    """What a bucket says of itself. ``first_page`` to ``next_page``: pages that are there.

    ``size``: bytes of its object. ``swept_ms``: values that are no younger may be gone unless a key
    names them. ``young``: its requests, oldest first, as they are stored: most
    turns look for one of them.
    """

    forgotten_ms: int = 0
    keys: int = 0
    first_page: int = 0
    next_page: int = 0
    size: int = 0
    swept_ms: int = 0
    young: bytes = b""

    def __len__(self) -> int:
        return len(self.young) // _REQUEST.size

    def find(self, digest: bytes) -> int | None:
        """The word of a request; None where it isn't among these."""
        at = self.young.find(digest)
        while at >= 0:
            place, rest = divmod(at, _REQUEST.size)
            if not rest:
                return self.request(place).word
            at = self.young.find(digest, at + 1)
        return None

    def request(self, place: int) -> Remembered:
        """One of them."""
        return Remembered(*_REQUEST.unpack_from(self.young, place * _REQUEST.size))

    def add(self, requests: Sequence[Remembered]) -> None:
        """They are the youngest from now on."""
        self.young += b"".join([_REQUEST.pack(*each) for each in requests])

    def grow(self) -> None:
        """Have one byte more."""
        self.size = (self.size + 1) % SIZE_END

    def take(self, count: int) -> list[Remembered]:
        """Take the oldest ones out."""
        size = count * _REQUEST.size
        taken = [Remembered(*each) for each in _REQUEST.iter_unpack(self.young[:size])]
        self.young = self.young[size:]
        return taken


def bucket_of(key: bytes, salt: bytes) -> int:
    """The number of a key's bucket."""
    digest = blake2b(key, digest_size=4, key=salt).digest()
    return int.from_bytes(digest, "little") >> (32 - BUCKET_BITS)


def bucket_name(bucket: int) -> bytes:
    """The object of a bucket."""
    return b"b.%05x" % bucket


def value_name(bucket: int, name: bytes) -> bytes:
    """The object of a value."""
    return b"v.%05x.%b" % (bucket, name)


def new_value(time_ms: int, draw: bytes) -> bytes:
    """A name for a value that is written at ``time_ms``; ``draw``: 8 random bytes."""
    return b"%012x.%b" % (time_ms, draw.hex().encode())


def time_of_value(name: bytes) -> int:
    """When a value was written, by the pool's clock."""
    return int(name[:12], 16)


def parse_name(name: bytes) -> tuple[int, bytes] | None:
    """The bucket of an object, and its name if it is a value (else b""); None for other objects."""
    found = _OBJECT.fullmatch(name)
    return None if found is None else (int(found[1] or found[2], 16), found[3] or b"")


def entry_key(key: bytes) -> bytes:
    """Under which a bucket has a key's entry."""
    if b"\0" in key or b"\1" in key:
        key = key.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")
    return b"k" + key


def key_of_entry(pair: bytes) -> bytes:
    """The key of an entry's pair, which begins with ``k``."""
    key = pair[1:]
    return key.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1") if b"\1" in key else key


def request_key(digest: bytes) -> bytes:
    """Under which a bucket has a request that left its head."""
    return b"q" + digest.hex().encode()


def page_key(page: int) -> bytes:
    """Under which a bucket has a page of requests."""
    return b"t%016x" % page


def encode_inline(key: bytes, value: bytes) -> bytes:
    """The entry of a key with its value."""
    return _sealed(_keyed(key), _INLINE + value)


def encode_apart(key: bytes, apart: Apart) -> bytes:
    """The entry of a key whose value is an object's."""
    return _sealed(_keyed(key), _OUTSIDE + _APART.pack(apart.size, apart.checksum, apart.name))


def decode_entry(key: bytes, data: bytes) -> Entry:
    """What :func:`encode_inline` or :func:`encode_apart` made. Raises CorruptionError."""
    body = _unsealed(_keyed(key), data, "an entry")
    if body[:1] == _INLINE:
        return body[1:]
    if body[:1] == _OUTSIDE and len(body) == 1 + _APART.size:
        return Apart(*_APART.unpack_from(body, 1))
    raise CorruptionError("an entry of an unknown kind", code=IntegrityCode.UNSUPPORTED_VERSION)


def value_checksum(key: bytes, value: bytes) -> int:
    """Of a value that has an object of its own."""
    return crc32c(value, _keyed(key))


def check_value(key: bytes, apart: Apart, data: bytes) -> None:
    """Raise CorruptionError unless ``data`` is the value that ``apart`` is of."""
    if len(data) != apart.size:
        raise CorruptionError(
            f"a value of {apart.size} bytes has {len(data)}", code=IntegrityCode.TRUNCATED_RECORD
        )
    if value_checksum(key, data) != apart.checksum:
        raise CorruptionError("a value is damaged", code=IntegrityCode.CHECKSUM_MISMATCH)


def encode_head(bucket: int, head: Head) -> bytes:
    """What a bucket says of itself."""
    body = _HEAD.pack(
        VERSION,
        len(head),
        head.size,
        head.forgotten_ms,
        head.keys,
        head.first_page,
        head.next_page,
        head.swept_ms,
    )
    return _sealed(_numbered(bucket), body + head.young)


def decode_head(bucket: int, data: bytes) -> Head:
    """What :func:`encode_head` made. Raises CorruptionError."""
    body = _unsealed(_numbered(bucket), data, "a bucket's head")
    if body[:1] != bytes([VERSION]):
        raise CorruptionError(
            "a bucket's head of an unknown version", code=IntegrityCode.UNSUPPORTED_VERSION
        )
    if len(body) < _HEAD.size:
        raise CorruptionError("a bucket's head cut short", code=IntegrityCode.TRUNCATED_RECORD)
    _, count, size, forgotten_ms, keys, first_page, next_page, swept_ms = _HEAD.unpack_from(body)
    if len(body) != _HEAD.size + count * _REQUEST.size or first_page > next_page:
        raise CorruptionError(
            "a bucket's head contradicts itself", code=IntegrityCode.INVALID_RECORD
        )
    return Head(forgotten_ms, keys, first_page, next_page, size, swept_ms, body[_HEAD.size :])


def encode_request(bucket: int, request: Remembered) -> bytes:
    """A request that leaves its bucket's head."""
    return _sealed(_numbered(bucket, request.digest), _WORD.pack(request.word, request.time_ms))


def decode_request(bucket: int, digest: bytes, data: bytes) -> Remembered:
    """What :func:`encode_request` made. Raises CorruptionError."""
    body = _unsealed(_numbered(bucket, digest), data, "a request")
    if len(body) != _WORD.size:
        raise CorruptionError("a request cut short", code=IntegrityCode.TRUNCATED_RECORD)
    return Remembered(digest, *_WORD.unpack(body))


def encode_page(bucket: int, page: int, requests: Sequence[Remembered]) -> bytes:
    """Requests that leave a bucket's head together, oldest first."""
    body = _U64.pack(requests[-1].time_ms) + b"".join([each.digest for each in requests])
    return _sealed(_numbered(bucket, _U64.pack(page)), body)


def decode_page(bucket: int, page: int, data: bytes) -> tuple[int, list[bytes]]:
    """The time of a page's newest request, and the digests. Raises CorruptionError."""
    body = _unsealed(_numbered(bucket, _U64.pack(page)), data, "a page of requests")
    count, rest = divmod(len(body) - _U64.size, DIGEST_BYTES)
    if count < 1 or rest:
        raise CorruptionError("a page of requests cut short", code=IntegrityCode.TRUNCATED_RECORD)
    (time_ms,) = _U64.unpack_from(body)
    places = range(_U64.size, len(body), DIGEST_BYTES)
    return time_ms, [body[place : place + DIGEST_BYTES] for place in places]


def encode_clock(time_ms: int) -> bytes:
    """The pool's clock."""
    return _sealed(crc32c(CLOCK_NAME), _U64.pack(time_ms))


def decode_clock(data: bytes) -> int:
    """What :func:`encode_clock` made. Raises CorruptionError."""
    body = _unsealed(crc32c(CLOCK_NAME), data, "the pool's clock")
    if len(body) != _U64.size:
        raise CorruptionError("the pool's clock cut short", code=IntegrityCode.TRUNCATED_RECORD)
    (time_ms,) = _U64.unpack(body)
    return int(time_ms)


def encode_marker(marker: Marker) -> bytes:
    """What says that a namespace is one of ours."""
    return _sealed(0, _MARKER.pack(_MAGIC, VERSION, BUCKET_BITS, marker.salt, marker.store))


def decode_marker(data: bytes) -> Marker:
    """What :func:`encode_marker` made. Raises CorruptionError, and ConfigurationError for what is
    none of ours, or of a later version."""
    at = _CRC.size + len(_MAGIC)
    if data[_CRC.size : at] != _MAGIC:
        raise ConfigurationError("its marker is none of kvstore's")
    version = int.from_bytes(data[at : at + 4], "little")
    if version > VERSION:
        raise ConfigurationError(
            f"its format is version {version}; this kvstore knows up to {VERSION}"
        )
    body = _unsealed(0, data, "the marker")
    if version != VERSION or len(body) != _MARKER.size or body[12] != BUCKET_BITS:
        raise CorruptionError("the marker contradicts itself", code=IntegrityCode.INVALID_RECORD)
    _, _, _, salt, store = _MARKER.unpack(body)
    return Marker(salt, store)


def _keyed(key: bytes) -> int:
    """What checksums of a key's things begin with."""
    return crc32c(key, crc32c(_KEY.pack(len(key))))


def _numbered(bucket: int, more: bytes = b"") -> int:
    """What checksums of a bucket's things begin with."""
    return crc32c(more, crc32c(_BUCKET.pack(bucket)))


def _sealed(begun: int, body: bytes) -> bytes:
    return _CRC.pack(crc32c(body, begun)) + body


def _unsealed(begun: int, data: bytes, what: str) -> bytes:
    """The body of what was sealed so. Raises CorruptionError."""
    body = data[_CRC.size :]
    if not body:
        raise CorruptionError(f"{what} cut short", code=IntegrityCode.TRUNCATED_RECORD)
    if _CRC.unpack_from(data)[0] != crc32c(body, begun):
        raise CorruptionError(f"{what} is damaged", code=IntegrityCode.CHECKSUM_MISMATCH)
    return body
