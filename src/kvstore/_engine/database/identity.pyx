"""Whose directory it is, and which of its files are a database's own."""

import os

from libc.errno cimport ENOENT
from libc.stdint cimport int64_t, uint64_t

from kvstore._engine.files.native cimport OPEN_READ, FileSystem, os_failure
from kvstore._engine.primitives.native import crc32c

from kvstore._engine.version.native import END, check_features

from kvstore.errors import CorruptionError, IntegrityCode

IDENTITY = "IDENTITY"
IDENTITY_HEAD = "kvstore engine"
FORMAT_VERSION = 2
LOG_DIRECTORY = "wal"
RESERVE = "RESERVE"
# What a database is made of before it has its names: a crash may leave any of it.
MADE_FIRST = frozenset((f"{IDENTITY}.new", f"{END}.new", "CURRENT.new", "MANIFEST-000001.new"))


cdef bytes identity_text(bytes database_id):
    body = (
        f"{IDENTITY_HEAD}\nformat {FORMAT_VERSION}\nid {database_id.hex()}\n"
        "compatible 00000000\nread-only-compatible 00000000\nincompatible 00000000\n"
    )
    return f"{body}crc {crc32c(body.encode()):08x}\n".encode()


cdef bytes check_identity(bytes data, str path, bint read_only):
    if not data.startswith(IDENTITY_HEAD.encode() + b"\n"):
        raise CorruptionError(
            "not a kvstore database's identity", code=IntegrityCode.INVALID_MAGIC, path=path
        )
    body, _, check = data.rpartition(b"crc ")
    if check != b"%08x\n" % crc32c(body):
        raise CorruptionError(
            "identity checksum", code=IntegrityCode.CHECKSUM_MISMATCH, path=path
        )
    lines = body.decode("ascii", "replace").splitlines()
    if len(lines) < 2 or lines[1] != f"format {FORMAT_VERSION}":
        raise CorruptionError(
            f"{lines[1] if len(lines) > 1 else 'no format'}, this program reads format "
            f"{FORMAT_VERSION}", code=IntegrityCode.UNSUPPORTED_VERSION, path=path,
        )
    # Lines that this program doesn't know belong to features, and those say what to do.
    fields = dict(line.rpartition(" ")[::2] for line in lines[2:])
    try:
        database_id = bytes.fromhex(fields["id"])
        read_only_compatible = int(fields["read-only-compatible"], 16)
        incompatible = int(fields["incompatible"], 16)
    except (KeyError, ValueError):
        database_id = b""
    if len(database_id) != 16:
        raise CorruptionError(
            "identity without its fields", code=IntegrityCode.INVALID_RECORD, path=path
        )
    check_features(read_only_compatible, incompatible, read_only, path)
    return database_id


cdef bint is_own_name(str name):
    """Whether a file of this name may be a database's own."""
    stem, _, suffix = name.partition(".")
    if name.startswith("MANIFEST-"):
        return name[9:].removesuffix(".new").isdecimal()
    if name.removesuffix(".new") in ("LOCK", "CURRENT", END, IDENTITY, LOG_DIRECTORY, RESERVE):
        return True
    return suffix == "sst" and stem.isdecimal()


cdef uint64_t number_of(str name):
    """The number of a table or manifest, 0 for any other file."""
    stem, _, suffix = name.partition(".")
    if suffix == "sst" and stem.isdecimal():
        return int(stem)
    if name.startswith("MANIFEST-") and name[9:].isdecimal():
        return int(name[9:])
    return 0


cdef int check_table_file(FileSystem disk, str path, uint64_t expected) except -1:
    """That the file is there and of its size; what is in it is checked as it is read."""
    cdef bytes raw = os.fsencode(path)
    cdef const char* at = raw
    cdef void* file = NULL
    cdef int64_t size = 0
    cdef int result
    with nogil:
        result = disk.ops.open(disk.disk, at, OPEN_READ, &file)
        if result >= 0:
            size = disk.ops.size(disk.disk, file)
            disk.ops.close(disk.disk, file)
    if result == -ENOENT:
        raise CorruptionError(
            "the manifest names a table that is missing", code=IntegrityCode.INVALID_RECORD,
            path=path,
        )
    if result < 0:
        raise os_failure(result, b"opening a table", path)
    if size < 0:
        raise os_failure(<int> size, b"sizing a table", path)
    if <uint64_t> size != expected:
        raise CorruptionError(
            f"a table of {size} bytes, the manifest says {expected}",
            code=IntegrityCode.TRUNCATED_RECORD if <uint64_t> size < expected
            else IntegrityCode.INVALID_RECORD,
            path=path, offset=min(<uint64_t> size, expected),
        )
    return 0
