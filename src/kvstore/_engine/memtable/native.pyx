"""The extension module of the room memtable: its parts, in the order of their needs."""

include "range_tombstones.pyx"
include "memtable.pyx"
include "memtable_cursor.pyx"
include "memtable_page.pyx"
include "memtable_face.pyx"
