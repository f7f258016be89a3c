"""The storage engine in Cython. Not a public interface: use :mod:`kvstore.engine`.

One room for each step on the way of the data; imports go only upwards in this list, from a room to
those above it:

========== ==================================================================================
primitives bytes in memory: slices, keys, checksums, buffers, arenas, status, the cursor's shape
files      the seam to a file system: the real one, and one in memory that can crash and fail
log        the write-ahead log, which is also the Raft log
memtable   the newest writes, in order, in memory
table      sorted tables on disk: blocks, filters, index, and the cache of blocks
version    which tables make up the database: manifest, versions, merging cursors, table jobs
database   it all put together: writes, reads, flush, compaction, iterators, upkeep
========== ==================================================================================
"""
