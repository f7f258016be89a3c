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


cdef void segment_path(char* into, const char* folder, uint64_t number, const char* suffix) noexcept nogil:
    snprintf(into, PATH_BYTES, b"%s/%06llu.%s", folder, <unsigned long long> number, suffix)


cdef bint is_transient(int result) noexcept nogil:
    return result in (-ENOSPC, -EDQUOT, -EMFILE, -ENFILE, -ENOMEM)


cdef bint lacks_descriptor(int result) noexcept nogil:
    return result in (-EMFILE, -ENFILE, -ENOMEM)


cdef int log_file_begin(
    LogFile* self, const SegmentHeader* header, uint64_t recycled, uint64_t wanted, Status* status
) noexcept nogil:
    cdef char name[PATH_BYTES]
    cdef char spare[PATH_BYTES]
    cdef void* fresh = NULL
    cdef uint64_t capacity = max(self.segment_bytes, wanted)
    cdef int result
    segment_path(name, self.folder, header.number, b"wal")
    segment_path(spare, self.folder, recycled if recycled else header.number, b"spare")
    # All that may fail for want of something comes before anything is left or named.
    result = make_spare(self, header, recycled, wanted, spare, &fresh, &capacity, status)
    if result:
        return result
    result = self.ops.datasync(self.disk, self.file) if self.file != NULL else 0
    if result < 0:
        self.ops.close(self.disk, fresh)
        return status_os_error(status, -result, b"syncing the log", -1)
    result = self.ops.rename(self.disk, spare, name)
    if result < 0:
        # A directory may lack space for the name. Nothing was renamed then.
        self.ops.close(self.disk, fresh)
        drop_spare(self, spare, recycled)
        status_os_error(status, -result, b"naming a log segment", -1)
        return RETRY if is_transient(result) else -1
    result = self.ops.sync_directory(self.disk, self.folder)
    if result < 0:
        self.ops.close(self.disk, fresh)
        status_os_error(status, -result, b"beginning a log segment", -1)
        # A sync that never began is no failure; the name goes back before anything was written.
        if lacks_descriptor(result) and self.ops.rename(self.disk, name, spare) == 0:
            drop_spare(self, spare, recycled)
            return RETRY
        return -1
    log_file_close(self)
    self.file = fresh
    self.capacity = capacity
    self.segment = header.number
    self.end = SEGMENT_HEADER_BYTES
    self.written = capacity if recycled else SEGMENT_HEADER_BYTES
    return 0


cdef void drop_spare(LogFile* self, const char* spare, uint64_t recycled) noexcept nogil:
    """One that was made and isn't needed yet: its space is more than what a small log holds."""
    if not recycled:
        self.ops.unlink(self.disk, spare)


cdef int make_spare(
    LogFile* self, const SegmentHeader* header, uint64_t recycled, uint64_t wanted, const char* spare,
    void** file, uint64_t* capacity, Status* status
) noexcept nogil:
    """A file, recycled or new, with all of a segment's space reserved and its header durable."""
    cdef uint8_t header_bytes[SEGMENT_HEADER_BYTES]
    cdef const char* what = b"reserving space for a log segment"
    cdef int result = self.ops.open(
        self.disk, spare, OPEN_WRITE if recycled else OPEN_CREATE, file
    )
    if result < 0:
        status_os_error(status, -result, b"opening a new log segment", -1)
        return RETRY if is_transient(result) else -1
    cdef int64_t size = self.ops.size(self.disk, file[0])
    if size >= <int64_t> capacity[0]:
        capacity[0] = <uint64_t> size
    else:
        result = reserve_space(self, file[0], wanted, capacity)
    if result == 0:
        what = b"beginning a log segment"
        encode_segment_header(header_bytes, header)
        result = self.ops.pwrite(self.disk, file[0], header_bytes, SEGMENT_HEADER_BYTES, 0)
    if result == 0:
        result = self.ops.datasync(self.disk, file[0])
        if result == 0:
            return 0
        # A sync that failed for want of space has failed all the same: nothing is tried again.
        self.ops.close(self.disk, file[0])
        return status_os_error(status, -result, what, -1)
    status_os_error(status, -result, what, -1)
    self.ops.close(self.disk, file[0])
    drop_spare(self, spare, recycled)
    return RETRY if is_transient(result) else -1


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
