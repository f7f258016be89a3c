"""The operating system's files behind the table of file.pxd."""

from libc.errno cimport (
    EAGAIN,
    EBADF,
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ENOENT,
    ENOLCK,
    ENOMEM,
    ENOSYS,
    ENOTDIR,
    ENXIO,
    EOPNOTSUPP,
    ESPIPE,
    ESTALE,
)
from libc.errno cimport errno as os_errno
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint64_t
from posix.fcntl cimport O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR
from posix.fcntl cimport open as os_open
from posix.stat cimport S_ISDIR, S_ISREG, fstat, stat, struct_stat
from posix.types cimport mode_t, off_t
from posix.unistd cimport close, fdatasync, fsync, ftruncate, link, pread, pwrite, rmdir, unlink

from kvstore._engine.primitives.native cimport kv_gave_back, kv_may_allocate


cdef extern from *:
    """
    #include <dirent.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <sys/file.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/statvfs.h>
    static inline int kvstore_atomic_add(int* counter, int change) {
        return __atomic_fetch_add(counter, change, __ATOMIC_RELAXED);
    }
    """
    ctypedef struct DIR:
        pass
    struct dirent:
        char* d_name
    DIR* opendir(const char* path) nogil
    dirent* readdir(DIR* directory) nogil
    int closedir(DIR* directory) nogil
    int flock(int fd, int operation) nogil
    int mkdir(const char* path, mode_t mode) nogil
    int rename(const char* old, const char* new) nogil
    int posix_fallocate(int fd, off_t offset, off_t size) nogil
    int posix_fadvise(int fd, off_t offset, off_t size, int advice) nogil
    int POSIX_FADV_DONTNEED
    int sync_file_range(int fd, off_t offset, off_t size, unsigned int flags) nogil
    int SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE, SYNC_FILE_RANGE_WAIT_AFTER
    int O_CLOEXEC, O_DIRECTORY, O_NOCTTY, O_NOFOLLOW, LOCK_EX, LOCK_NB, LOCK_SH
    struct statvfs_t "statvfs":
        unsigned long f_frsize
        unsigned long f_bavail
    int statvfs(const char* path, statvfs_t* result) nogil
    void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) nogil
    int atomic_add "kvstore_atomic_add"(int* counter, int change) nogil
    int munmap(void* at, size_t size) nogil
    int madvise(void* at, size_t size, int advice) nogil
    void* MAP_FAILED
    int PROT_READ, MAP_SHARED, MADV_RANDOM


cdef extern from "kvstore/_engine/files/fault_guard.h" namespace "kvstore_files" nogil:
    bint guard_stands() noexcept
    bint guard_holds(bint first) noexcept
    int run_guarded(
        mapped_reader read, void* state, const uint8_t* start, const uint8_t* end
    ) noexcept


cdef enum:
    DIRECTORY_MODE = 0o777      # the umask decides
    FILE_MODE = 0o666
    GIVEN_BACK_BYTES = 1 << 20
    MAPS_MAX = 1 << 15          # half of what Linux lets a process have (vm.max_map_count)


cdef int maps = 0               # atomic: how many there are


# A `void* file` is the descriptor plus one, so that no open file is NULL.
cdef inline void* file_of(int fd) noexcept nogil:
    return <void*> (<intptr_t> fd + 1)


cdef inline int fd_of(void* file) noexcept nogil:
    return <int> (<intptr_t> file - 1)


cdef int posix_open(void* disk, const char* path, int mode, void** file) noexcept nogil:
    cdef int flags = O_RDWR
    if mode == OPEN_READ:
        flags = O_RDONLY
    elif mode == OPEN_CREATE:
        flags = O_RDWR | O_CREAT
    elif mode == OPEN_EXCLUSIVE:
        flags = O_RDWR | O_CREAT | O_EXCL
    return open_regular(path, flags, file)


cdef int open_regular(const char* path, int flags, void** file) noexcept nogil:
    """-ENXIO for what is neither a file nor a directory: a FIFO would keep the opener waiting."""
    cdef struct_stat info
    cdef int fd, result
    cdef int wait = O_NONBLOCK
    while True:
        fd = os_open(path, flags | wait | O_CLOEXEC | O_NOCTTY, <mode_t> FILE_MODE)
        if fd >= 0:
            break
        if os_errno == EAGAIN and wait:
            wait = 0            # a regular file, leased to another process: it gives it back
        elif os_errno != EINTR:
            return -os_errno
    if fstat(fd, &info):
        result = -os_errno
    elif S_ISREG(info.st_mode):
        file[0] = file_of(fd)
        return 0
    else:
        result = -EISDIR if S_ISDIR(info.st_mode) else -ENXIO
    close(fd)
    return result


cdef int posix_close(void* disk, void* file) noexcept nogil:
    # Linux closes the descriptor even when it reports EINTR: never a second try.
    return -os_errno if close(fd_of(file)) and os_errno != EINTR else 0


cdef int posix_pwrite(
    void* disk, void* file, const uint8_t* data, size_t size, uint64_t offset
) noexcept nogil:
    cdef int fd = fd_of(file)
    cdef ssize_t written
    while size:
        written = pwrite(fd, data, size, <off_t> offset)
        if written < 0:
            if os_errno == EINTR:
                continue
            return -os_errno
        if written == 0:
            return -EIO         # of a regular file: never, but for ever would be worse
        data += written
        offset += <uint64_t> written
        size -= <size_t> written
    return 0


cdef int64_t posix_pread(void* disk, void* file, uint8_t* into, size_t size, uint64_t offset) noexcept nogil:
    cdef int fd = fd_of(file)
    cdef size_t done = 0
    cdef ssize_t count
    while done < size:
        count = pread(fd, into + done, size - done, <off_t> (offset + done))
        if count < 0:
            if os_errno == EINTR:
                continue
            return -os_errno
        if count == 0:
            break
        done += <size_t> count
    return <int64_t> done


cdef int posix_write_back(void* disk, void* file, uint64_t offset, uint64_t size) noexcept nogil:
    # The next piece is made while the device takes this one.
    cdef uint64_t before = min(offset, size)
    if sync_file_range(fd_of(file), <off_t> offset, <off_t> size, SYNC_FILE_RANGE_WRITE) == 0 and (
        before == 0 or sync_file_range(
            fd_of(file), <off_t> (offset - before), <off_t> before,
            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER,
        ) == 0
    ):
        return 0
    # Where the system or this file system doesn't have it, the sync alone does it.
    return 0 if os_errno in (ENOSYS, EINVAL, EOPNOTSUPP, ESPIPE) else -os_errno


cdef int posix_datasync(void* disk, void* file) noexcept nogil:
    # EINTR included: after a failed sync nothing is known of the pages, so there is no second try.
    return -os_errno if fdatasync(fd_of(file)) else 0


cdef int posix_allocate(void* disk, void* file, uint64_t size) noexcept nogil:
    cdef int fd = fd_of(file)
    cdef int error
    while True:
        error = posix_fallocate(fd, 0, <off_t> size)
        if error != EINTR:
            break
    if error == EOPNOTSUPP or error == EINVAL:
        # The file system can't reserve; a hole reads as zeros just the same.
        if posix_size(disk, file) >= <int64_t> size:
            return 0
        return posix_truncate(disk, file, size)
    return -error


cdef int posix_truncate(void* disk, void* file, uint64_t size) noexcept nogil:
    while ftruncate(fd_of(file), <off_t> size):
        if os_errno != EINTR:
            return -os_errno
    return 0


cdef int64_t posix_size(void* disk, void* file) noexcept nogil:
    cdef struct_stat info
    if fstat(fd_of(file), &info):
        return -os_errno
    return <int64_t> info.st_size


cdef int posix_rename(void* disk, const char* old, const char* new) noexcept nogil:
    return -os_errno if rename(old, new) else 0


cdef int posix_link(void* disk, const char* old, const char* new) noexcept nogil:
    return -os_errno if link(old, new) else 0


cdef int posix_unlink(void* disk, const char* path) noexcept nogil:
    # Without a descriptor (there may be none left) it goes all at once.
    cdef int fd = os_open(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY)
    cdef int result = -os_errno if unlink(path) else 0
    if fd >= 0:
        if result == 0:
            give_back(fd)
        close(fd)
    return result


cdef void give_back(int fd) noexcept nogil:
    """The space of a file that has no name left, piece by piece.

    A file system that is mounted with `discard` may tell the device of all of it at once, which
    then does nothing else for tens of milliseconds. What fails here the close does.
    """
    cdef struct_stat info
    if fstat(fd, &info) or not S_ISREG(info.st_mode) or info.st_nlink:
        return
    cdef off_t pieces = (info.st_size - 1) // GIVEN_BACK_BYTES
    while pieces > 0:
        if ftruncate(fd, pieces * GIVEN_BACK_BYTES):
            return
        pieces -= 1


cdef int posix_make_directory(void* disk, const char* path) noexcept nogil:
    return -os_errno if mkdir(path, <mode_t> DIRECTORY_MODE) else 0


cdef int posix_remove_directory(void* disk, const char* path) noexcept nogil:
    return -os_errno if rmdir(path) else 0


cdef int open_directory(const char* path) noexcept nogil:
    """Its descriptor, or -1 with os_errno."""
    cdef int fd
    while True:
        fd = os_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if fd >= 0 or os_errno != EINTR:
            return fd


cdef int posix_sync_directory(void* disk, const char* path) noexcept nogil:
    cdef int fd = open_directory(path)
    if fd < 0:
        return -os_errno
    cdef int result = -os_errno if fsync(fd) else 0
    close(fd)
    return result


cdef bint is_dot(const char* name) noexcept nogil:
    return name[0] == b"." and (name[1] == 0 or (name[1] == b"." and name[2] == 0))


cdef int posix_list(void* disk, const char* path, void* context, list_visitor visit) noexcept nogil:
    cdef DIR* directory
    while True:
        directory = opendir(path)
        if directory != NULL:
            break
        if os_errno != EINTR:
            return -os_errno
    cdef dirent* entry
    cdef int result = 0
    while True:
        # readdir tells the end from a failure by os_errno alone.
        errno_clear()
        entry = readdir(directory)
        if entry == NULL:
            result = -os_errno
            break
        if not is_dot(entry.d_name):
            result = visit(context, entry.d_name)
            if result:
                break
    closedir(directory)
    return result


cdef extern from *:
    """
    #include <errno.h>
    static inline void kvstore_errno_clear(void) { errno = 0; }
    """
    void errno_clear "kvstore_errno_clear"() noexcept nogil


cdef int posix_kind(void* disk, const char* path) noexcept nogil:
    cdef struct_stat info
    if stat(path, &info):
        return -os_errno
    return 2 if S_ISDIR(info.st_mode) else 1


cdef int locked(void* disk, const char* path, int how, void* file) noexcept nogil:
    """Locks an open file; closes it where that fails."""
    cdef int result = -os_errno if flock(fd_of(file), how | LOCK_NB) else 0
    if result == 0:
        # Whoever held it until now may have removed it meanwhile: then it locks nothing.
        result = posix_names(disk, path, file)
        if result == 1:
            return 0
        if result == 0:
            result = -EAGAIN
    posix_close(disk, file)
    return result


cdef int posix_lock(void* disk, const char* path, void** file) noexcept nogil:
    # No link is followed: it would lock, or create, a file somewhere else.
    cdef int result = open_regular(path, O_RDWR | O_CREAT | O_NOFOLLOW, file)
    if result < 0:
        return result
    # flock belongs to the open file: a second handle is refused in this process too, and the
    # kernel lets go of it when the process dies. -EWOULDBLOCK where somebody holds it.
    return locked(disk, path, LOCK_EX, file[0])


cdef int posix_lock_shared(void* disk, const char* path, void** file) noexcept nogil:
    cdef int result = open_regular(path, O_RDONLY | O_NOFOLLOW, file)
    if result < 0:
        return result
    return locked(disk, path, LOCK_SH, file[0])


cdef int posix_lock_directory(
    void* disk, const char* path, bint shared, void** file
) noexcept nogil:
    cdef int fd = open_directory(path)
    if fd < 0:
        return -os_errno
    file[0] = file_of(fd)
    cdef int result = locked(disk, path, LOCK_SH if shared else LOCK_EX, file[0])
    # Some network file systems lock only what is open for writing.
    return -EOPNOTSUPP if result in (-EBADF, -EINVAL, -ENOLCK, -ENOSYS) else result


cdef int posix_names(void* disk, const char* path, void* file) noexcept nogil:
    cdef struct_stat held, found
    if fstat(fd_of(file), &held):
        return -os_errno
    if stat(path, &found):
        return 0 if os_errno in (ENOENT, ENOTDIR, ESTALE) else -os_errno
    return held.st_dev == found.st_dev and held.st_ino == found.st_ino


cdef int64_t posix_free_bytes(void* disk, const char* path) noexcept nogil:
    cdef statvfs_t info
    if statvfs(path, &info):
        return -os_errno
    return <int64_t> info.f_bavail * <int64_t> info.f_frsize


cdef void posix_forget(void* disk, void* file, uint64_t offset, uint64_t size) noexcept nogil:
    posix_fadvise(fd_of(file), <off_t> offset, <off_t> size, POSIX_FADV_DONTNEED)


cdef int posix_map(void* disk, void* file, uint64_t size, const uint8_t** data) noexcept nogil:
    cdef void* mapped
    if not guard_stands():
        return -EOPNOTSUPP
    if atomic_add(&maps, 1) >= MAPS_MAX:
        atomic_add(&maps, -1)
        return -ENOMEM
    if not kv_may_allocate():
        atomic_add(&maps, -1)
        return -ENOMEM
    mapped = mmap(NULL, <size_t> size, PROT_READ, MAP_SHARED, fd_of(file), 0)
    if mapped == MAP_FAILED:
        kv_gave_back()
        atomic_add(&maps, -1)
        return -os_errno
    # Lookups go anywhere: a page that isn't there is no reason to read its neighbours too.
    madvise(mapped, <size_t> size, MADV_RANDOM)
    data[0] = <const uint8_t*> mapped
    return 0


cdef void posix_unmap(void* disk, const uint8_t* data, uint64_t size) noexcept nogil:
    munmap(<void*> data, <size_t> size)
    atomic_add(&maps, -1)
    kv_gave_back()


cdef int posix_read_mapped(
    void* disk, const uint8_t* data, uint64_t size, bint first, mapped_reader read, void* state
) noexcept nogil:
    if not guard_holds(first):
        return -EFAULT
    return run_guarded(read, state, data, data + size)


cdef FileSystemOps POSIX_OPS
POSIX_OPS.open = posix_open
POSIX_OPS.close = posix_close
POSIX_OPS.pwrite = posix_pwrite
POSIX_OPS.pread = posix_pread
POSIX_OPS.write_back = posix_write_back
POSIX_OPS.datasync = posix_datasync
POSIX_OPS.allocate = posix_allocate
POSIX_OPS.truncate = posix_truncate
POSIX_OPS.size = posix_size
POSIX_OPS.rename = posix_rename
POSIX_OPS.link = posix_link
POSIX_OPS.unlink = posix_unlink
POSIX_OPS.make_directory = posix_make_directory
POSIX_OPS.remove_directory = posix_remove_directory
POSIX_OPS.sync_directory = posix_sync_directory
POSIX_OPS.list = posix_list
POSIX_OPS.kind = posix_kind
POSIX_OPS.lock = posix_lock
POSIX_OPS.lock_shared = posix_lock_shared
POSIX_OPS.lock_directory = posix_lock_directory
POSIX_OPS.names = posix_names
POSIX_OPS.free_bytes = posix_free_bytes
POSIX_OPS.forget = posix_forget
POSIX_OPS.map = posix_map
POSIX_OPS.unmap = posix_unmap
POSIX_OPS.read_mapped = posix_read_mapped


cdef class PosixFileSystem(FileSystem):
    def __cinit__(self):
        self.ops = &POSIX_OPS
        self.disk = NULL
