"""Salvage of a damaged table: see sstable_salvage.pxd.

Frames follow one another, so the next one begins where the last one ended. Where nothing checks
there, each byte after it is tried; a header that can't be one is seen at a glance.
"""

import os
from typing import NamedTuple

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from kvstore._engine.primitives.native cimport (
    Buffer,
    CHECKSUM_MISMATCH,
    INVALID_MAGIC,
    INVALID_RECORD,
    IO_ERROR,
    Slice,
    Status,
    TRAILER_BYTES,
    TRUNCATED_RECORD,
    buffer_append,
    buffer_free,
    buffer_init,
    crc32c_extend,
    get_fixed32,
    internal_compare,
    kv_free,
    kv_malloc,
    slice_of,
    status_clear,
    status_error,
    status_no_memory,
    status_os_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystem, FileSystemOps, OPEN_READ


cdef enum:
    WINDOW_BYTES = 1 << 20
    UNREADABLE_BYTES = 4096         # what is left out where the device says EIO


# --- frames ---------------------------------------------------------------------------------

cdef int identify(Salvage* salvage, const uint8_t* file_id, Status* status) noexcept nogil:
    """The table's id, from whichever of its ends is whole."""
    cdef uint8_t[TABLE_HEADER_BYTES] header
    cdef uint8_t[TABLE_FOOTER_BYTES] footer_bytes
    cdef Footer footer
    cdef Status other
    cdef bint known = False
    status_clear(&other)
    salvage.end = salvage.file_bytes
    if read_exactly(
        salvage.ops, salvage.disk, salvage.file, header, TABLE_HEADER_BYTES, 0, b"read table", status
    ) == 0 and header_get(header, &salvage.identity, status) == 0:
        known = True
    elif status.code not in (CHECKSUM_MISMATCH, INVALID_MAGIC, TRUNCATED_RECORD, IO_ERROR):
        return -1                   # a whole header that says what can't be read here
    if salvage.file_bytes >= TABLE_HEADER_BYTES + TABLE_FOOTER_BYTES and read_exactly(
        salvage.ops, salvage.disk, salvage.file, footer_bytes, TABLE_FOOTER_BYTES,
        salvage.file_bytes - TABLE_FOOTER_BYTES, b"read table", &other,
    ) == 0:
        if not known and crc32c_extend(0, footer_bytes, 84) == get_fixed32(footer_bytes + 84):
            memcpy(salvage.identity.id, footer_bytes, TABLE_ID_BYTES)
            known = True
        if known and footer_get(
            footer_bytes, &salvage.identity, salvage.file_bytes, &footer, &other
        ) == 0:
            salvage.end -= TABLE_FOOTER_BYTES
    if known and file_id != NULL and memcmp(file_id, salvage.identity.id, TABLE_ID_BYTES) != 0:
        return status_set(status, INVALID_RECORD, b"another table under this name", 48)
    if not known:
        if file_id == NULL:
            return -1               # what the header was like
        memcpy(salvage.identity.id, file_id, TABLE_ID_BYTES)
    identity_seed(&salvage.identity)
    return 0


cdef int salvage_open(
    Salvage* salvage, const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const uint8_t* file_id, Status* status
) noexcept nogil:
    cdef int64_t size
    cdef int result
    memset(salvage, 0, sizeof(Salvage))
    status_clear(status)
    salvage.ops = ops
    salvage.disk = disk
    salvage.identity.file_number = file_number
    result = ops.open(disk, path, OPEN_READ, &salvage.file)
    if result < 0:
        return status_os_error(status, -result, b"open table", -1)
    size = ops.size(disk, salvage.file)
    salvage.file_bytes = <uint64_t> size if size > 0 else 0
    salvage.window = <uint8_t*> kv_malloc(WINDOW_BYTES)
    if size < 0:
        result = status_os_error(status, <int> -size, b"size of table", -1)
    elif salvage.window == NULL:
        result = status_no_memory(status, b"memory for salvage")
    else:
        result = identify(salvage, file_id, status)
    if result < 0:
        salvage_close(salvage)
        return -1
    salvage.at = TABLE_HEADER_BYTES
    status_clear(status)
    return 0


cdef void salvage_close(Salvage* salvage) noexcept nogil:
    block_free(salvage.frame)
    kv_free(salvage.window)
    salvage.ops.close(salvage.disk, salvage.file)


cdef const uint8_t* header_at(Salvage* salvage, uint64_t at) noexcept nogil:
    """FRAME_HEADER_BYTES of the file, from the window; NULL where the device can't read them."""
    cdef int64_t got
    if at < salvage.window_at or at + FRAME_HEADER_BYTES > salvage.window_at + salvage.window_bytes:
        salvage.window_at = at
        got = salvage.ops.pread(salvage.disk, salvage.file, salvage.window, WINDOW_BYTES, at)
        if got < FRAME_HEADER_BYTES:
            # Perhaps it is only some sector later on.
            got = salvage.ops.pread(
                salvage.disk, salvage.file, salvage.window,
                UNREADABLE_BYTES - at % UNREADABLE_BYTES + FRAME_HEADER_BYTES, at,
            )
        salvage.window_bytes = <size_t> got if got > 0 else 0
        if got < FRAME_HEADER_BYTES:
            return NULL
    return salvage.window + (at - salvage.window_at)


cdef bint may_be_frame(const uint8_t* header, uint64_t left) noexcept nogil:
    cdef uint64_t bytes = frame_bytes_told(header, left)
    cdef uint32_t stored = get_fixed32(header + 4)
    cdef uint32_t raw = get_fixed32(header + 8)
    return bytes != 0 and (raw == stored if header[1] == COMPRESSION_NONE else raw > stored)


cdef int take_frame(Salvage* salvage, uint64_t at, const uint8_t* header, Status* status) noexcept nogil:
    """1: a whole frame lies there; 0: none does; -1: see status."""
    cdef Handle handle
    cdef int kind = header[0]
    cdef uint8_t* frame
    handle.offset = at
    handle.bytes = <uint32_t> frame_bytes_told(header, salvage.end - at)
    frame = block_allocate(handle.bytes)
    if frame == NULL:
        return status_no_memory(status, b"memory for a block")
    if read_exactly(
        salvage.ops, salvage.disk, salvage.file, frame, handle.bytes, at, b"read table", status
    ) < 0 or not frame_is_whole(frame, handle.bytes, salvage.identity.seed, at):
        block_free(frame)
        status_clear(status)
        return 0
    salvage.frame = frame_open(
        frame, handle, kind, salvage.identity.seed, <uint32_t> -1, &salvage.payload_bytes, status
    )
    if salvage.frame == NULL:
        # The codec is missing, or there is no memory: not for this to pass over.
        return -1
    salvage.handle = handle
    return 1


cdef int salvage_next(Salvage* salvage, Status* status) noexcept nogil:
    cdef uint64_t start = salvage.at
    cdef uint64_t at = start
    cdef const uint8_t* header
    cdef int taken
    block_free(salvage.frame)
    salvage.frame = NULL
    while at + FRAME_HEADER_BYTES <= salvage.end:
        header = header_at(salvage, at)
        if header == NULL:
            at = (at | (UNREADABLE_BYTES - 1)) + 1
            continue
        if may_be_frame(header, salvage.end - at):
            taken = take_frame(salvage, at, header, status)
            if taken < 0:
                return -1
            if taken:
                salvage.gap_bytes = at - start
                salvage.at = at + salvage.handle.bytes
                return 1
        at += 1
    salvage.gap_bytes = salvage.end - start if salvage.end > start else 0
    salvage.at = salvage.end
    return 0


# --- a fresh table of what is whole ---------------------------------------------------------

class LostRange(NamedTuple):
    """Bytes of the file that check nowhere, and the user keys of the entries around them."""

    offset: int
    size: int
    after: bytes | None
    before: bytes | None


class Salvaged(NamedTuple):
    """What salvage_table found.

    ``summary`` is that of TableWriter.finish, with the internal keys that bound the fresh table;
    all three are None where nothing was whole, and there is no fresh table then.
    """

    file_id: bytes
    blocks: int
    entries: int
    lost: list[LostRange]
    summary: dict | None
    smallest: bytes | None
    largest: bytes | None
    range_deletes_lost: bool


cdef class Rescue:
    """One damaged table on its way into a fresh one."""
    cdef Salvage salvage
    cdef bint opened
    cdef str path
    cdef BlockCursor walk
    cdef Buffer last                # internal key of the last entry kept
    cdef uint64_t entries
    cdef uint64_t blocks
    cdef bytes properties_payload
    cdef dict metas                 # offset -> payload
    cdef bytes meta_index
    cdef list lost
    cdef object open_gap            # (offset, bytes, key after which it lies) until a key follows

    def __cinit__(self):
        buffer_init(&self.last)
        block_cursor_init(&self.walk)
        self.metas = {}
        self.lost = []

    def __dealloc__(self):
        buffer_free(&self.last)
        block_cursor_free(&self.walk)
        if self.opened:
            salvage_close(&self.salvage)

    cdef object last_key(self):
        if self.entries == 0:
            return None
        return <bytes> self.last.data[: self.last.size - TRAILER_BYTES]

    cdef int note_gap(self, uint64_t offset, uint64_t size) except -1:
        if self.open_gap is not None:
            first, bytes_before, after = self.open_gap
            self.open_gap = (first, offset + size - first, after)
        else:
            self.open_gap = (offset, size, self.last_key())
        return 0

    cdef int end_gap(self, object before) except -1:
        if self.open_gap is not None:
            self.lost.append(LostRange(*self.open_gap, before))
            self.open_gap = None
        return 0

    cdef int keep_block(self, TableWriter writer) except -1:
        """Adds the block's entries; 0 where it doesn't check or doesn't follow what was kept."""
        cdef Block block
        cdef Status status
        cdef Slice key
        status_clear(&status)
        if block_view(
            &block, self.salvage.frame + FRAME_HEADER_BYTES, self.salvage.payload_bytes
        ) < 0 or block_check(&block, NULL, 0, <int64_t> self.salvage.handle.offset, &status) < 0:
            if status.code == IO_ERROR:
                raise status_error(&status, self.path)      # no memory: nothing is wrong with it
            return 0
        block_cursor_reset(&self.walk, &block)
        block_cursor_first(&self.walk)
        if self.walk.starved:
            raise MemoryError("no memory for a key")
        if not self.walk.valid or (self.entries and internal_compare(
            slice_of(self.last.data, self.last.size), self.walk.key
        ) >= 0):
            return 0
        key = self.walk.key
        self.end_gap(<bytes> key.data[: key.size - TRAILER_BYTES])
        while self.walk.valid:
            if table_builder_add(writer.builder, self.walk.key, self.walk.value, &status) < 0:
                raise status_error(&status, writer.path)
            self.entries += 1
            self.last.size = 0
            if buffer_append(&self.last, self.walk.key.data, self.walk.key.size) < 0:
                raise MemoryError("no memory for a key")
            block_cursor_next(&self.walk)
        if self.walk.damaged:
            raise MemoryError("no memory for a key")
        self.blocks += 1
        return 1

    cdef int run(self, TableWriter writer) except -1:
        cdef Status status
        cdef int found
        while True:
            status_clear(&status)
            with nogil:
                found = salvage_next(&self.salvage, &status)
            if found < 0:
                raise status_error(&status, self.path)
            if self.salvage.gap_bytes:
                self.note_gap(
                    (self.salvage.handle.offset if found else self.salvage.end)
                    - self.salvage.gap_bytes, self.salvage.gap_bytes,
                )
            if found == 0:
                break
            self.take(writer)
        self.end_gap(None)
        return 0

    cdef int take(self, TableWriter writer) except -1:
        cdef int kind = self.salvage.frame[0]
        cdef const uint8_t* payload = self.salvage.frame + FRAME_HEADER_BYTES
        if kind == FRAME_DATA:
            if not self.keep_block(writer):
                self.note_gap(self.salvage.handle.offset, self.salvage.handle.bytes)
        elif kind == FRAME_META:
            self.metas[self.salvage.handle.offset] = <bytes> payload[: self.salvage.payload_bytes]
        elif kind == FRAME_META_INDEX:
            self.meta_index = <bytes> payload[: self.salvage.payload_bytes]
        # Partitions and the root are made anew.
        return 0

    cdef object meta(self, const char* name):
        """The payload of a meta frame; None: lost, or there is none."""
        cdef Handle handle
        cdef const uint8_t* index
        if self.meta_index is None:
            return None
        index = self.meta_index
        if not meta_index_find(index, len(self.meta_index), slice_of(name, strlen(name)), &handle):
            return None
        return self.metas.get(handle.offset)

    cdef bint keep_ranges(self, TableWriter writer) except -1:
        """The range tombstones, if they are whole; False: they are lost, or may be."""
        cdef Properties properties
        cdef Status status
        cdef bytes told = self.meta(META_PROPERTIES)
        cdef bytes ranges
        if told is None:
            return False
        status_clear(&status)
        if properties_get(<const uint8_t*> told, len(told), &properties, 0, &status) < 0:
            return False
        if properties.range_deletes == 0:
            return True
        ranges = self.meta(META_RANGE_DELETES)
        if ranges is None:
            return False
        if table_builder_cover(
            writer.builder, properties.smallest, properties.largest, properties.min_sequence,
            properties.max_sequence, properties.range_deletes, &status,
        ) < 0 or table_builder_add_meta(
            writer.builder, META_RANGE_DELETES, False,
            slice_of(<const uint8_t*> ranges, len(ranges)), &status,
        ) < 0:
            raise status_error(&status, writer.path)
        return True


def salvage_table(
    FileSystem filesystem not None, path, uint64_t file_number, target, uint64_t target_number, *,
    bytes file_id=None, **options,
):
    """Write a fresh table of all that is whole in a damaged one, which stays as it is.

    What is whole is proved by the checksums; entries keep their sequences. ``file_id`` is what the
    manifest says of the table, for the case that both of its ends are damaged. ``options`` are those
    of TableWriter. Raises CorruptionError where nothing can be proved (no id, another table, another
    format), StorageError where the disk fails.
    """
    cdef Rescue rescue = Rescue.__new__(Rescue)
    cdef TableWriter writer
    cdef Status status
    cdef Slice low, high
    cdef const uint8_t* own_id = NULL
    cdef int result
    cdef bytes encoded = os.fsencode(path)
    cdef const char* name = encoded
    if file_id is not None:
        if len(file_id) != TABLE_ID_BYTES:
            raise ValueError("a table's id has 16 bytes")
        own_id = file_id
    with nogil:
        result = salvage_open(
            &rescue.salvage, filesystem.ops, filesystem.disk, name, file_number, own_id, &status
        )
    if result < 0:
        raise status_error(&status, os.fspath(path))
    rescue.opened = True
    rescue.path = os.fspath(path)
    writer = TableWriter(filesystem, target, target_number, **options)
    summary = smallest = largest = None
    try:
        rescue.run(writer)
        ranges_kept = rescue.keep_ranges(writer)
        if rescue.entries or writer.builder.properties.range_deletes:
            low = bound(&writer.builder.smallest, &writer.builder.low, -1)
            high = bound(&writer.builder.data.last_key, &writer.builder.high, 1)
            smallest = <bytes> low.data[: low.size]
            largest = <bytes> high.data[: high.size]
            summary = writer.finish()
    finally:
        writer.discard()
    return Salvaged(
        rescue.salvage.identity.id[:TABLE_ID_BYTES], rescue.blocks, rescue.entries, rescue.lost,
        summary, smallest, largest, not ranges_kept,
    )
