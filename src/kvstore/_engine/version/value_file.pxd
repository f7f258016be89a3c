"""Value files, `%06d.val`: where values lie that are kept apart from their keys.

A value file begins with the header of a log segment (log_format.pxd), whose checksum is the seed of the
checksums in all pointers into it; of what follows nothing is read but what pointers say. It is a segment of
the log under a second name (a hard link: value_log.pyx), or was written by a compaction that emptied another
one.

Which of them are needed follows from the tables: each says in the manifest into which files it points. A
ValueFile is shared by the tables that point into it. Any thread, no GIL.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice, Status
from kvstore._engine.files.native cimport FileSystemOps
from kvstore._engine.table.native cimport Pointer, ValueRef


cdef enum:
    # A value file that a compaction writes is closed at the first value beyond.
    VALUE_FILE_BYTES = 1 << 26


cdef struct ValueFile:
    # All guarded by OpenTables.values_lock.
    uint64_t number
    ValueFile* next             # in its chain
    uint64_t references         # of LiveTables, and of whoever else keeps it
    # Tables that are, or are about to be, in the present version; and the log, while more may come to be
    # pointed to. Once it is 0 the file goes after the last reference; at closing it stays above 0.
    uint64_t wanted
    bint damaged                # a compaction couldn't read all of it: none tries to empty it again
    void* file                  # NULL: not open
    uint32_t seed               # of an open one
    int readers                 # it stays open for them
    uint64_t used               # grows with each use


cdef struct ValueLink:
    # What a LiveTable points to in one value file; see ValueRef.
    ValueFile* file
    uint64_t bytes
    uint64_t end


# The value file, made where nobody knows it yet, with one reference more. NULL: no memory.
cdef ValueFile* value_file_get(OpenTables* tables, uint64_t number) noexcept nogil
cdef void value_file_want(OpenTables* tables, ValueFile* file) noexcept nogil
# May only be followed by value_file_want of somebody else who wants it already.
cdef void value_file_unwant(OpenTables* tables, ValueFile* file) noexcept nogil
# Gives one reference back; unlinks a file that nobody wants after its last one.
cdef void value_file_release(OpenTables* tables, ValueFile* file) noexcept nogil
# `path` has room for MAX_PATH_BYTES.
cdef void value_path(const char* directory, uint64_t number, char* path) noexcept nogil
# Notes that some of it can't be read; one that nobody knows is left alone.
cdef void value_file_is_damaged(OpenTables* tables, uint64_t number) noexcept nogil
# Closes idle ones; how many. For when descriptors are lacking.
cdef int value_files_close_idle(OpenTables* tables) noexcept nogil
# Bytes of the file itself. -1: see status.
cdef int value_file_size(
    OpenTables* tables, uint64_t number, uint64_t* size, Status* status
) noexcept nogil

# The value that an entry of this key points to, read and checked, into `into`. The caller keeps the entry's
# table. Lets go of the GIL. -1: see status, which is then about the value file.
cdef int value_read(
    OpenTables* tables, Slice user_key, Slice pointed, Buffer* into, Status* status
) noexcept nogil
# Reads and checks all values that the table points to, and that it says into which files. -1: see status.
cdef int values_verify(LiveTable* file, Status* status) noexcept nogil


cdef struct ValueWriter:
    # Writes values into fresh value files. All zero: not begun.
    const FileSystemOps* ops
    void* disk
    const char* directory
    uint64_t* next_number       # atomic
    void* file                  # NULL between files
    uint64_t number
    uint32_t seed
    uint64_t written            # bytes in the file
    Buffer pending              # that follow them
    Buffer numbers              # u64 of each file, the present one included
    uint64_t bytes_written      # in all


# Takes a value; `pointer` then says where it will be. -1: see status.
cdef int value_writer_add(
    ValueWriter* writer, Slice user_key, Slice value, Pointer* pointer, Status* status
) noexcept nogil
# All of it durable, but for the names. -1: see status.
cdef int value_writer_finish(ValueWriter* writer, Status* status) noexcept nogil
# Removes all files that it made; where that fails the next opening does.
cdef void value_writer_unlink(ValueWriter* writer) noexcept nogil
cdef void value_writer_free(ValueWriter* writer) noexcept nogil
