"""The extension module of the room files: its parts, in the order of their needs."""

include "file.pyx"
include "disk.pyx"
include "memory_tree.pyx"
include "memory_disk.pyx"
include "posix.pyx"
include "guarded.pyx"
include "two_copies.pyx"
