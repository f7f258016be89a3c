"""Whole files over the table of file.pxd: read, replace atomically, append and sync, list, lock."""

import os
import weakref

cimport cython
from libc.errno cimport EAGAIN, EEXIST, ELOOP, ENOENT, ENOMEM, EOPNOTSUPP
from libc.stdint cimport int64_t, uint8_t, uint64_t


from kvstore._engine.files.holder import holder_of
from kvstore.errors import AlreadyOpenError, CorruptionError, IntegrityCode


cdef bytes read_whole(FileSystem disk, str path, int64_t most):
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef void* file = NULL
    cdef int64_t size, done
    cdef int result
    with nogil:
        result = disk.ops.open(disk.disk, at, OPEN_READ, &file)
        size = disk.ops.size(disk.disk, file) if result >= 0 else 0
        if size > most:
            disk.ops.close(disk.disk, file)
    if result < 0:
        raise os_failure(result, b"opening a file", path)
    cdef bytearray data
    if size > most:
        raise CorruptionError(
            f"it has {size} bytes, and never more than {most}",
            code=IntegrityCode.INVALID_RECORD, path=path, offset=most,
        )
    try:
        data = bytearray(size if size > 0 else 0)
    except MemoryError:
        disk.ops.close(disk.disk, file)
        raise os_failure(-ENOMEM, b"reading a file", path) from None
    cdef uint8_t* into = <uint8_t*> <char*> data
    done = size
    with nogil:
        if size > 0:
            done = disk.ops.pread(disk.disk, file, into, <size_t> size, 0)
        disk.ops.close(disk.disk, file)
    if done < 0:
        raise os_failure(<int> done, b"reading a file", path)
    return bytes(data[:done])


cdef int replace_whole(FileSystem disk, str directory, str name, bytes data) except -1:
    cdef str fresh = f"{directory}/{name}.new"
    remove_file(disk, fresh)
    cdef Appender file = create_file(disk, fresh)
    try:
        file.append(data)
        file.sync()
    finally:
        file.close()
    rename_file(disk, fresh, f"{directory}/{name}")
    sync_directory(disk, directory)
    return 0


cdef int kind_of(FileSystem disk, str path) except -1:
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef int result
    with nogil:
        result = disk.ops.kind(disk.disk, at)
    if result == -ENOENT:
        return 0
    if result < 0:
        raise os_failure(result, b"looking for a file", path)
    return result


cdef bint remove_file(FileSystem disk, str path) except -1:
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef int result
    with nogil:
        result = disk.ops.unlink(disk.disk, at)
    if result == -ENOENT:
        return False
    if result < 0:
        raise os_failure(result, b"removing a file", path)
    return True


cdef int rename_file(FileSystem disk, str old, str new) except -1:
    cdef bytes raw = os.fsencode(old)
    cdef bytes raw_new = os.fsencode(new)
    cdef const char* at = raw
    cdef const char* to = raw_new
    cdef int result
    with nogil:
        result = disk.ops.rename(disk.disk, at, to)
    if result < 0:
        raise os_failure(result, b"renaming a file", old)
    return 0


cdef int link_file(FileSystem disk, str old, str new) except -1:
    cdef bytes raw = os.fsencode(old)
    cdef bytes raw_new = os.fsencode(new)
    cdef const char* at = raw
    cdef const char* to = raw_new
    cdef int result
    with nogil:
        result = disk.ops.link(disk.disk, at, to)
    if result < 0:
        raise os_failure(result, b"linking a file", new)
    return 0


cdef bint make_directory(FileSystem disk, str path) except -1:
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef int result
    with nogil:
        result = disk.ops.make_directory(disk.disk, at)
    if result == -EEXIST:
        return False
    if result == -ENOENT:
        raise StorageError(
            f"making a directory: there is no {missing_parent(disk, path)}", path=path, errno=ENOENT
        )
    if result < 0:
        raise os_failure(result, b"making a directory", path)
    return True


cdef str missing_parent(FileSystem disk, str path):
    """The first of the directories above that isn't there."""
    cdef str missing = os.path.dirname(path)
    cdef str above = os.path.dirname(missing)
    while above != missing and kind_of(disk, above) == 0:
        missing, above = above, os.path.dirname(above)
    return missing


cdef int remove_directory(FileSystem disk, str path) except -1:
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef int result
    with nogil:
        result = disk.ops.remove_directory(disk.disk, at)
    if result < 0 and result != -ENOENT:
        raise os_failure(result, b"removing a directory", path)
    return 0


cdef int sync_directory(FileSystem disk, str path) except -1:
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef int result
    with nogil:
        result = disk.ops.sync_directory(disk.disk, at)
    if result < 0:
        raise os_failure(result, b"syncing a directory", path)
    return 0


cdef void overwrite_of(Overwrite* piece, bytes path, uint64_t offset, bytes data) noexcept:
    piece.path = path
    piece.offset = offset
    piece.data = data
    piece.size = len(data)
    piece.result = 0
    piece.what = b""


cdef void overwrite(FileSystem disk, Overwrite* piece) noexcept nogil:
    cdef void* file = NULL
    piece.what = b"opening a file"
    piece.result = disk.ops.open(disk.disk, piece.path, OPEN_CREATE, &file)
    if piece.result < 0:
        return
    piece.what = b"writing a file"
    piece.result = disk.ops.pwrite(disk.disk, file, piece.data, piece.size, piece.offset)
    if piece.result >= 0:
        piece.what = b"syncing a file"
        piece.result = disk.ops.datasync(disk.disk, file)
    disk.ops.close(disk.disk, file)


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class Appender:
    def __dealloc__(self):
        self.release()

    cdef int release(self) noexcept:
        cdef void* file = self.file
        cdef int result
        self.file = NULL
        if file == NULL:
            return 0
        with nogil:
            result = self.disk.ops.close(self.disk.disk, file)
        return result

    cdef int append(self, bytes data) except -1:
        cdef const uint8_t* at = data
        cdef size_t size = len(data)
        cdef int result
        with nogil:
            result = self.disk.ops.pwrite(self.disk.disk, self.file, at, size, self.size)
            if result < 0:
                # Should this fail as well, the next append writes over what is there.
                self.disk.ops.truncate(self.disk.disk, self.file, self.size)
        if result < 0:
            raise os_failure(result, b"writing", self.path)
        self.size += size
        return 0

    cdef int sync(self) except -1:
        cdef int result
        with nogil:
            result = self.disk.ops.datasync(self.disk.disk, self.file)
        if result < 0:
            raise os_failure(result, b"syncing", self.path)
        return 0

    cdef int append_synced(self, bytes data, Overwrite* then, bint* unsure) except -1:
        cdef const uint8_t* at = data
        cdef size_t size = len(data)
        cdef GuardedDisk* guarded = NULL
        cdef const char* what = b"looking at the lock"
        cdef int result = 0
        if isinstance(self.disk, GuardedFileSystem):
            guarded = &(<GuardedFileSystem> self.disk).guarded
        unsure[0] = False
        with nogil:
            if guarded != NULL:
                result = guard_check(guarded)
            if result >= 0:
                what = b"writing"
                result = self.disk.ops.pwrite(self.disk.disk, self.file, at, size, self.size)
                if result < 0:
                    # Should this fail as well, the next append writes over what is there.
                    self.disk.ops.truncate(self.disk.disk, self.file, self.size)
            if result >= 0:
                what = b"syncing"
                unsure[0] = True
                self.size += size
                result = self.disk.ops.datasync(self.disk.disk, self.file)
            if result >= 0 and then != NULL:
                overwrite(self.disk, then)
            gil_ask()
        gil_have()
        if result < 0:
            raise os_failure(result, what, self.path)
        unsure[0] = False
        return 0

    cdef int close(self) except -1:
        cdef int result = self.release()
        if result < 0:
            raise os_failure(result, b"closing a file", self.path)
        return 0


cdef Appender create_file(FileSystem disk, str path):
    cdef Appender appender = Appender.__new__(Appender)
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef int result
    appender.disk = disk
    appender.path = path
    with nogil:
        result = disk.ops.open(disk.disk, at, OPEN_EXCLUSIVE, &appender.file)
    if result < 0:
        appender.file = NULL
        raise os_failure(result, b"creating a file", path)
    return appender


# The locks of this process, to tell it from others when one is refused.
cdef object HELD = weakref.WeakSet()


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class DirectoryLock:
    def __dealloc__(self):
        self.give_back()

    cdef int give_back(self) noexcept:
        cdef void* file = self.file
        cdef void* directory = self.directory
        self.file = self.directory = NULL
        with nogil:
            if file != NULL:
                self.disk.ops.close(self.disk.disk, file)
            if directory != NULL:
                self.disk.ops.close(self.disk.disk, directory)
        return 0

    cdef int close(self) except -1:
        HELD.discard(self)
        self.give_back()
        return 0


cdef DirectoryLock lock_file(FileSystem disk, str path):
    return take_lock(disk, path, False)


cdef DirectoryLock lock_file_shared(FileSystem disk, str path):
    return take_lock(disk, path, True)


cdef DirectoryLock take_lock(FileSystem disk, str path, bint shared):
    """The directory's own lock first: it holds whatever becomes of the file."""
    cdef DirectoryLock lock = DirectoryLock.__new__(DirectoryLock)
    cdef bytes raw = os.fsencode(path)
    cdef bytes raw_directory = os.fsencode(os.path.dirname(path))
    cdef const char* at = raw
    cdef const char* directory_at = raw_directory
    cdef int result
    lock.disk = disk
    with nogil:
        result = disk.ops.lock_directory(disk.disk, directory_at, shared, &lock.directory)
    if result < 0:
        lock.directory = NULL
        if result != -EOPNOTSUPP:
            raise lock_failure(disk, path, result)
    with nogil:
        if shared:
            result = disk.ops.lock_shared(disk.disk, at, &lock.file)
        else:
            result = disk.ops.lock(disk.disk, at, &lock.file)
    if result < 0:
        lock.file = NULL
        if not (shared and result == -ENOENT):
            raise lock_failure(disk, path, result)
        if lock.directory == NULL:
            return None
    HELD.add(lock)
    return lock


cdef object lock_failure(FileSystem disk, str path, int result):
    if result == -ELOOP:
        return StorageError("the lock is a symbolic link", path=path, errno=ELOOP)
    if result != -EAGAIN:
        return os_failure(result, b"locking the directory", path)
    return AlreadyOpenError(
        f"the database is open already, {holder_words(disk, path)}; its lock ends with that, never "
        "remove LOCK",
        path=path, errno=EAGAIN,
    )


cdef str holder_words(FileSystem disk, str path):
    if is_held_here(disk, path):
        return "in this process"
    cdef int process = holder_of(path, os.path.dirname(path))
    return f"in process {process}" if process else "in another process"


cdef bint is_held_here(FileSystem disk, str path) except -1:
    cdef DirectoryLock lock
    cdef bytes raw = os.fsencode(path)
    cdef bytes raw_directory = os.fsencode(os.path.dirname(path))
    cdef void* base = base_of(disk)
    # With the GIL, without which whoever holds it might close what is looked at. The disk has just
    # answered for the same file.
    for lock in list(HELD):
        if base_of(lock.disk) != base:
            continue
        if lock.directory != NULL:
            if lock.disk.ops.names(lock.disk.disk, raw_directory, lock.directory) == 1:
                return True
        elif lock.file != NULL and lock.disk.ops.names(lock.disk.disk, raw, lock.file) == 1:
            return True
    return False
