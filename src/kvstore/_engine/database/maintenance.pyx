"""Destroying a database that nobody has open, and knowing which files are a database's own."""

import os

from libc.errno cimport ENOTDIR
from libc.stdint cimport int64_t, uint8_t

from kvstore._engine.files.native cimport (
    LINES_BYTES_MAX,
    OPEN_READ,
    DirectoryLock,
    FileSystem,
    kind_of,
    list_directory,
    lock_file,
    os_failure,
    read_whole,
    remove_directory,
    remove_file,
    sync_directory,
)
from kvstore._engine.log.native cimport is_own_log_name

from kvstore.errors import CorruptionError, IntegrityCode, StorageError

# What our files begin with (sstable_frame.pyx, manifest.pyx, log_format.pxd).
TABLE_MAGIC = b"\x89kvsst\r\n"
MANIFEST_MAGIC = b"kvmanif\0"
LOG_MAGIC = b"KVWL"


def destroy(str path, FileSystem filesystem not None):
    cdef DirectoryLock lock
    path = filesystem.resolve(path)
    if kind_of(filesystem, path) == 0:
        return
    names = own_names(filesystem, path)
    lock = lock_file(filesystem, f"{path}/LOCK")
    try:
        # The identity last: what a crash leaves is still known as ours, and can be destroyed again.
        for name in sorted(names, key=lambda name: (name == IDENTITY, name)):
            if name == LOG_DIRECTORY:
                destroy_log(filesystem, f"{path}/{name}")
            elif name != "LOCK":
                remove_file(filesystem, f"{path}/{name}")
        remove_file(filesystem, f"{path}/LOCK")
        # While it is locked: whoever opens it now is refused, instead of losing it afterwards.
        if not list_directory(filesystem, path):
            remove_directory(filesystem, path)
            sync_directory(filesystem, os.path.dirname(path))
    finally:
        lock.close()


cdef int destroy_log(FileSystem disk, str path) except -1:
    if kind_of(disk, path) == 0:
        remove_file(disk, path)         # a link to what is there no more
        return 0
    for name in list_directory(disk, path):
        if is_own_log_name(name):
            remove_file(disk, f"{path}/{name}")
    if not list_directory(disk, path):
        try:
            remove_directory(disk, path)
        except StorageError as error:
            if error.errno != ENOTDIR:
                raise
            remove_file(disk, path)     # a link to a directory elsewhere
    return 0


cdef list own_names(FileSystem disk, str path):
    """The database's own files in the directory; an error where it holds no database."""
    if kind_of(disk, path) != 2:
        raise StorageError(
            "not a database's directory", code=IntegrityCode.INVALID_MAGIC, path=path
        )
    names = list_directory(disk, path)
    own = [name for name in names if is_own_name(name)]
    if IDENTITY in names:
        try:
            check_identity(
                read_whole(disk, f"{path}/{IDENTITY}", LINES_BYTES_MAX), f"{path}/{IDENTITY}", True
            )
        except CorruptionError as error:
            if error.code == IntegrityCode.UNSUPPORTED_VERSION:
                raise
            if not any(name.endswith(".sst") or name.startswith("MANIFEST-") for name in own):
                raise
            if error.code == IntegrityCode.INVALID_MAGIC:
                check_beginnings(disk, path, own)
    elif set(names) - MADE_FIRST - {"LOCK"}:
        if len(own) < len(names) or not any(name.startswith("MANIFEST-") for name in own):
            raise no_database(path)
        check_beginnings(disk, path, own)
    return own


cdef object no_database(str path):
    return StorageError(
        "the directory holds no kvstore database; nothing was touched",
        code=IntegrityCode.INVALID_MAGIC, path=path,
    )


cdef int check_beginnings(FileSystem disk, str path, list own) except -1:
    """That the files are ours where no identity says so: other stores use the same names.

    One must begin as ours do, and none as something else. A beginning that is cut off or zero is
    what damage leaves of ours.
    """
    cdef bint ours = False
    if LOG_DIRECTORY in own and kind_of(disk, f"{path}/{LOG_DIRECTORY}") == 2:
        own = own + [
            f"{LOG_DIRECTORY}/{name}" for name in list_directory(disk, f"{path}/{LOG_DIRECTORY}")
            if is_own_log_name(name)
        ]
    for name in own:
        if name.endswith(".sst"):
            magic = TABLE_MAGIC
        elif name.startswith("MANIFEST-"):
            magic = MANIFEST_MAGIC
        elif name.endswith(".wal"):
            magic = LOG_MAGIC
        else:
            continue
        if kind_of(disk, f"{path}/{name}") != 1:
            raise no_database(path)
        found = beginning(disk, f"{path}/{name}", len(magic))
        if found == magic:
            ours = True
        elif any(found) and not magic.startswith(found):
            raise no_database(path)
    if not ours:
        raise no_database(path)
    return 0


cdef bytes beginning(FileSystem disk, str path, int size):
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef uint8_t[16] data
    cdef void* file = NULL
    cdef int64_t done = 0
    cdef int result
    with nogil:
        result = disk.ops.open(disk.disk, at, OPEN_READ, &file)
        if result >= 0:
            done = disk.ops.pread(disk.disk, file, data, <size_t> min(size, 16), 0)
            disk.ops.close(disk.disk, file)
    if result < 0:
        raise os_failure(result, b"opening a file", path)
    if done < 0:
        raise os_failure(<int> done, b"reading a file", path)
    return (<const char*> data)[:done]
