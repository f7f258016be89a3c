"""The manifest: which tables make up the database, as a log of checksummed edits.

    file    "kvmanif\\0" | u32 version | u64 number | u32 crc of the 20 bytes before
    edit    u32 payload bytes | u32 crc of the payload | u64 edit number | u32 crc of the 16 bytes before
            | payload
    payload a sequence of fields, each: u8 tag | varint(s) or length-prefixed bytes

All integers little-endian, checksums CRC-32C. Edits are numbered from 1 without a gap, and each is
synced before anything relies on it and before the next is written. So the only edit that a crash
can leave unfinished is the last one, and what it said had no consequence yet: a bad last edit
is left out, a bad edit that another follows is damage. Should the last edit have been durable and
damaged later, its consequences show: a file that it let go of is missing, or the log begins after
the last sequence that the tables then hold.

Each opening writes a new manifest whose first edit says everything, then points CURRENT to it; so
does a store that has run long, when most of its manifest is about what is past.
"""

import struct
from typing import NamedTuple

from libc.errno cimport ENOENT
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native import crc32c
from kvstore._engine.files.native cimport (
    Appender,
    FileSystem,
    create_file,
    read_whole,
    remove_file,
    rename_file,
    sync_directory,
)

from kvstore.errors import CorruptionError, IntegrityCode, StorageError

MAGIC = b"kvmanif\0"
FORMAT_VERSION = 1
FILE_HEADER = struct.Struct("<8sIQ")
EDIT_HEADER = struct.Struct("<IIQ")
CRC = struct.Struct("<I")
FILE_HEADER_BYTES = FILE_HEADER.size + CRC.size
EDIT_HEADER_BYTES = EDIT_HEADER.size + CRC.size
MAX_EDIT_BYTES = 1 << 30

TAG_LAST_SEQUENCE = 1
TAG_FLUSHED_SEQUENCE = 2
TAG_APPLIED_INDEX = 3
TAG_RETAIN_FROM = 4
TAG_NEXT_NUMBER = 5
TAG_REMOVED = 6
TAG_ADDED = 7
SCALARS = {
    TAG_LAST_SEQUENCE: "last_sequence",
    TAG_FLUSHED_SEQUENCE: "flushed_sequence",
    TAG_APPLIED_INDEX: "applied_index",
    TAG_RETAIN_FROM: "retain_from",
    TAG_NEXT_NUMBER: "next_number",
}


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


class Edit:
    """A change of the set of tables; a field that is None stays as it was."""

    __slots__ = (
        "added", "applied_index", "flushed_sequence", "last_sequence", "next_number", "removed",
        "retain_from",
    )

    def __init__(self, **given):
        for name in SCALARS.values():
            setattr(self, name, given.pop(name, None))
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


# --- encoding -------------------------------------------------------------------------------

cdef int put_varint(bytearray out, object value) except -1:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is no unsigned 64-bit number")
    cdef uint64_t left = value
    while left >= 0x80:
        out.append((left & 0x7F) | 0x80)
        left >>= 7
    out.append(left)
    return 0


cdef int put_bytes(bytearray out, bytes value) except -1:
    put_varint(out, len(value))
    out += value
    return 0


def encode_edit(edit):
    """The payload of one edit."""
    cdef bytearray out = bytearray()
    for tag, name in SCALARS.items():
        value = getattr(edit, name)
        if value is not None:
            out.append(tag)
            put_varint(out, value)
    for level, number in edit.removed:
        out.append(TAG_REMOVED)
        put_varint(out, level)
        put_varint(out, number)
    for entry in edit.added:
        out.append(TAG_ADDED)
        for value in entry[:7]:
            put_varint(out, value)
        put_bytes(out, entry.smallest)
        put_bytes(out, entry.largest)
    return bytes(out)


cdef class PayloadReader:
    cdef bytes data
    cdef Py_ssize_t at

    def __init__(self, bytes data):
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

    cdef bytes run(self):
        size = self.varint()
        if size > len(self.data) - self.at:
            raise ValueError("bytes run past the end")
        start = self.at
        self.at += size
        return self.data[start : self.at]


def decode_edit(bytes payload):
    """The edit of a payload; ValueError where it is not one."""
    cdef PayloadReader reader = PayloadReader(payload)
    edit = Edit()
    while reader.at < len(payload):
        tag = payload[reader.at]
        reader.at += 1
        if tag in SCALARS:
            setattr(edit, SCALARS[tag], reader.varint())
        elif tag == TAG_REMOVED:
            level = reader.varint()
            edit.removed.append((checked_level(level), reader.varint()))
        elif tag == TAG_ADDED:
            numbers = [reader.varint() for _ in range(7)]
            checked_level(numbers[0])
            smallest = reader.run()
            largest = reader.run()
            if len(smallest) < 8 or len(largest) < 8:
                raise ValueError("a bound of a table is no internal key")
            edit.added.append(TableEntry(*numbers, smallest, largest))
        else:
            raise ValueError(f"unknown field {tag}")
    return edit


cdef object checked_level(object level):
    if level >= LEVELS:
        raise ValueError(f"there is no level {level}")
    return level


def frame_edit(number, payload):
    header = EDIT_HEADER.pack(len(payload), crc32c(payload), number)
    return header + CRC.pack(crc32c(header)) + payload


def file_header(number):
    header = FILE_HEADER.pack(MAGIC, FORMAT_VERSION, number)
    return header + CRC.pack(crc32c(header))


# --- decoding -------------------------------------------------------------------------------

cdef object damaged(str what, str path, offset, code=IntegrityCode.INVALID_RECORD):
    return CorruptionError(what, code=code, path=path, offset=offset)


cdef tuple edit_at(bytes data, Py_ssize_t at, object number):
    """(payload, end) of a whole, valid edit with this number at this place, or the code that says why not."""
    if len(data) - at < EDIT_HEADER_BYTES:
        return None, IntegrityCode.TRUNCATED_RECORD
    header = data[at : at + EDIT_HEADER.size]
    (crc,) = CRC.unpack_from(data, at + EDIT_HEADER.size)
    if crc32c(header) != crc:
        return None, IntegrityCode.CHECKSUM_MISMATCH
    size, payload_crc, found = EDIT_HEADER.unpack(header)
    if found != number:
        return None, IntegrityCode.INVALID_RECORD
    start = at + EDIT_HEADER_BYTES
    if size > len(data) - start:
        return None, IntegrityCode.TRUNCATED_RECORD
    payload = data[start : start + size]
    if crc32c(payload) != payload_crc:
        return None, IntegrityCode.CHECKSUM_MISMATCH
    return payload, start + size


cdef bint any_edit_after(bytes data, Py_ssize_t at, object number):
    """Whether a valid edit with this number or a higher one lies at `at` or anywhere behind it.

    Its header is looked for at every byte: the cheap comparison of the number's upper half, zero
    in practice, keeps that fast.
    """
    cdef Py_ssize_t place
    cdef Py_ssize_t end = len(data) - EDIT_HEADER.size - CRC.size
    for place in range(at, end + 1):
        _, _, found = EDIT_HEADER.unpack_from(data, place)
        if number <= found <= number + 1_000_000:
            payload, _ = edit_at(data, place, found)
            if payload is not None:
                return True
    return False


def parse_manifest(bytes data, uint64_t number, str path):
    """([edits], torn bytes at the end) of a manifest's bytes; CorruptionError where it is damaged."""
    if len(data) < FILE_HEADER_BYTES:
        raise damaged("manifest header", path, 0, IntegrityCode.TRUNCATED_RECORD)
    magic, version, found = FILE_HEADER.unpack_from(data)
    (crc,) = CRC.unpack_from(data, FILE_HEADER.size)
    if magic != MAGIC:
        raise damaged("not a manifest", path, 0, IntegrityCode.INVALID_MAGIC)
    if crc32c(data[: FILE_HEADER.size]) != crc:
        raise damaged("manifest header checksum", path, 0, IntegrityCode.CHECKSUM_MISMATCH)
    if version != FORMAT_VERSION:
        raise damaged(
            f"manifest version {version}, this program reads {FORMAT_VERSION}", path, 8,
            IntegrityCode.UNSUPPORTED_VERSION,
        )
    if found != number:
        raise damaged(f"manifest {found} under the name of {number}", path, 12)
    edits = []
    at = FILE_HEADER_BYTES
    while at < len(data):
        payload, end = edit_at(data, at, len(edits) + 1)
        if payload is None:
            if not edits or any_edit_after(data, at, len(edits) + 1):
                raise damaged("manifest edit", path, at, end)
            return edits, len(data) - at
        try:
            edits.append(decode_edit(payload))
        except ValueError as error:
            raise damaged(f"manifest edit: {error}", path, at) from None
        at = end
    if not edits:
        raise damaged("manifest without an edit", path, at, IntegrityCode.TRUNCATED_RECORD)
    return edits, 0


# --- the files ------------------------------------------------------------------------------

def manifest_name(number):
    return f"MANIFEST-{number:06d}"


cdef uint64_t read_current(FileSystem disk, str directory) except? 0:
    cdef str path = f"{directory}/CURRENT"
    cdef bytes data = read_whole(disk, path)
    name, _, check = data.rstrip(b"\n").partition(b" ")
    if not data.endswith(b"\n") or check != b"%08x" % crc32c(name):
        raise damaged("CURRENT", path, 0, IntegrityCode.CHECKSUM_MISMATCH)
    if not name.startswith(b"MANIFEST-") or not name[9:].isdigit():
        raise damaged("CURRENT names no manifest", path, 0)
    return int(name[9:])


cdef tuple load_manifest(FileSystem disk, str directory):
    cdef uint64_t number = read_current(disk, directory)
    cdef str path = f"{directory}/{manifest_name(number)}"
    try:
        data = read_whole(disk, path)
    except StorageError as error:
        if error.errno != ENOENT:
            raise
        raise damaged("CURRENT names a manifest that is missing", path, None) from None
    edits, torn = parse_manifest(data, number, path)
    return number, edits, torn


cdef class Manifest:
    def append(self, edit):
        """Write an edit: :meth:`sync` makes it durable. After a failure nothing is written."""
        self.check()
        self.file.append(frame_edit(self.edits + 1, encode_edit(edit)))
        self.edits += 1

    def sync(self):
        """After a failure nobody knows whether the last edit holds: not to be used again."""
        self.check()
        self.file.sync()

    def close(self):
        if self.file is not None:
            self.file.close()

    cdef int check(self) except -1:
        if self.file is None:
            raise ValueError("no manifest: begin_manifest makes them")
        return 0

    @property
    def size(self):
        self.check()
        return self.file.size


cdef Manifest begin_manifest(FileSystem disk, str directory, uint64_t number, object everything):
    cdef Manifest manifest = create_manifest(disk, directory, number, everything)
    point_current(disk, directory, number)
    sync_directory(disk, directory)
    return manifest


cdef Manifest create_manifest(FileSystem disk, str directory, uint64_t number, object everything):
    cdef Manifest manifest = Manifest.__new__(Manifest)
    cdef str path = f"{directory}/{manifest_name(number)}"
    manifest.number = number
    manifest.edits = 1
    manifest.file = create_file(disk, path)
    try:
        manifest.file.append(file_header(number) + frame_edit(1, encode_edit(everything)))
        manifest.file.sync()
        manifest.first_bytes = manifest.file.size
        sync_directory(disk, directory)
    except StorageError:
        manifest.file.release()
        remove_quietly(disk, path)
        raise
    return manifest


cdef int point_current(FileSystem disk, str directory, uint64_t number) except -1:
    cdef bytes name = manifest_name(number).encode()
    cdef str fresh = f"{directory}/CURRENT.new"
    remove_file(disk, fresh)
    cdef Appender file = create_file(disk, fresh)
    try:
        file.append(b"%s %08x\n" % (name, crc32c(name)))
        file.sync()
        file.close()
        rename_file(disk, fresh, f"{directory}/CURRENT")
    except StorageError:
        file.release()
        remove_quietly(disk, fresh)
        raise
    return 0


cdef int remove_quietly(FileSystem disk, str path) except -1:
    """What stays behind because this fails is removed by the next opening."""
    try:
        remove_file(disk, path)
    except StorageError:
        pass
    return 0
