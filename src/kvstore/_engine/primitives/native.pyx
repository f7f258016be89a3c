"""The extension module of the room primitives: its parts, in the order of their needs."""

include "memory.pyx"
include "gil.pyx"
include "arena.pyx"
include "crc32c.pyx"
include "status.pyx"
include "cursor_face.pyx"
