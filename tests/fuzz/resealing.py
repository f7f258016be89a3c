"""Checksums made right again after a change, so that what they guard is looked at as well."""

from __future__ import annotations

import hashlib
import struct
import zlib

from kvstore._engine.primitives.native import crc32c

__all__ = ["backup", "log", "manifest", "packet", "table", "two_copies"]

_U32 = struct.Struct("<I")


def _seal(data: bytearray, at: int, value: int) -> int:
    _U32.pack_into(data, at, value)
    return value


def log(content: bytes) -> bytes:
    """A segment: its header, and each record's checksums and chain as far as sizes lead."""
    data = bytearray(content)
    if len(data) < 128:
        return content
    seed = _seal(data, 124, crc32c(bytes(data[:124])))
    (chain,) = _U32.unpack_from(data, 24)
    at = 128
    while data[at : at + 2] == b"KR" and at + 48 <= len(data):
        (size,) = _U32.unpack_from(data, at + 4)
        if at + 48 + size > len(data):
            break
        _seal(data, at + 12, chain)
        _seal(data, at + 40, crc32c(bytes(data[at + 48 : at + 48 + size])))
        chain = _seal(data, at + 44, crc32c(bytes(data[at : at + 44]), seed))
        at += 48 + (size + 7) // 8 * 8
    return bytes(data)


def manifest(content: bytes) -> bytes:
    """A manifest: its header and its edits as far as sizes lead."""
    data = bytearray(content)
    if len(data) < 96:
        return content
    seed = _seal(data, 92, crc32c(bytes(data[:92])))
    at = 96
    while at + 20 <= len(data):
        (size,) = _U32.unpack_from(data, at)
        if at + 20 + size > len(data):
            break
        _seal(data, at + 4, crc32c(bytes(data[at + 20 : at + 20 + size]), seed))
        _seal(data, at + 16, crc32c(bytes(data[at : at + 16]), seed))
        at += 20 + size
    return bytes(data)


def table(content: bytes) -> bytes:
    """A table: header, frames as far as sizes lead, footer."""
    data = bytearray(content)
    if len(data) < 192:
        return content
    _seal(data, 92, crc32c(bytes(data[:92])))
    file_id, at, footer = bytes(data[48:64]), 96, len(data) - 96
    while at + 16 <= footer:
        (size,) = _U32.unpack_from(data, at + 4)
        if at + 16 + size > footer:
            break
        checked = file_id + struct.pack("<Q", at) + data[at : at + 12]
        _seal(data, at + 12, crc32c(bytes(checked + data[at + 16 : at + 16 + size])))
        at += 16 + size
    _seal(data, footer + 84, crc32c(bytes(data[footer : footer + 84])))
    return bytes(data)


def backup(content: bytes) -> bytes:
    """A backup: head, chunks as far as sizes lead, the hash of the whole."""
    data = bytearray(content)
    if len(data) < 16:
        return content
    (described,) = _U32.unpack_from(data, 12)
    at = 16 + described
    if at + 4 > len(data):
        return content
    _seal(data, at, crc32c(bytes(data[:at])))
    at += 4
    offset = 0
    while at + 8 <= len(data):
        (size,) = _U32.unpack_from(data, at)
        if size == 0 or at + 8 + size > len(data):
            break
        payload = bytes(data[at + 8 : at + 8 + size])
        _seal(data, at + 4, crc32c(payload, crc32c(struct.pack("<IQ", size, offset))))
        offset += size
        at += 8 + size
    if data[at : at + 4] == bytes(4):
        data[at + 4 :] = hashlib.sha256(data[: at + 4]).digest()
    return bytes(data)


def packet(content: bytes) -> bytes:
    """A packet between members: a message of the core, a part of a snapshot, or its progress."""
    data = bytearray(content)
    if len(data) >= 5:
        body = bytes(data[5:])
        # The core's messages are of an age before CRC-32C was in C.
        _seal(data, 1, zlib.crc32(body) if data[0] == 1 else crc32c(body))
    return bytes(data)


def two_copies(content: bytes) -> bytes:
    """A note of two slots, each with its checksum at its end."""
    data = bytearray(content)
    for at in range(0, len(data) - 511, 512):
        _seal(data, at + 508, crc32c(bytes(data[at : at + 508])))
    return bytes(data)
