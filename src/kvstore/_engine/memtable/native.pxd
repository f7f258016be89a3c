include "range_tombstones.pxd"
include "memtable_node.pxd"
include "memtable.pxd"
include "memtable_cursor.pxd"
