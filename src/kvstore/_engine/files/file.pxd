"""The one seam between the engine and the disk: a table of functions over files.

Two tables exist: the operating system's (posix.pyx) and an in-memory disk that can lose
unsynced writes, tear them, flip bits and fail (memory_disk.pyx). All of the engine goes through
the table; nothing else in _engine calls the operating system about files.

Every function returns >= 0 on success and -errno on failure, never sets errno for the caller,
never retries a failed sync, and may be called from any thread without the GIL. One `void* file`
is used by one appender at a time; pread may run beside anything.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef enum OpenMode:
    OPEN_READ = 0           # must exist
    OPEN_WRITE = 1          # read and write, must exist
    OPEN_CREATE = 2         # read and write, created if absent, kept if present
    OPEN_EXCLUSIVE = 3      # read and write, must not exist


ctypedef int (*list_visitor)(void* context, const char* name) noexcept nogil
ctypedef int (*mapped_reader)(void* state) noexcept nogil


cdef struct FileSystemOps:
    # -EISDIR for a directory, -ENXIO for what else is no regular file.
    int (*open)(void* disk, const char* path, int mode, void** file) noexcept nogil
    int (*close)(void* disk, void* file) noexcept nogil
    # Writes all of `size` at `offset` or fails; extends the file where needed.
    int (*pwrite)(void* disk, void* file, const uint8_t* data, size_t size, uint64_t offset) noexcept nogil
    # Returns the bytes read: fewer than `size` only at the end of the file.
    int64_t (*pread)(void* disk, void* file, uint8_t* into, size_t size, uint64_t offset) noexcept nogil
    # Has the device begin to take what was written there, and waits until it has taken as much before
    # it, so that a large file doesn't all go out at once: whatever else is synced meanwhile would wait
    # behind it. Nothing is durable by it. A failure is as final as that of a sync.
    int (*write_back)(void* disk, void* file, uint64_t offset, uint64_t size) noexcept nogil
    # Makes the file's data, and its size, durable (fdatasync).
    int (*datasync)(void* disk, void* file) noexcept nogil
    # Reserves real blocks, reading as zero, up to `size`; the file grows to `size`.
    int (*allocate)(void* disk, void* file, uint64_t size) noexcept nogil
    int (*truncate)(void* disk, void* file, uint64_t size) noexcept nogil
    int64_t (*size)(void* disk, void* file) noexcept nogil
    int (*rename)(void* disk, const char* old, const char* new) noexcept nogil
    int (*link)(void* disk, const char* old, const char* new) noexcept nogil
    # Takes long for megabytes. Who has the file open still may find nothing in it from here on.
    int (*unlink)(void* disk, const char* path) noexcept nogil
    int (*make_directory)(void* disk, const char* path) noexcept nogil       # -EEXIST if there
    int (*remove_directory)(void* disk, const char* path) noexcept nogil     # must be empty
    int (*sync_directory)(void* disk, const char* path) noexcept nogil
    # Calls `visit` with each name (not "." or ".."), in no order; stops when it returns non-zero.
    int (*list)(void* disk, const char* path, void* context, list_visitor visit) noexcept nogil
    # 1 file, 2 directory, -ENOENT.
    int (*kind)(void* disk, const char* path) noexcept nogil
    # Neither lock follows a link: -ELOOP.
    # An exclusive lock held until the file is closed or the process dies; -EWOULDBLOCK if held.
    int (*lock)(void* disk, const char* path, void** file) noexcept nogil
    # A lock beside others of this kind, on a file that must exist; writes nothing.
    int (*lock_shared)(void* disk, const char* path, void** file) noexcept nogil
    # The same of a directory, shared or not. -EOPNOTSUPP where this disk can't; then `lock` must do.
    int (*lock_directory)(void* disk, const char* path, bint shared, void** file) noexcept nogil
    # Whether `path` names what is open as `file`: 1 or 0, which also stands for nothing there.
    int (*names)(void* disk, const char* path, void* file) noexcept nogil
    # Bytes free on the device that holds `path`.
    int64_t (*free_bytes)(void* disk, const char* path) noexcept nogil
    # What the system caches of these bytes isn't needed: advice, which may come to nothing. It makes
    # the next read ask the device.
    void (*forget)(void* disk, void* file, uint64_t offset, uint64_t size) noexcept nogil
    # The file's first `size` bytes in memory, for reading; the file may be closed or unlinked
    # meanwhile. Negative where this disk has no such thing, or there is no room: then it is pread.
    int (*map)(void* disk, void* file, uint64_t size, const uint8_t** data) noexcept nogil
    void (*unmap)(void* disk, const uint8_t* data, uint64_t size) noexcept nogil
    # `first`: nobody has read these bytes yet, which takes long anyway.
    # Runs `read`, which alone may look at what `map` gave, and returns what it does; -EFAULT where a
    # byte can't be had (the disk failed, the file was cut), or that couldn't be told: `read` ends right there then, so it takes
    # no lock and keeps what it obtains in `state`. What is the matter pread tells.
    int (*read_mapped)(
        void* disk, const uint8_t* data, uint64_t size, bint first, mapped_reader read, void* state
    ) noexcept nogil


cdef enum:
    PIECE_BYTES = 1 << 18   # what is well written back at a time


cdef class FileSystem:
    """A disk, as Python hands it to DB and Log (`filesystem=`). Outlives every file opened on it."""
    cdef const FileSystemOps* ops
    cdef void* disk


# The StorageError for a negative result of one of the functions above.
cdef object os_failure(int result, const char* what, str path)
# The sorted names in a directory; raises StorageError.
cdef list list_directory(FileSystem filesystem, str path)
