"""The file of the log's current segment: see log_file.pxd."""

from libc.errno cimport EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf

from kvstore._engine.primitives.native cimport Status, status_os_error
from kvstore._engine.files.native cimport OPEN_CREATE, OPEN_WRITE


cdef extern from *:
    """
    static const unsigned char kv_zeros[1 << 18] = {0};
    """
    const uint8_t* zeros "kv_zeros"


cdef enum:
    SMALL_BYTES = 1 << 16       # the smallest segment that is tried where there is no space
    ZEROS_BYTES = 1 << 18       # written ahead of records that are synced
    PREPARE_ROOM = 4            # segments that there is room for, else none is made ahead


cdef void segment_path(char* into, const char* folder, uint64_t number, const char* suffix) noexcept nogil:
    snprintf(into, PATH_BYTES, b"%s/%06llu.%s", folder, <unsigned long long> number, suffix)


cdef bint is_transient(int result) noexcept nogil:
    return result in (-ENOSPC, -EDQUOT, -EMFILE, -ENFILE, -ENOMEM)


cdef bint lacks_descriptor(int result) noexcept nogil:
    return result in (-EMFILE, -ENFILE, -ENOMEM)


cdef int log_file_begin(
    LogFile* self, const SegmentHeader* header, NextFile* next, uint64_t recycled, uint64_t wanted,
    Status* status
) noexcept nogil:
    cdef char spare[PATH_BYTES]
    cdef NextFile fresh = next[0]
    cdef bint prepared = next.file != NULL
    cdef int result = 0
    if not prepared:
        fresh.number = recycled if recycled else header.number
        fresh.recycled = recycled != 0
        fresh.capacity = max(self.segment_bytes, wanted)
    segment_path(spare, self.folder, fresh.number, b"spare")
    # All that may fail for want of something comes before anything is left or named.
    if not prepared:
        result = open_spare(self, &fresh, spare, wanted, status)
    if result == 0:
        result = write_header(self, &fresh, header, status)
        if result == RETRY and not prepared and not fresh.recycled:
            self.ops.unlink(self.disk, spare)
    if result == 0:
        result = name_segment(self, header.number, spare, status)
    if result == 0:
        log_file_close(self)
        self.file = fresh.file
        self.capacity = fresh.capacity
        self.segment = header.number
        self.end = SEGMENT_HEADER_BYTES
        self.written = fresh.capacity if fresh.recycled else SEGMENT_HEADER_BYTES
        next.file = NULL
    elif fresh.file != NULL and not (prepared and result == RETRY):
        self.ops.close(self.disk, fresh.file)
        next.file = NULL
    return result


cdef int open_spare(
    LogFile* self, NextFile* fresh, const char* spare, uint64_t wanted, Status* status
) noexcept nogil:
    """A file, recycled or new, with all of a segment's space reserved."""
    cdef int64_t size
    cdef int result = self.ops.open(
        self.disk, spare, OPEN_WRITE if fresh.recycled else OPEN_CREATE, &fresh.file
    )
    if result < 0:
        fresh.file = NULL
        status_os_error(status, -result, b"opening a new log segment", -1)
        return RETRY if is_transient(result) else -1
    size = self.ops.size(self.disk, fresh.file)
    if size >= <int64_t> fresh.capacity:
        fresh.capacity = <uint64_t> size
        return 0
    result = reserve_space(self, fresh.file, wanted, &fresh.capacity)
    if result == 0:
        return 0
    status_os_error(status, -result, b"reserving space for a log segment", -1)
    if not fresh.recycled:
        self.ops.unlink(self.disk, spare)
    return RETRY if is_transient(result) else -1


cdef int write_header(
    LogFile* self, NextFile* fresh, const SegmentHeader* header, Status* status
) noexcept nogil:
    """Durably."""
    cdef uint8_t header_bytes[SEGMENT_HEADER_BYTES]
    cdef int result
    encode_segment_header(header_bytes, header)
    result = self.ops.pwrite(self.disk, fresh.file, header_bytes, SEGMENT_HEADER_BYTES, 0)
    if result < 0:
        status_os_error(status, -result, b"beginning a log segment", -1)
        return RETRY if is_transient(result) else -1
    result = self.ops.datasync(self.disk, fresh.file)
    # One that failed for want of space has failed all the same: nothing is tried again.
    return 0 if result == 0 else status_os_error(status, -result, b"beginning a log segment", -1)


cdef int name_segment(LogFile* self, uint64_t number, const char* spare, Status* status) noexcept nogil:
    """Once all before it is durable."""
    cdef char name[PATH_BYTES]
    cdef int result = self.ops.datasync(self.disk, self.file) if self.file != NULL else 0
    if result < 0:
        return status_os_error(status, -result, b"syncing the log", -1)
    segment_path(name, self.folder, number, b"wal")
    result = self.ops.rename(self.disk, spare, name)
    if result < 0:
        # A directory may lack space for the name. Nothing was renamed then.
        status_os_error(status, -result, b"naming a log segment", -1)
        return RETRY if is_transient(result) else -1
    result = self.ops.sync_directory(self.disk, self.folder)
    if result < 0:
        status_os_error(status, -result, b"beginning a log segment", -1)
        # A sync that never began is no failure; the name goes back before anything was written.
        if lacks_descriptor(result) and self.ops.rename(self.disk, name, spare) == 0:
            return RETRY
        return -1
    return 0


cdef bint log_file_prepare(
    LogFile* self, uint64_t number, uint64_t recycled, NextFile* next
) noexcept nogil:
    cdef char spare[PATH_BYTES]
    cdef Status status
    cdef int result
    next.file = NULL
    next.number = recycled if recycled else number
    next.recycled = recycled != 0
    next.capacity = self.segment_bytes
    if not recycled and self.ops.free_bytes(
        self.disk, self.folder
    ) < PREPARE_ROOM * <int64_t> self.segment_bytes:
        return False
    segment_path(spare, self.folder, next.number, b"spare")
    result = open_spare(self, next, spare, self.segment_bytes, &status)
    if result == 0 and not recycled:
        # What the file system has to note of it is durable with this; later its header is alone.
        result = self.ops.pwrite(self.disk, next.file, zeros, SEGMENT_HEADER_BYTES, 0)
        if result == 0:
            result = self.ops.datasync(self.disk, next.file)
        if result < 0:
            self.ops.unlink(self.disk, spare)
    if result and next.file != NULL:
        self.ops.close(self.disk, next.file)
        next.file = NULL
    return result == 0


cdef int reserve_space(LogFile* self, void* file, uint64_t least, uint64_t* capacity) noexcept nogil:
    """As much as there is space for: deletes must find some of it on a full disk, to make more."""
    cdef int result
    while True:
        result = self.ops.allocate(self.disk, file, capacity[0])
        if result not in (-ENOSPC, -EDQUOT) or capacity[0] // 2 < max(least, <uint64_t> SMALL_BYTES):
            return result
        # What was reserved in vain.
        self.ops.truncate(self.disk, file, 0)
        capacity[0] //= 2


cdef int log_file_write(
    LogFile* self, const uint8_t* data, size_t size, uint64_t offset, bint durably, Status* status
) noexcept nogil:
    cdef int result = self.ops.pwrite(self.disk, self.file, data, size, offset)
    if result == 0 and durably and size < ZEROS_BYTES and offset + size > self.written:
        result = write_ahead(self, offset + size)
    if result < 0:
        return status_os_error(status, -result, b"writing the log", <int64_t> offset)
    return 0


cdef int write_ahead(LogFile* self, uint64_t end) noexcept nogil:
    """Zeros behind a record that is about to be synced, for those after it to be written over.

    A first write to reserved space changes the file's extents, and a sync after it waits for the
    file system's journal, too: nearly each sync, with records of a page (docs/performance.md).
    """
    cdef uint64_t size = min(self.capacity - end, <uint64_t> ZEROS_BYTES)
    self.written = end + size
    return self.ops.pwrite(self.disk, self.file, zeros, <size_t> size, end)


cdef void log_file_trim(LogFile* self) noexcept nogil:
    if self.file != NULL:
        self.ops.truncate(self.disk, self.file, self.end)


cdef void log_file_close(LogFile* self) noexcept nogil:
    if self.file != NULL:
        self.ops.close(self.disk, self.file)
        self.file = NULL
