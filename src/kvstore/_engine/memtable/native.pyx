"""The extension module of the room memtable: its parts, in the order of their needs."""

include "memtable.pyx"
include "memtable_cursor.pyx"
include "memtable_face.pyx"
