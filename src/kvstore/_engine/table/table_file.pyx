"""TableFile and TableWriter: one table file from Python. Not for hot paths: DB has its own."""

import os

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport (
    Cursor,
    Slice,
    Status,
    TRAILER_BYTES,
    cursor_face,
    slice_of,
    status_clear,
    status_error,
    trailer_pack,
)
from kvstore._engine.files.native cimport FileSystem
from kvstore._engine.memtable.native cimport ABSENT, DELETED, FAILED
from kvstore.errors import ClosedError


cdef bytes internal_key(bytes key, uint64_t sequence, int kind):
    cdef uint64_t trailer = trailer_pack(sequence, kind)
    return key + (<unsigned char*> &trailer)[:TRAILER_BYTES]


cdef inline Slice slice_of_bytes(bytes data):
    return slice_of(<const unsigned char*> data, len(data))


cdef class CacheFace:
    """A block cache to hand to TableFile."""

    def __cinit__(self, size_t capacity_bytes):
        self.cache = cache_new(capacity_bytes, capacity_bytes)
        if self.cache == NULL:
            raise MemoryError("no memory for a cache")

    def __dealloc__(self):
        if self.cache != NULL:
            cache_release(self.cache)

    def stats(self):
        """capacity_bytes, used_bytes, blocks, hits, misses, evictions."""
        cdef CacheStats stats
        cache_stats(self.cache, &stats)
        return stats


# Freeing it still needs the disk: the collector must not clear the reference first.
@cython.no_gc_clear
cdef class TableFile:
    """An open table. Any thread; :meth:`close` must not run beside another call.

    Raises CorruptionError with code and offset for damage, StorageError where the disk fails.
    """

    def __init__(self, FileSystem filesystem not None, path, uint64_t file_number, CacheFace cache=None):
        cdef Status status
        if self.table != NULL:
            raise RuntimeError("already open")
        self.path = os.fspath(path)
        self.filesystem = filesystem
        encoded = os.fsencode(self.path)
        cdef const char* name = encoded
        cdef BlockCache* blocks = NULL
        if cache is not None:
            blocks = cache.cache
        status_clear(&status)
        with nogil:
            self.table = table_open(
                filesystem.ops, filesystem.disk, name, file_number, NULL, blocks, 0, &status
            )
        if self.table == NULL:
            raise status_error(&status, self.path)

    def __dealloc__(self):
        if self.table != NULL:
            table_release(self.table)

    cdef int require_open(self) except -1:
        if self.table == NULL:
            raise ClosedError(f"{self.path} is closed")
        return 0

    def close(self):
        """Close the file, once its last cursor is gone. Closing twice is allowed."""
        if self.table != NULL:
            table_release(self.table)
            self.table = NULL

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def properties(self):
        """Counts and options as written in the file, with the first and last user key."""
        self.require_open()
        properties = self.table.properties
        smallest = properties.smallest.data[: properties.smallest.size - TRAILER_BYTES]
        largest = properties.largest.data[: properties.largest.size - TRAILER_BYTES]
        return {
            "file_number": self.table.identity.file_number,
            "file_id": self.table.identity.id[:TABLE_ID_BYTES],
            "file_bytes": self.table.file_bytes,
            "entries": properties.entries,
            "tombstones": properties.tombstones,
            "superseded": properties.superseded,
            "range_deletes": properties.range_deletes,
            "min_sequence": properties.min_sequence,
            "max_sequence": properties.max_sequence,
            "data_blocks": properties.data_blocks,
            "partitions": properties.partitions,
            "raw_key_bytes": properties.raw_key_bytes,
            "raw_value_bytes": properties.raw_value_bytes,
            "largest_block_bytes": properties.largest_block_bytes,
            "bloom_bits": properties.bloom_bits,
            "restart_interval": properties.restart_interval,
            "block_bytes": properties.block_bytes,
            "smallest": smallest,
            "largest": largest,
        }

    def meta(self, str name):
        """The payload of the meta frame of this name, None where there is none."""
        self.require_open()
        cdef Status status
        cdef size_t size
        cdef bytes wanted = name.encode()
        cdef uint8_t* frame
        status_clear(&status)
        frame = table_meta_read(self.table, wanted, &size, &status)
        if frame == NULL:
            if status.code:
                raise status_error(&status, self.path)
            return None
        try:
            return frame[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + size]
        finally:
            block_free(frame)

    def get(self, bytes key, uint64_t sequence):
        """None where the table knows nothing, (sequence, None) for a tombstone, else with value."""
        self.require_open()
        cdef Status status
        cdef Slice value
        cdef uint64_t found_sequence
        cdef Pinned pin
        cdef Slice wanted = slice_of_bytes(key)
        cdef int found
        status_clear(&status)
        with nogil:
            found = table_get(
                self.table, wanted, sequence, True, &value, &found_sequence, &pin, &status
            )
        if found == FAILED:
            raise status_error(&status, self.path)
        if found == ABSENT:
            return None
        if found == DELETED:
            return found_sequence, None
        try:
            return found_sequence, value.data[: value.size]
        finally:
            pinned_release(&pin)

    def cursor(self, *, bint fill_cache=True, size_t read_ahead=0):
        """A cursor over internal entries; it keeps the table open by itself."""
        self.require_open()
        return cursor_face(
            table_cursor(self.table, fill_cache, read_ahead), self.path, self.filesystem
        )

    def verify(self):
        """Read and check every byte; raises at the first that is wrong."""
        self.require_open()
        cdef Status status
        cdef int result
        with nogil:
            result = table_verify(self.table, &status)
        if result < 0:
            raise status_error(&status, self.path)

    def offset_of(self, bytes key, uint64_t sequence):
        """Bytes of the file before the entry, to the precision of a block."""
        self.require_open()
        # The slice lasts as long as what it is a slice of.
        internal = internal_key(key, sequence, 1)
        return table_offset_of(self.table, slice_of_bytes(internal))


# Freeing it still needs the disk: the collector must not clear the reference first.
@cython.no_gc_clear
cdef class TableWriter:
    """Writes one table. One thread; discarded unless finished."""

    def __init__(
        self, FileSystem filesystem not None, path, uint64_t file_number, *, size_t block_bytes=4096,
        int restart_interval=16, int bloom_bits=10, compression=None, bytes file_id=None,
    ):
        cdef Status status
        cdef TableOptions options
        if self.builder != NULL:
            raise RuntimeError("already open")
        self.path = os.fspath(path)
        self.filesystem = filesystem
        options.block_bytes = block_bytes
        options.restart_interval = restart_interval
        options.bloom_bits = bloom_bits
        options.compression = compression_of(compression)
        encoded = os.fsencode(self.path)
        cdef const uint8_t* own_id = NULL
        if file_id is not None:
            if len(file_id) != TABLE_ID_BYTES:
                raise ValueError("a table's id has 16 bytes")
            own_id = file_id
        status_clear(&status)
        self.builder = table_builder_open(
            filesystem.ops, filesystem.disk, encoded, file_number, own_id, &options, &status
        )
        if self.builder == NULL:
            raise status_error(&status, self.path)

    def __dealloc__(self):
        self.discard()

    cdef int require_open(self) except -1:
        if self.builder == NULL:
            raise ClosedError(f"{self.path} is finished")
        return 0

    def add(self, bytes key, uint64_t sequence, int kind, bytes value):
        """Keys ascend; the versions of one key descend by sequence. A failure discards the table."""
        self.require_open()
        cdef Status status
        status_clear(&status)
        entry = internal_key(key, sequence, kind)
        if table_builder_add(
            self.builder, slice_of_bytes(entry), slice_of_bytes(value), &status
        ) < 0:
            self.discard()
            raise status_error(&status, self.path)

    def add_meta(self, str name, bytes payload, *, bint may_be_skipped=False):
        """A frame beside the data, found by its name. A failure discards the table."""
        self.require_open()
        cdef Status status
        status_clear(&status)
        if table_builder_add_meta(
            self.builder, name.encode(), may_be_skipped, slice_of_bytes(payload), &status
        ) < 0:
            self.discard()
            raise status_error(&status, self.path)

    def cover(
        self, bytes smallest, bytes largest, uint64_t lowest, uint64_t highest, uint64_t count
    ):
        """What a ``range-deletes`` frame holds; the bounds are internal keys."""
        self.require_open()
        cdef Status status
        status_clear(&status)
        if table_builder_cover(
            self.builder, slice_of_bytes(smallest), slice_of_bytes(largest), lowest, highest,
            count, &status,
        ) < 0:
            self.discard()
            raise status_error(&status, self.path)

    @property
    def bytes(self):
        """An estimate of the file's size if it were finished now."""
        self.require_open()
        return table_builder_bytes(self.builder)

    def finish(self):
        """Make the table durable; returns what a manifest keeps of it."""
        self.require_open()
        cdef Status status
        cdef TableSummary summary
        cdef TableBuilder* builder = self.builder
        cdef int result
        status_clear(&status)
        self.builder = NULL
        with nogil:
            result = table_builder_finish(builder, &summary, &status)
        if result < 0:
            raise status_error(&status, self.path)
        return {
            "file_bytes": summary.file_bytes,
            "entries": summary.entries,
            "tombstones": summary.tombstones,
            "superseded": summary.superseded,
            "range_deletes": summary.range_deletes,
            "min_sequence": summary.min_sequence,
            "max_sequence": summary.max_sequence,
            "file_id": summary.file_id[:TABLE_ID_BYTES],
        }

    def discard(self):
        """Close and remove the unfinished file."""
        if self.builder != NULL:
            table_builder_discard(self.builder)
            self.builder = NULL
