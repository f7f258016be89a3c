"""The disk of a database that holds its directory's lock; see guarded.pxd."""

import os

cimport cython
from libc.errno cimport ESTALE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport usleep

from kvstore._engine.primitives.native cimport enter, leave, load_ordered, store_ordered

cdef enum:
    PAUSE_US = 50


cdef int look(GuardedDisk* self) noexcept nogil:
    cdef int result
    if load_ordered(&self.gone):
        return -ESTALE
    if self.held == NULL:
        return 0
    result = self.ops.names(self.disk, self.path, self.held)
    if result < 0:
        return result
    if result == 0:
        store_ordered(&self.gone, 1)
        return -ESTALE
    return 0


cdef int guard_check(GuardedDisk* self) noexcept nogil:
    """0, or the error of whoever would change a name now."""
    enter(&self.looking)
    cdef int result = look(self)
    leave(&self.looking)
    return result


cdef int guarded_open(void* disk, const char* path, int mode, void** file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self) if mode != OPEN_READ else 0
    return result if result < 0 else self.ops.open(self.disk, path, mode, file)


cdef int guarded_close(void* disk, void* file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.close(self.disk, file)


cdef int guarded_pwrite(
    void* disk, void* file, const uint8_t* data, size_t size, uint64_t offset
) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.pwrite(self.disk, file, data, size, offset)


cdef int64_t guarded_pread(
    void* disk, void* file, uint8_t* into, size_t size, uint64_t offset
) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.pread(self.disk, file, into, size, offset)


cdef int guarded_write_back(
    void* disk, void* file, uint64_t offset, uint64_t size
) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.write_back(self.disk, file, offset, size)


cdef int guarded_datasync(void* disk, void* file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.datasync(self.disk, file)


cdef int guarded_allocate(void* disk, void* file, uint64_t size) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.allocate(self.disk, file, size)


cdef int guarded_truncate(void* disk, void* file, uint64_t size) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.truncate(self.disk, file, size)


cdef int64_t guarded_size(void* disk, void* file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.size(self.disk, file)


cdef int guarded_rename(void* disk, const char* old, const char* new) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self)
    return result if result < 0 else self.ops.rename(self.disk, old, new)


cdef int guarded_link(void* disk, const char* old, const char* new) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self)
    return result if result < 0 else self.ops.link(self.disk, old, new)


cdef int guarded_unlink(void* disk, const char* path) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self)
    return result if result < 0 else self.ops.unlink(self.disk, path)


cdef int guarded_make_directory(void* disk, const char* path) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self)
    return result if result < 0 else self.ops.make_directory(self.disk, path)


cdef int guarded_remove_directory(void* disk, const char* path) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self)
    return result if result < 0 else self.ops.remove_directory(self.disk, path)


cdef int guarded_sync_directory(void* disk, const char* path) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    cdef int result = guard_check(self)
    return result if result < 0 else self.ops.sync_directory(self.disk, path)


cdef int guarded_list(
    void* disk, const char* path, void* context, list_visitor visit
) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.list(self.disk, path, context, visit)


cdef int guarded_kind(void* disk, const char* path) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.kind(self.disk, path)


cdef int guarded_lock(void* disk, const char* path, void** file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.lock(self.disk, path, file)


cdef int guarded_lock_shared(void* disk, const char* path, void** file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.lock_shared(self.disk, path, file)


cdef int guarded_lock_directory(
    void* disk, const char* path, bint shared, void** file
) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.lock_directory(self.disk, path, shared, file)


cdef int guarded_names(void* disk, const char* path, void* file) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.names(self.disk, path, file)


cdef int64_t guarded_free_bytes(void* disk, const char* path) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.free_bytes(self.disk, path)


cdef void guarded_forget(void* disk, void* file, uint64_t offset, uint64_t size) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    self.ops.forget(self.disk, file, offset, size)


cdef int guarded_map(void* disk, void* file, uint64_t size, const uint8_t** data) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.map(self.disk, file, size, data)


cdef void guarded_unmap(void* disk, const uint8_t* data, uint64_t size) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    self.ops.unmap(self.disk, data, size)


cdef int guarded_read_mapped(
    void* disk, const uint8_t* data, uint64_t size, bint first, mapped_reader read, void* state
) noexcept nogil:
    cdef GuardedDisk* self = <GuardedDisk*> disk
    return self.ops.read_mapped(self.disk, data, size, first, read, state)


cdef FileSystemOps GUARDED_OPS
GUARDED_OPS.open = guarded_open
GUARDED_OPS.close = guarded_close
GUARDED_OPS.pwrite = guarded_pwrite
GUARDED_OPS.pread = guarded_pread
GUARDED_OPS.write_back = guarded_write_back
GUARDED_OPS.datasync = guarded_datasync
GUARDED_OPS.allocate = guarded_allocate
GUARDED_OPS.truncate = guarded_truncate
GUARDED_OPS.size = guarded_size
GUARDED_OPS.rename = guarded_rename
GUARDED_OPS.link = guarded_link
GUARDED_OPS.unlink = guarded_unlink
GUARDED_OPS.make_directory = guarded_make_directory
GUARDED_OPS.remove_directory = guarded_remove_directory
GUARDED_OPS.sync_directory = guarded_sync_directory
GUARDED_OPS.list = guarded_list
GUARDED_OPS.kind = guarded_kind
GUARDED_OPS.lock = guarded_lock
GUARDED_OPS.lock_shared = guarded_lock_shared
GUARDED_OPS.lock_directory = guarded_lock_directory
GUARDED_OPS.names = guarded_names
GUARDED_OPS.free_bytes = guarded_free_bytes
GUARDED_OPS.forget = guarded_forget
GUARDED_OPS.map = guarded_map
GUARDED_OPS.unmap = guarded_unmap
GUARDED_OPS.read_mapped = guarded_read_mapped


# What was opened on it is closed through it: the collector must not clear the references first.
@cython.no_gc_clear
cdef class GuardedFileSystem(FileSystem):
    def __cinit__(self):
        memset(&self.guarded, 0, sizeof(self.guarded))
        # One that Python made, and nobody gave a disk, is the operating system's.
        self.below = PosixFileSystem()
        self.guarded.ops = &POSIX_OPS
        self.ops = &GUARDED_OPS
        self.disk = &self.guarded

    def resolve(self, str path):
        return self.below.resolve(path)

    cdef int hold(self, DirectoryLock lock) noexcept:
        self.guarded.held = lock.file
        return 0

    cdef int let_go(self) noexcept:
        store_ordered(&self.guarded.gone, 1)
        with nogil:
            # Iterators of other threads still give tables back, and may be looking at LOCK.
            while load_ordered(&self.guarded.looking):
                usleep(PAUSE_US)
        self.guarded.held = NULL
        return 0

    cdef int let_go_after_fork(self) noexcept:
        store_ordered(&self.guarded.gone, 1)
        self.guarded.held = NULL
        return 0

    cdef int check(self) except -1:
        cdef int result
        with nogil:
            result = guard_check(&self.guarded)
        if result < 0:
            raise os_failure(result, b"looking at the lock", os.fsdecode(self.path))
        return 0


cdef GuardedFileSystem guard(FileSystem below, str path):
    cdef GuardedFileSystem result = GuardedFileSystem.__new__(GuardedFileSystem)
    result.below = below
    result.path = os.fsencode(path)
    result.guarded.ops = below.ops
    result.guarded.disk = below.disk
    result.guarded.path = result.path
    return result


cdef void* base_of(FileSystem disk) noexcept:
    """What tells one disk from another, guarded or not; NULL is the operating system's."""
    if isinstance(disk, GuardedFileSystem):
        return (<GuardedFileSystem> disk).below.disk
    return disk.disk
