"""A database's directory: IDENTITY, and the names of its files."""

from libc.stdint cimport uint64_t

from kvstore._engine.files.native cimport FileSystem


cdef bytes identity_text(bytes database_id)
# The database's id in the file's bytes; errors as for a foreign or newer database.
cdef bytes check_identity(bytes data, str path, bint read_only)
cdef bint is_own_name(str name)
# The number of a table or manifest, 0 for any other file.
cdef uint64_t number_of(str name)
# That the file is there and of its size; what is in it is checked as it is read.
cdef int check_table_file(FileSystem disk, str path, uint64_t expected) except -1
