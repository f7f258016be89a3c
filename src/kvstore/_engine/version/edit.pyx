"""One edit of the manifest, and its bytes.

A payload is a sequence of fields: varint tag, varint length, so many bytes. Bit 6 (64) of a tag says
that a reader which doesn't know the field may skip it; without that bit it must refuse the file.

    1  last sequence                          varint
    2  sequence up to which all is in tables  varint
    3  applied index up to which all is       varint
    4  history is kept from here on           varint
    5  next file number                       varint
    6  a table is removed                     varint level, varint number
    7  a table is added                       fields of its own, below
    8  id of the log                          16 bytes; none: there is no log
    9  oldest segment that must be there      varint
    10 newest segment known to be durable ... varint
    11 ... up to this offset                  varint

    a table: 1 level, 2 number, 3 file bytes, 4 entries, 5 tombstones, 6 lowest and 7 highest sequence
    (varints), 8 smallest and 9 largest internal key, 10 id of the table (16 bytes), 11 range deletes,
    76 puts behind a newer version of their key (varints; left out: 0)
"""

from typing import NamedTuple

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport Slice
from kvstore._engine.table.native cimport TableSummary

TAG_REMOVED = 6
TAG_ADDED = 7
TAG_LOG_ID = 8
SCALARS = {
    1: "last_sequence",
    2: "flushed_sequence",
    3: "applied_index",
    4: "retain_from",
    5: "next_number",
    9: "log_first",
    10: "log_segment",
    11: "log_end",
}
MAY_BE_SKIPPED = 64
ID_BYTES = 16
TABLE_NUMBERS = 7       # fields 1 to 7 of a table
TAG_RANGE_DELETES = 11  # of a table, and
TAG_SUPERSEDED = MAY_BE_SKIPPED | 12


class UnknownField(ValueError):
    """A field of a later program, which this one may not skip."""


class TableEntry(NamedTuple):
    """A table in a level: what opening the database must know without reading the table."""

    level: int
    number: int
    file_bytes: int
    entries: int
    tombstones: int
    min_sequence: int
    max_sequence: int
    smallest: bytes
    largest: bytes
    file_id: bytes
    range_deletes: int = 0
    superseded: int = 0         # puts behind a newer version of their key; 0 where nobody counted


cdef object entry_of(
    int level, uint64_t number, const TableSummary* summary, Slice smallest, Slice largest
):
    return TableEntry(
        level, number, summary.file_bytes, summary.entries, summary.tombstones,
        summary.min_sequence, summary.max_sequence, <bytes> smallest.data[: smallest.size],
        <bytes> largest.data[: largest.size], <bytes> (<const char*> summary.file_id)[:ID_BYTES],
        summary.range_deletes, summary.superseded,
    )


cdef int entry_summary(object entry, TableSummary* summary) except -1:
    cdef bytes file_id = entry.file_id
    summary.file_bytes = entry.file_bytes
    summary.entries = entry.entries
    summary.tombstones = entry.tombstones
    summary.range_deletes = entry.range_deletes
    summary.superseded = entry.superseded
    summary.min_sequence = entry.min_sequence
    summary.max_sequence = entry.max_sequence
    if len(file_id) != ID_BYTES:
        raise ValueError(f"a table's id of {len(file_id)} bytes")
    memcpy(summary.file_id, <const char*> file_id, ID_BYTES)
    return 0


class Edit:
    """A change of the set of tables; a field that is None stays as it was."""

    __slots__ = (
        "added", "applied_index", "flushed_sequence", "last_sequence", "log_end", "log_first", "log_id",
        "log_segment", "next_number", "removed", "retain_from",
    )

    def __init__(self, **given):
        for name in SCALARS.values():
            setattr(self, name, given.pop(name, None))
        self.log_id = given.pop("log_id", None)     # 16 bytes; empty: there is no log
        self.removed = given.pop("removed", [])     # (level, number)
        self.added = given.pop("added", [])         # TableEntry
        if given:
            raise TypeError(f"no such field: {', '.join(given)}")

    def __eq__(self, other):
        return isinstance(other, Edit) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None

    def __repr__(self):
        return f"Edit({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


# --- writing --------------------------------------------------------------------------------

cdef int put_varint(bytearray out, object value) except -1:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is no unsigned 64-bit number")
    cdef uint64_t left = value
    while left >= 0x80:
        out.append((left & 0x7F) | 0x80)
        left >>= 7
    out.append(left)
    return 0


cdef int put_field(bytearray out, int tag, bytes content) except -1:
    put_varint(out, tag)
    put_varint(out, len(content))
    out += content
    return 0


cdef bytes varint_bytes(object value):
    cdef bytearray out = bytearray()
    put_varint(out, value)
    return bytes(out)


cdef bytes encode_entry(object entry):
    cdef bytearray out = bytearray()
    for tag, value in enumerate(entry[:TABLE_NUMBERS], 1):
        put_field(out, tag, varint_bytes(value))
    put_field(out, 8, entry.smallest)
    put_field(out, 9, entry.largest)
    put_field(out, 10, entry.file_id)
    if entry.range_deletes:
        put_field(out, TAG_RANGE_DELETES, varint_bytes(entry.range_deletes))
    if entry.superseded:
        put_field(out, TAG_SUPERSEDED, varint_bytes(entry.superseded))
    return bytes(out)


def encode_edit(edit):
    """The payload of one edit."""
    cdef bytearray out = bytearray()
    for tag, name in SCALARS.items():
        value = getattr(edit, name)
        if value is not None:
            put_field(out, tag, varint_bytes(value))
    if edit.log_id is not None:
        put_field(out, TAG_LOG_ID, edit.log_id)
    for level, number in edit.removed:
        put_field(out, TAG_REMOVED, varint_bytes(level) + varint_bytes(number))
    for entry in edit.added:
        put_field(out, TAG_ADDED, encode_entry(entry))
    return bytes(out)


# --- reading --------------------------------------------------------------------------------

cdef class FieldReader:
    cdef bytes data
    cdef Py_ssize_t at

    def __init__(self, bytes data not None):
        self.data = data

    cdef object varint(self):
        cdef uint64_t value = 0
        cdef int shift = 0
        cdef int byte
        while True:
            if self.at >= len(self.data) or shift > 63:
                raise ValueError("an integer runs past the end")
            byte = <unsigned char> self.data[self.at]
            self.at += 1
            if shift == 63 and byte > 1:
                raise ValueError("an integer does not fit in 64 bits")
            value |= <uint64_t> (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    cdef tuple field(self):
        """(tag, content) of the next field, or None at the end."""
        if self.at == len(self.data):
            return None
        tag = self.varint()
        size = self.varint()
        if size > len(self.data) - self.at:
            raise ValueError("a field runs past the end")
        start = self.at
        self.at += size
        return tag, self.data[start : self.at]


cdef list varints(bytes content, int count):
    """All that a field holds: so many integers."""
    cdef FieldReader reader = FieldReader(content)
    values = [reader.varint() for _ in range(count)]
    if reader.at != len(content):
        raise ValueError("a field is longer than what it holds")
    return values


cdef int check_unknown(object tag) except -1:
    if not tag & MAY_BE_SKIPPED:
        raise UnknownField(f"field {tag} is of a later program")
    return 0


cdef bytes checked_id(bytes content):
    if len(content) not in (0, ID_BYTES):
        raise ValueError(f"an id of {len(content)} bytes")
    return content


cdef object checked_level(object level):
    if level >= LEVELS:
        raise ValueError(f"there is no level {level}")
    return level


cdef object decode_entry(bytes content):
    cdef FieldReader reader = FieldReader(content)
    fields = {}
    while (field := reader.field()) is not None:
        tag, value = field
        if tag in fields:
            raise ValueError(f"field {tag} of a table twice")
        if 1 <= tag <= TABLE_NUMBERS or tag in (TAG_RANGE_DELETES, TAG_SUPERSEDED):
            (fields[tag],) = varints(value, 1)
        elif tag in (8, 9):
            if len(value) < 8:
                raise ValueError("a bound of a table is no internal key")
            fields[tag] = value
        elif tag == 10:
            if len(value) != ID_BYTES:
                raise ValueError(f"a table's id of {len(value)} bytes")
            fields[tag] = value
        else:
            check_unknown(tag)
    for tag in range(1, 11):
        if tag not in fields:
            raise ValueError(f"field {tag} of a table is missing")
    checked_level(fields[1])
    return TableEntry(
        *[fields[tag] for tag in range(1, 11)], fields.get(TAG_RANGE_DELETES, 0),
        fields.get(TAG_SUPERSEDED, 0),
    )


def decode_edit(bytes payload not None):
    """The edit of a payload; ValueError where it is not one, UnknownField where it says too much."""
    cdef FieldReader reader = FieldReader(payload)
    edit = Edit()
    while (field := reader.field()) is not None:
        tag, content = field
        if tag in SCALARS:
            if getattr(edit, SCALARS[tag]) is not None:
                raise ValueError(f"field {tag} twice")
            (value,) = varints(content, 1)
            setattr(edit, SCALARS[tag], value)
        elif tag == TAG_LOG_ID:
            if edit.log_id is not None:
                raise ValueError(f"field {tag} twice")
            edit.log_id = checked_id(content)
        elif tag == TAG_REMOVED:
            level, number = varints(content, 2)
            edit.removed.append((checked_level(level), number))
        elif tag == TAG_ADDED:
            edit.added.append(decode_entry(content))
        else:
            check_unknown(tag)
    return edit
