include "file.pxd"
include "disk.pxd"
include "memory_tree.pxd"
include "memory_disk.pxd"
