"""Reading what tables point to in a database that nobody has open: for a repair."""

import os

from kvstore._engine.primitives.native cimport (
    Buffer,
    PodVector,
    Slice,
    Status,
    buffer_free,
    buffer_init,
    kv_realloc,
    slice_of,
    status_clear,
    status_error_in,
)
from kvstore._engine.files.native cimport FileSystem
from kvstore._engine.table.native cimport Pointer, pointer_get
from kvstore._engine.version.native cimport (
    OpenTables,
    ValueFile,
    open_tables_new,
    open_tables_release,
    value_file_get,
    value_file_release,
    value_file_want,
    value_read,
)

cdef enum:
    REPAIR_OPEN_VALUES = 64


cdef class PointedValues:
    cdef OpenTables* tables
    cdef FileSystem disk
    cdef str path
    cdef PodVector[ValueFile*] files
    cdef set known

    def __init__(self, FileSystem disk not None, str path not None):
        cdef bytes raw = os.fsencode(path)
        if self.tables != NULL:
            raise TypeError("these are open already")
        self.disk = disk
        self.path = path
        self.known = set()
        self.tables = open_tables_new(disk.ops, disk.disk, NULL, raw, REPAIR_OPEN_VALUES)
        if self.tables == NULL:
            raise MemoryError("no memory for values")

    def close(self):
        cdef size_t i
        if self.tables == NULL:
            return
        for i in range(self.files.size()):
            value_file_release(self.tables, self.files[i])
        self.files.clear()
        open_tables_release(self.tables)
        self.tables = NULL

    def check(self, bytes key not None, bytes pointed not None):
        """Raises where the value can't be read, or isn't the one that the key had."""
        cdef Slice user_key = slice_of(<const char*> key, len(key))
        cdef Slice given = slice_of(<const char*> pointed, len(pointed))
        cdef ValueFile* file
        cdef Pointer pointer
        cdef Buffer value
        cdef Status status
        cdef int result
        status_clear(&status)
        buffer_init(&value)
        if pointer_get(&pointer, given) == 0 and pointer.file not in self.known:
            file = value_file_get(self.tables, pointer.file)
            if file == NULL or self.files.push(file, kv_realloc) < 0:
                raise MemoryError("no memory for values")
            # However this ends its file stays.
            value_file_want(self.tables, file)
            self.known.add(pointer.file)
        with nogil:
            result = value_read(self.tables, user_key, given, &value, &status)
            buffer_free(&value)
        if result < 0:
            raise status_error_in(&status, self.path)

    def __dealloc__(self):
        self.close()
