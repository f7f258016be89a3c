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

Each room is one extension module, ``native``: ``native.pyx`` and ``native.pxd`` include the room's
parts, whose names are one namespace, so that calls between them can be inlined. Another room's
names are cimported from its ``native``; ``native.pyi`` has what Python sees. Only
``files.file_face``, the tests' way to single calls of a file system, is a module of its own.

No C++ exception and no Python object passes through code without the GIL, and all C memory is taken
through ``primitives/memory.pxd``. ``tools/check_engine_sources.py`` (``make lint``) holds these
rules and the order of the rooms, in the sources and in the C++ that Cython makes of them.
"""
