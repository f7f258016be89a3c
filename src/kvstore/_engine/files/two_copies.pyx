"""A small file of two copies, written over in turn and in place: a note of how far others were.

A note that grows with what it is about can't be replaced by renames: each would cost a sync of the
directory, and none would be had on a full disk. So there are two slots of a sector each, and the
older one is written over: whatever a crash leaves of that, the other one stands.

Slot, 512 bytes, little-endian:

| offset | size | field |
|---|---|---|
| 0 | 8 | magic, which says what the note is about |
| 8 | 4 | format version, 1 |
| 12 | 4 | zero |
| 16 | 8 | number of the note, from 1; an odd one lies in the first slot |
| 24 | 16 | id of the log or database that it is about |
| 40 | 468 | the note's fields, then zeros |
| 508 | 4 | CRC-32C of bytes 0 to 507 |

A slot of zeros alone was never written.
"""

import os
import struct
import threading

from libc.stdint cimport uint8_t

from kvstore._engine.primitives.native cimport gil_ask, gil_have
from kvstore._engine.primitives.native import crc32c
from kvstore.errors import CorruptionError, IntegrityCode

SLOT_BYTES = 512
SLOT_VERSION = 1
SLOT_BUSY_S = 1.0           # what one write waits for another at most: a disk may hang
SLOT_HEAD = struct.Struct("<8sIIQ16s")
SLOT_CRC = struct.Struct("<I")
SLOT_FIELDS_BYTES = SLOT_BYTES - SLOT_HEAD.size - SLOT_CRC.size
UNWRITTEN_SLOT = bytes(SLOT_BYTES)


cdef int write_over(FileSystem filesystem, str path, uint64_t offset, bytes data) except -1:
    """Durably, with the GIL given up once."""
    cdef bytes raw = os.fsencode(path)
    cdef Overwrite piece
    overwrite_of(&piece, raw, offset, data)
    with nogil:
        overwrite(filesystem, &piece)
        gil_ask()
    gil_have()
    if piece.result < 0:
        raise os_failure(piece.result, piece.what, path)
    return 0


class TwoCopies:
    def __init__(self, FileSystem filesystem not None, path, magic, owner=b""):
        self.path = path
        self.owner = owner
        self._filesystem = filesystem
        self._magic = magic
        self._number = 0
        self._there = False
        self._storing = threading.Lock()

    def load(self):
        filesystem = self._filesystem
        self._there = filesystem.kind(self.path) == 1
        if not self._there:
            return None, ""
        data = filesystem.read(self.path, 0, 2 * SLOT_BYTES + 1)
        damage = ""
        if len(data) != 2 * SLOT_BYTES:
            damage = f"{self.path} has {filesystem.size(self.path)} bytes, not {2 * SLOT_BYTES}"
        fields = None
        for place in range(2):
            slot = data[place * SLOT_BYTES : (place + 1) * SLOT_BYTES]
            if slot == UNWRITTEN_SLOT:
                continue
            number = self._check(slot, place)
            if number == 0:
                damage = damage or f"copy {place + 1} in {self.path} is damaged"
            elif number > self._number:
                self._number = number
                fields = slot[SLOT_HEAD.size : SLOT_BYTES - SLOT_CRC.size]
        if fields is None:
            damage = damage or f"{self.path} holds nothing"
        return fields, damage

    def _check(self, bytes slot not None, place):
        """The number of a slot that is right, 0 of one that isn't."""
        cdef Py_ssize_t body = SLOT_BYTES - SLOT_CRC.size
        if len(slot) != SLOT_BYTES or SLOT_CRC.unpack_from(slot, body)[0] != crc32c(slot[:body]):
            return 0
        magic, version, zero, number, owner = SLOT_HEAD.unpack_from(slot)
        if magic != self._magic or number % 2 == place:
            return 0
        if version != SLOT_VERSION or zero:
            raise CorruptionError(
                f"a note of version {version}, this program knows {SLOT_VERSION}",
                code=IntegrityCode.UNSUPPORTED_VERSION,
                path=self.path,
            )
        self.owner = self.owner or owner
        if owner != self.owner:
            raise CorruptionError(
                "a note of another log or database",
                code=IntegrityCode.INVALID_RECORD,
                path=self.path,
            )
        return number

    def begin(self, bytes fields not None):
        if not self._there or not self._storing.acquire(blocking=False):
            return None
        try:
            number = self._number + 1
            return os.fsencode(self.path), (number + 1) % 2 * SLOT_BYTES, self._slot(number, fields)
        except BaseException:
            self._storing.release()
            raise

    def end(self, stored):
        self._number += bool(stored)
        self._storing.release()

    def store(self, bytes fields not None):
        if not self._storing.acquire(timeout=SLOT_BUSY_S):
            return False
        try:
            self._store(fields)
        finally:
            self._storing.release()
        return True

    @property
    def number(self):
        return self._number

    def first_of(self, bytes fields not None):
        self._number = 1
        self._there = True
        return self._slot(1, fields) + UNWRITTEN_SLOT

    def _slot(self, number, fields):
        body = SLOT_HEAD.pack(self._magic, SLOT_VERSION, 0, number, self.owner)
        body += fields.ljust(SLOT_FIELDS_BYTES, b"\0")
        return body + SLOT_CRC.pack(crc32c(body))

    def _store(self, fields):
        number = self._number + 1
        slot = self._slot(number, fields)
        if self._there:
            write_over(self._filesystem, self.path, (number + 1) % 2 * SLOT_BYTES, slot)
        else:
            self._begin(slot if number % 2 else UNWRITTEN_SLOT, UNWRITTEN_SLOT if number % 2 else slot)
        self._number = number

    def _begin(self, first, second):
        """The file, whole or not at all."""
        fresh = f"{self.path}.new"
        self._filesystem.remove_tree(fresh)
        self._filesystem.write(fresh, 0, first + second)
        self._filesystem.sync(fresh)
        self._filesystem.rename(fresh, self.path)
        self._filesystem.sync_directory(os.path.dirname(self.path))
        self._there = True
