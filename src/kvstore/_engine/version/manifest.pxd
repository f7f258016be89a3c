"""Reading a manifest and writing a new one; the bytes are described in manifest.pyx."""

from libc.stdint cimport uint64_t

from kvstore._engine.files.native cimport Appender, FileSystem


cdef class Manifest:
    """The manifest being written. One thread at a time."""
    cdef Appender file
    cdef readonly uint64_t number
    cdef readonly uint64_t edits
    cdef int check(self) except -1
    # append() and sync() in one; `unsure`: nobody knows whether the edit holds. Then `note`, as by
    # note_end(), without taking the GIL in between: True, what os_failure() wants of how it failed,
    # or None where it is still to be done.
    cdef object append_synced(
        self, object edit, object note, uint64_t segment, uint64_t offset, bint* unsure
    )
    cdef object seed                        # of the edits' checksums
    cdef readonly uint64_t first_bytes      # size with the first edit alone, which says everything
    cdef readonly uint64_t durable_bytes    # what END may say of it: an edit whose sync failed isn't in


# (number, [Edit], bytes of them, torn bytes) of the manifest that CURRENT names, of the database `database_id` (None:
# of whichever). `noted`: what END says of it, or None.
cdef tuple load_manifest(
    FileSystem disk, str directory, object database_id, bint read_only, bytes noted
)
cdef bytes manifest_owner(FileSystem disk, str directory)
# A manifest of this path with `everything` as its first edit, not durable yet. Leaves nothing where it fails.
cdef Manifest draft_manifest(
    FileSystem disk, str path, uint64_t number, bytes database_id, object everything
)
# What CURRENT says where that manifest is in force.
cdef bytes current_text(uint64_t number)
# A durable MANIFEST-<number> with `everything` as its first edit. Leaves nothing where it fails.
cdef Manifest create_manifest(
    FileSystem disk, str directory, uint64_t number, bytes database_id, object everything
)
# Switches CURRENT to it; durable only with the next sync of the directory. Where it fails CURRENT is
# what it was.
cdef int point_current(FileSystem disk, str directory, uint64_t number) except -1
# Both, durable.
cdef Manifest begin_manifest(
    FileSystem disk, str directory, uint64_t number, bytes database_id, object everything
)
cdef int remove_quietly(FileSystem disk, str path) except -1
