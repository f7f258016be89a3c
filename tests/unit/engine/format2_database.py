"""A reader of databases of format 2, made from docs/storage-format.md alone.

IDENTITY, CURRENT, manifest, tables and log: what a user would see at the newest sequence. No
code of the engine is used. Tables are read by format2_reader.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.unit.engine.format2_reader import (
    Table,
    crc32c,
    need,
    read_table,
    u32,
    u64,
    varint,
)

SYNC_MARK, CLEAN_CLOSE = 240, 241
BATCH = 1
RANGE_DELETE = 2

Files = Mapping[str, bytes]


# --- IDENTITY and CURRENT -------------------------------------------------------------------


def read_identity(data: bytes) -> bytes:
    """The database's id."""
    body, _, check = data.rpartition(b"crc ")
    need(check == b"%08x\n" % crc32c(body), "identity checksum")
    lines = body.decode().splitlines()
    need(lines[:2] == ["kvstore engine", "format 2"], "identity")
    said = dict(line.split(" ", 1) for line in lines[2:])
    need(int(said["incompatible"], 16) == 0, "incompatible features")
    return bytes.fromhex(said["id"])


def read_current(data: bytes) -> str:
    name, check = data.rstrip(b"\n").split(b" ")
    need(data.endswith(b"\n") and check == b"%08x" % crc32c(name), "CURRENT")
    return name.decode()


# --- manifest -------------------------------------------------------------------------------


def fields(payload: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(payload):
        tag, at = varint(payload, at)
        size, at = varint(payload, at)
        need(at + size <= len(payload), "field")
        yield tag, payload[at : at + size]
        at += size


def number(content: bytes) -> int:
    value, end = varint(content, 0)
    need(end == len(content), "number")
    return value


@dataclass(frozen=True)
class Entry:
    level: int
    number: int
    file_bytes: int
    smallest: bytes
    largest: bytes
    file_id: bytes


@dataclass
class Manifest:
    numbers: dict[int, int] = field(default_factory=dict)  # tag -> the last value it had
    log_id: bytes | None = None
    tables: dict[tuple[int, int], Entry] = field(default_factory=dict)

    def apply(self, payload: bytes) -> None:
        for tag, content in fields(payload):
            if tag in (1, 2, 3, 4, 5, 9, 10, 11):
                self.numbers[tag] = number(content)
            elif tag == 6:
                level, at = varint(content, 0)
                table, end = varint(content, at)
                need(end == len(content), "removed table")
                del self.tables[level, table]
            elif tag == 7:
                entry = read_entry(content)
                self.tables[entry.level, entry.number] = entry
            elif tag == 8:
                self.log_id = content
            else:
                need(bool(tag & 0x40), f"unknown field {tag}")


def read_entry(content: bytes) -> Entry:
    said = dict(fields(content))
    need(all(tag <= 11 or tag & 0x40 for tag in said), "unknown field of a table")
    level, table, size = (number(said[tag]) for tag in (1, 2, 3))
    return Entry(level, table, size, said[8], said[9], said[10])


def read_manifest(data: bytes, name: str, database_id: bytes) -> Manifest:
    header = data[:96]
    need(header[:8] == b"kvmanif\0" and u32(header, 8) == 2, "manifest header")
    seed = u32(header, 92)
    need(seed == crc32c(header[:92]), "manifest header checksum")
    need(u32(header, 20) == 0 and header[48] == 1, "manifest features")
    need(f"MANIFEST-{u64(header, 24):06d}" == name, "manifest number")
    need(header[32:48] == database_id, "manifest of another database")
    need(not any(header[49:92]), "reserved bytes")
    manifest = Manifest()
    at, edit = 96, 0
    while at < len(data):
        edit += 1
        need(u32(data, at + 16) == crc32c(data[at : at + 16], seed), "edit header checksum")
        size, check, numbered = struct.unpack_from("<IIQ", data, at)
        payload = data[at + 20 : at + 20 + size]
        need(numbered == edit and len(payload) == size, "edit")
        need(crc32c(payload, seed) == check, "edit checksum")
        manifest.apply(payload)
        at += 20 + size
    need(edit > 0, "a manifest without an edit")
    return manifest


# --- log ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    kind: int
    index: int
    term: int
    payload: bytes


@dataclass
class Log:
    log_id: bytes
    database_id: bytes
    first: int  # number of the first segment
    records: list[Record]


def read_log(files: Files) -> Log | None:
    """All records, marks included; None where there is no segment. `files` by their names."""
    names = sorted((n for n in files if n.endswith(".wal")), key=lambda n: int(n.split(".")[0]))
    log: Log | None = None
    end = chain = 0
    for place, name in enumerate(names):
        data = files[name]
        header = data[:128]
        need(header[:4] == b"KVWL" and u32(header, 4) == 2, "segment header")
        need(u32(header, 124) == crc32c(header[:124]), "segment header checksum")
        need(u32(header, 36) == 0 and header[92] == 1, "segment features")
        need(not any(header[72:92]) and not any(header[93:124]), "reserved bytes")
        segment = u64(header, 8)
        need(segment == int(name.split(".")[0]), "segment number")
        if log is None:
            log = Log(header[40:56], header[56:72], segment, [])
        else:
            need((log.log_id, log.database_id) == (header[40:56], header[56:72]), "segment's ids")
            need(segment == log.first + place, "a segment is missing")
            need((u64(header, 16), u32(header, 24)) == (end, chain), "the segment before")
        if place == 0:
            chain = u32(header, 24)
        end, chain = read_segment(data, segment, chain, log.records)
    return log


def read_segment(data: bytes, segment: int, chain: int, records: list[Record]) -> tuple[int, int]:
    """(where the records end, chain)."""
    seed = u32(data, 124)
    at = 128
    while at + 8 <= len(data) and any(data[at : at + 8]):
        head = data[at : at + 48]
        need(len(head) == 48 and head[:3] == b"KR\2", "record header")
        need(u32(head, 44) == crc32c(head[:44], seed), "record header checksum")
        kind, size = head[3], u32(head, 4)
        need(0 < kind <= CLEAN_CLOSE and u32(head, 8) == segment & 0xFFFFFFFF, "record")
        need(u32(head, 12) == chain and u64(head, 32) <= at, "record chain")
        payload = data[at + 48 : at + 48 + size]
        need(len(payload) == size and u32(head, 40) == crc32c(payload), "record payload")
        records.append(Record(kind, u64(head, 16), u64(head, 24), payload))
        chain = u32(head, 44)
        padded = at + 48 + (size + 7) // 8 * 8
        need(not any(data[at + 48 + size : padded]), "record padding")
        at = padded
    return at, chain


def operations(first: int, payload: bytes) -> Iterator[tuple[bytes, int, int, bytes]]:
    """(key, sequence, kind, value) of each operation of a batch; a range's stop as its value."""
    at = 4
    for place in range(u32(payload, 0)):
        flagged = payload[at]
        at += 1
        sequence = first + place
        if flagged & 0x80:
            sequence, at = varint(payload, at)
        size, at = varint(payload, at)
        key = payload[at : at + size]
        at += size
        value = b""
        if flagged & 0x7F:
            size, at = varint(payload, at)
            value = payload[at : at + size]
            at += size
        yield key, sequence, flagged & 0x7F, value
    need(at == len(payload), "batch")


# --- all of it ------------------------------------------------------------------------------


@dataclass
class Database:
    database_id: bytes
    manifest: Manifest
    tables: list[Table]
    log: Log | None
    contents: dict[bytes, bytes]


def read_database(files: Files) -> Database:
    """`files` by their paths from the database's directory on."""
    database_id = read_identity(files["IDENTITY"])
    name = read_current(files["CURRENT"])
    manifest = read_manifest(files[name], name, database_id)
    tables = []
    newest: dict[bytes, tuple[int, int, bytes]] = {}
    ranges: list[tuple[bytes, bytes, int]] = []
    for entry in manifest.tables.values():
        data = files[f"{entry.number:06d}.sst"]
        table = read_table(data)
        need(len(data) == entry.file_bytes and table.file_number == entry.number, "table")
        need(table.file_id == entry.file_id, "another table under this name")
        need((table.properties[10], table.properties[11]) == (entry.smallest, entry.largest), "it")
        tables.append(table)
        ranges += table.ranges
        for key, sequence, kind, value in table.versions:
            newest[key] = max(newest.get(key, (-1, 0, b"")), (sequence, kind, value))
    log = read_log({n.removeprefix("wal/"): d for n, d in files.items() if n.startswith("wal/")})
    if log is not None:
        need(log.database_id in (database_id, bytes(16)), "the log of another database")
        for record in log.records:
            if record.kind == BATCH:
                for key, sequence, kind, value in operations(record.index, record.payload):
                    if kind == RANGE_DELETE:
                        need(key < value, "deleted range")
                        ranges.append((key, value, sequence))
                        continue
                    newest[key] = max(newest.get(key, (-1, 0, b"")), (sequence, kind, value))
    contents = {
        key: value
        for key, (sequence, kind, value) in sorted(newest.items())
        if kind and not any(low <= key < high and sequence < at for low, high, at in ranges)
    }
    return Database(database_id, manifest, tables, log, contents)
