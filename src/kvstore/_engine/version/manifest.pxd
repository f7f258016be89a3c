"""Reading a manifest and writing a new one; the bytes are described in manifest.pyx."""

from libc.stdint cimport uint64_t

from kvstore._engine.files.native cimport Appender, FileSystem


cdef class Manifest:
    """The manifest being written. One thread at a time."""
    cdef Appender file
    cdef readonly uint64_t number
    cdef readonly uint64_t edits
    cdef int check(self) except -1
    cdef readonly uint64_t first_bytes      # size with the first edit alone, which says everything


# (number, [Edit], torn bytes) of the manifest that CURRENT names.
cdef tuple load_manifest(FileSystem disk, str directory)
# Creates MANIFEST-<number> with `everything` as its first edit and switches CURRENT to it.
cdef Manifest begin_manifest(FileSystem disk, str directory, uint64_t number, object everything)
