"""A reader of format 2 made from docs/storage-format.md alone: no code of the engine is used.

It reads tables whose blocks are not compressed, and checks all that the document says must hold.
Slow and plain on purpose: the document and this file must say the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAGIC = b"\x89kvsst\r\n"
DATA, PARTITION, ROOT, META, META_INDEX = 1, 2, 3, 4, 5

Version = tuple[bytes, int, int, bytes]


class FormatError(Exception):
    """What was read is not what the document says."""


def need(condition: bool, what: str) -> None:
    if not condition:
        raise FormatError(what)


def _castagnoli() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _castagnoli()


def crc32c(data: bytes, value: int = 0) -> int:
    """Continued from what `value` was of the bytes before."""
    value ^= 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, the place after it)."""
    value, shift = 0, 0
    while True:
        need(at < len(data) and shift < 64, "varint")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def u64(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<Q", data, at)[0])


@dataclass
class Table:
    file_number: int
    file_id: bytes
    properties: dict[int, int | bytes]
    metas: dict[str, bytes]
    ranges: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)


# A separator: (user key, None) stands before every version of the key, else with a trailer.
Separator = tuple[bytes, int | None]


def is_below(key: bytes, trailer: int, separator: Separator) -> bool:
    """Whether an internal key is at or below the separator."""
    user_key, exact = separator
    if key != user_key:
        return key < user_key
    return exact is not None and trailer >= exact


def read_block(payload: bytes) -> list[Version]:
    entries, restarts, prefix, key_bytes = struct.unpack_from("<4I", payload)
    need(entries > 0 and restarts > 0, "block counts")
    heads = struct.unpack_from(f"<{restarts}Q", payload, 16)
    key_at = struct.unpack_from(f"<{restarts}I", payload, 16 + 8 * restarts)
    value_at = struct.unpack_from(f"<{restarts}I", payload, 16 + 12 * restarts)
    start = 16 + 16 * restarts
    keys, values = payload[start : start + key_bytes], payload[start + key_bytes :]
    found: list[Version] = []
    key, at, value_place, restart = b"", 0, 0, 0
    while at < len(keys):
        begins = at
        shared, at = varint(keys, at)
        unshared, at = varint(keys, at)
        value_bytes, at = varint(keys, at)
        if restart < restarts and key_at[restart] == begins:
            need(shared == 0 and value_at[restart] == value_place, "restart")
        need(shared <= len(key), "shared bytes")
        key = key[:shared] + keys[at : at + unshared]
        if restart < restarts and key_at[restart] == begins:
            head = key[prefix : prefix + 8].ljust(8, b"\0")
            need(heads[restart] == int.from_bytes(head, "big"), "head")
            restart += 1
        at += unshared
        trailer = u64(keys, at)
        at += 8
        value = values[value_place : value_place + value_bytes]
        need(len(value) == value_bytes, "value")
        value_place += value_bytes
        found.append((key, trailer >> 8, trailer & 0xFF, value))
    need(len(found) == entries and restart == restarts, "block entries")
    need(value_place == len(values), "value area")
    need(all(v[0][:prefix] == found[0][0][:prefix] for v in found), "prefix")
    return found


def read_index(payload: bytes, value_bytes: int) -> list[tuple[Separator, bytes]]:
    count, prefix, key_bytes, told = struct.unpack_from("<4I", payload)
    need(count > 0 and told == value_bytes, "index counts")
    heads = struct.unpack_from(f"<{count}Q", payload, 16)
    key_at = struct.unpack_from(f"<{count}I", payload, 16 + 8 * count)
    values_at = 16 + 12 * count
    shared_at = values_at + count * value_bytes
    shared = payload[shared_at : shared_at + prefix]
    keys = payload[shared_at + prefix :]
    need(len(keys) == key_bytes, "index size")
    found: list[tuple[Separator, bytes]] = []
    at = 0
    for slot in range(count):
        need(key_at[slot] == at, "index key place")
        flagged, at = varint(keys, at)
        size, exact = flagged >> 1, flagged & 1
        head = heads[slot].to_bytes(8, "big")
        need(not any(head[size:]), "index head")
        tail = keys[at : at + max(0, size - 8)]
        at += len(tail)
        user_key = shared + head[:size] + tail
        need(len(user_key) == prefix + size, "index key")
        trailer = None
        if exact:
            trailer = u64(keys, at)
            at += 8
        value = payload[values_at + slot * value_bytes : values_at + (slot + 1) * value_bytes]
        found.append(((user_key, trailer), value))
    need(at == len(keys), "index key area")
    return found


class TableReader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        header = data[:96]
        need(len(data) >= 192 and header[:8] == MAGIC, "magic")
        need(u32(header, 92) == crc32c(header[:92]), "header checksum")
        need(u32(header, 8) == 2, "version")
        need(u32(header, 20) == 0, "incompatible features")
        need(header[24] == 1 and header[25] == 1, "checksum kind, key order")
        need(not any(header[26:48]) and not any(header[72:92]), "reserved bytes")
        self.file_id = header[48:64]
        self.file_number = u64(header, 64)

    def frame(self, kind: int, offset: int, size: int) -> bytes:
        frame = self.data[offset : offset + size]
        need(len(frame) == size >= 16, "frame size")
        need(frame[0] == kind, "frame kind")
        need(frame[1] == 0, "this reader knows no codec")
        need(frame[2:4] == b"\0\0", "frame zeros")
        need(u32(frame, 4) == u32(frame, 8) == size - 16, "frame sizes")
        place = struct.pack("<Q", offset)
        need(
            u32(frame, 12) == crc32c(self.file_id + place + frame[:12] + frame[16:]),
            "frame checksum",
        )
        return frame[16:]

    def read(self) -> Table:
        end = len(self.data) - 96
        footer = self.data[end:]
        need(footer[88:] == MAGIC and u32(footer, 84) == crc32c(footer[:84]), "footer")
        need(footer[:16] == self.file_id and u64(footer, 16) == self.file_number, "footer's table")
        need(u64(footer, 24) == len(self.data) and u32(footer, 56) == 2, "footer")
        need(not any(footer[60:84]), "reserved bytes")
        root_at, meta_at = u64(footer, 32), u64(footer, 40)
        root_bytes, meta_bytes = u32(footer, 48), u32(footer, 52)
        need(meta_at + meta_bytes == end, "meta-index place")
        metas = self.metas(root_at + root_bytes, meta_at, meta_bytes)
        table = Table(self.file_number, self.file_id, properties(metas["properties"]), metas)
        if "range-deletes" in metas:
            table.ranges = range_deletes(metas["range-deletes"])
        need(table.properties.get(15, 0) == len(table.ranges), "number of range tombstones")
        if root_bytes:
            self.walk(table, root_at, root_bytes)
        self.check(table)
        return table

    def metas(self, start: int, at: int, size: int) -> dict[str, bytes]:
        payload = self.frame(META_INDEX, at, size)
        found: dict[str, bytes] = {}
        place, before = 0, ""
        while place < len(payload):
            length, place = varint(payload, place)
            name = payload[place : place + length].decode()
            place += length
            flags, offset, frame_bytes = struct.unpack_from("<BQI", payload, place)
            place += 13
            need(name > before and flags in (0, 1) and offset == start, "meta-index entry")
            found[name] = self.frame(META, offset, frame_bytes)
            start, before = offset + frame_bytes, name
        need(start == at, "a gap before the meta-index")
        return found

    def walk(self, table: Table, root_at: int, root_bytes: int) -> None:
        start = 96
        before: Separator | None = None
        for separator, value in read_index(self.frame(ROOT, root_at, root_bytes), 12):
            offset, size = struct.unpack("<QI", value)
            payload = self.frame(PARTITION, offset, size)
            filter_bytes, _, first = struct.unpack_from("<IIQ", payload)
            need(first == start and not any(payload[16:48]), "partition")
            for bound, ends in read_index(payload[48 + filter_bytes :], 4):
                end = first + u32(ends, 0)
                block = read_block(self.frame(DATA, start, end - start))
                for key, sequence, kind, _ in block:
                    trailer = sequence << 8 | kind
                    need(is_below(key, trailer, bound), "a key above its separator")
                    need(before is None or not is_below(key, trailer, before), "a key below it")
                table.versions += block
                start, before = end, bound
            need(start == offset and before == separator, "the partition's end")
            start = offset + size
        need(start == root_at, "a gap before the root")

    def check(self, table: Table) -> None:
        ordered = sorted(table.versions, key=lambda v: (v[0], -v[1], -v[2]))
        need(table.versions == ordered, "order of keys")
        told = table.properties
        need(told[1] == len(table.versions), "entries")
        need(told[2] == sum(kind == 0 for _, _, kind, _ in table.versions), "deletes")
        if not told.get(15):
            sequences = [version[1] for version in table.versions]
            need((told[3], told[4]) == (min(sequences), max(sequences)), "sequences")
            for tag, version in ((10, table.versions[0]), (11, table.versions[-1])):
                trailer = version[1] << 8 | version[2]
                need(told[tag] == version[0] + struct.pack("<Q", trailer), "bounds")


def properties(payload: bytes) -> dict[int, int | bytes]:
    found: dict[int, int | bytes] = {}
    at, before = 0, 0
    while at < len(payload):
        tag, at = varint(payload, at)
        size, at = varint(payload, at)
        value = payload[at : at + size]
        at += size
        need(tag > before and len(value) == size, "property")
        before = tag
        if tag in (10, 11):
            found[tag] = value
        elif tag <= 15 or tag & 0x40:
            found[tag], end = varint(value, 0)
            need(end == size, "property value")
        else:
            raise FormatError(f"unknown property {tag}")
    need(all(tag in found for tag in range(1, 12)), "properties that must be there")
    return found


def range_deletes(payload: bytes) -> list[tuple[bytes, bytes, int]]:
    """(start, stop, sequence) of each range tombstone."""
    found: list[tuple[bytes, bytes, int]] = []
    at = 4
    for _ in range(u32(payload, 0)):
        ends = []
        for _ in range(2):
            size, at = varint(payload, at)
            ends.append(payload[at : at + size])
            at += size
        sequence, at = varint(payload, at)
        need(ends[0] < ends[1] and at <= len(payload), "range tombstone")
        need(not found or found[-1][0] <= ends[0], "order of range tombstones")
        found.append((ends[0], ends[1], sequence))
    need(at == len(payload) and len(found) > 0, "range tombstones")
    return found


def read_table(data: bytes) -> Table:
    return TableReader(data).read()
