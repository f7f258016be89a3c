"""Destroying a database that nobody has open, and knowing which files are a database's own."""

import os

from kvstore._engine.files.native cimport (
    DirectoryLock,
    FileSystem,
    kind_of,
    list_directory,
    lock_file,
    read_whole,
    remove_directory,
    remove_file,
    sync_directory,
)
from kvstore._engine.log.native cimport is_own_log_name

from kvstore.errors import CorruptionError, IntegrityCode, StorageError


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
    finally:
        lock.close()
    if not list_directory(filesystem, path):
        remove_directory(filesystem, path)
        sync_directory(filesystem, os.path.dirname(path))


cdef int destroy_log(FileSystem disk, str path) except -1:
    for name in list_directory(disk, path):
        if is_own_log_name(name):
            remove_file(disk, f"{path}/{name}")
    if not list_directory(disk, path):
        remove_directory(disk, path)
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
                read_whole(disk, f"{path}/{IDENTITY}"), f"{path}/{IDENTITY}", True
            )
        except CorruptionError as error:
            if error.code == IntegrityCode.UNSUPPORTED_VERSION:
                raise
            if not any(name.endswith(".sst") or name.startswith("MANIFEST-") for name in own):
                raise
    elif set(names) - {"LOCK", f"{IDENTITY}.new"} and not (
        any(name.startswith("MANIFEST-") for name in own) and len(own) == len(names)
    ):
        raise StorageError(
            "the directory holds no kvstore database; nothing was touched",
            code=IntegrityCode.INVALID_MAGIC, path=path,
        )
    return own
