"""The file of the log's current segment: see log_file.pxd."""

from libc.errno cimport EDQUOT, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport Status, status_os_error
from kvstore._engine.files.native cimport OPEN_CREATE, OPEN_WRITE


cdef extern from *:
    """
    static const unsigned char kv_zeros[1 << 18] = {0};
    """
    const uint8_t* zeros "kv_zeros"


cdef enum:
    PAGE_BYTES = 4096
    ZEROS_BYTES = 1 << 18       # written ahead of records that are synced


cdef void segment_path(char* into, const char* folder, uint64_t number, const char* suffix) noexcept nogil:
    snprintf(into, PATH_BYTES, b"%s/%06llu.%s", folder, <unsigned long long> number, suffix)


cdef int log_file_begin(
    LogFile* self, const SegmentHeader* header, uint64_t recycled, uint64_t wanted, Status* status
) noexcept nogil:
    cdef char name[PATH_BYTES]
    cdef char spare[PATH_BYTES]
    cdef uint8_t header_bytes[SEGMENT_HEADER_BYTES]
    cdef int result
    if leave(self, status):
        return -1
    segment_path(name, self.folder, header.number, b"wal")
    segment_path(spare, self.folder, recycled if recycled else header.number, b"spare")
    result = open_space(self, recycled, wanted, spare, status)
    if result:
        return result
    encode_segment_header(header_bytes, header)
    result = self.ops.pwrite(self.disk, self.file, header_bytes, SEGMENT_HEADER_BYTES, 0)
    if result == 0:
        result = self.ops.datasync(self.disk, self.file)
    if result == 0:
        result = self.ops.rename(self.disk, spare, name)
    if result == 0:
        result = self.ops.sync_directory(self.disk, self.folder)
    if result < 0:
        return status_os_error(status, -result, b"beginning a log segment", -1)
    self.segment = header.number
    self.end = SEGMENT_HEADER_BYTES
    self.written = self.capacity if recycled else SEGMENT_HEADER_BYTES
    self.forgotten = 0
    if self.maps and self.ops.map(self.disk, self.file, <size_t> self.capacity, &self.memory) < 0:
        self.memory = NULL
    return 0


cdef int open_space(
    LogFile* self, uint64_t recycled, uint64_t wanted, const char* spare, Status* status
) noexcept nogil:
    """Opens a file, recycled or new, with all of a segment's space reserved."""
    cdef int64_t size
    cdef int result = self.ops.open(
        self.disk, spare, OPEN_WRITE if recycled else OPEN_CREATE, &self.file
    )
    if result < 0:
        self.file = NULL
        status_os_error(status, -result, b"opening a new log segment", -1)
        return RETRY if result in (-ENOSPC, -EDQUOT) else -1
    size = self.ops.size(self.disk, self.file)
    self.capacity = max(self.segment_bytes, wanted)
    if size >= <int64_t> self.capacity:
        self.capacity = <uint64_t> size
        return 0
    result = self.ops.allocate(self.disk, self.file, self.capacity)
    if result == 0:
        return 0
    status_os_error(status, -result, b"reserving space for a log segment", -1)
    self.ops.close(self.disk, self.file)
    self.file = NULL
    self.ops.unlink(self.disk, spare)
    return RETRY if result in (-ENOSPC, -EDQUOT) else -1


cdef int leave(LogFile* self, Status* status) noexcept nogil:
    """Makes the current segment durable and lets go of it."""
    cdef int result
    if self.file == NULL:
        return 0
    # Before the sync, which else would take each page back from this process one by one.
    unmap(self)
    result = self.ops.datasync(self.disk, self.file)
    log_file_close(self)
    return status_os_error(status, -result, b"syncing the log", -1) if result < 0 else 0


cdef int log_file_write(
    LogFile* self, const uint8_t* data, size_t size, uint64_t offset, bint durably, Status* status
) noexcept nogil:
    cdef int result
    # A page that is stored to after each sync faults each time: so only for what isn't synced at once.
    if self.memory != NULL and not durably and size < CALL_BYTES:
        memcpy(self.memory + offset, data, size)
        return 0
    result = self.ops.pwrite(self.disk, self.file, data, size, offset)
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


cdef size_t log_file_forgettable(LogFile* self, size_t least, uint8_t** pages) noexcept nogil:
    cdef uint64_t size = self.end - self.forgotten if self.end > self.forgotten else 0
    size -= size % PAGE_BYTES
    if self.memory == NULL or size < least or size == 0:
        return 0
    pages[0] = self.memory + self.forgotten
    self.forgotten += size
    return <size_t> size


cdef void log_file_trim(LogFile* self) noexcept nogil:
    unmap(self)
    if self.file != NULL:
        self.ops.truncate(self.disk, self.file, self.end)


cdef void unmap(LogFile* self) noexcept nogil:
    if self.memory != NULL:
        self.ops.unmap(self.disk, self.file, self.memory, <size_t> self.capacity)
        self.memory = NULL


cdef void log_file_close(LogFile* self) noexcept nogil:
    unmap(self)
    if self.file != NULL:
        self.ops.close(self.disk, self.file)
        self.file = NULL
