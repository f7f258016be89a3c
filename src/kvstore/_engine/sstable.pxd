"""Sorted tables on disk: the reader. What writes them is in sstable_build.pxd.

Layout and checksums: docs/storage-format.md, and the comments in sstable_build.pyx. Any thread, no GIL.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.cache cimport BlockCache
from kvstore._engine.cursor cimport Cursor
from kvstore._engine.file cimport FileSystemOps
from kvstore._engine.slice cimport Slice
from kvstore._engine.status cimport Status


cdef struct Table                   # opaque to users, reference-counted

# Verifies header, footer, root index and properties; the rest is verified as it is read. The file
# number in the file must be `file_number`. `cache` may be NULL: then nothing is kept.
cdef Table* table_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    BlockCache* cache, Status* status
) noexcept nogil                    # NULL: see status
cdef void table_retain(Table* table) noexcept nogil
cdef void table_release(Table* table) noexcept nogil

cdef struct Pinned:
    # Keeps the block that a found value lies in alive until released.
    void* handle

# Lookup code of memtable.pxd; `value` is borrowed until pinned_release.
cdef int table_get(
    Table* table, Slice user_key, uint64_t sequence, Slice* value, uint64_t* found_sequence,
    Pinned* pin, Status* status
) noexcept nogil
cdef void pinned_release(Pinned* pin) noexcept nogil
# `fill_cache` 0 for scans that should not push out the hot blocks; `read_ahead` in bytes, 0 off.
cdef Cursor* table_cursor(Table* table, bint fill_cache, size_t read_ahead) noexcept nogil
# Reads and checks every byte of the file, bypassing the cache.
cdef int table_verify(Table* table, Status* status) noexcept nogil
# Bytes of the file that lie before the internal key, for approximate_sizes.
cdef uint64_t table_offset_of(Table* table, Slice internal_key) noexcept nogil
